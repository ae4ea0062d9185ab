"""Programs that are launched with new scalars: expanded from the binary, never interpreted again, with the same bits."""

import os
from typing import Any

import emulator_harness
import numpy as np
import pytest
from emulator_harness import bits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memories import contents, differing
from naive_programs import Program, programs
from position_program import ROWS, Positions, positions
from replay_harness import code, machine_for, view

from emulator.machine import Machine
from emulator.pieces import Piece, Pieces
from emulator.replay import layout
from isa.architecture import Dtype, Region, Space
from isa.codec import Inst, encode
from isa.errors import Trap
from isa.spec import SALU, VOP

expand = pytest.importorskip("emulator.replay.expand", reason="numba is not installed")

EXAMPLES = int(os.environ.get("LLMCHIP_EXAMPLES", "20"))
quick = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


def test_one_program_serves_every_position() -> None:
    """Breaks when an address, an extent or a trip count is not that of the launch's scalars, packed weights are taken
    where the row moved, or a launch with a new scalar is interpreted."""
    got, want = Positions(), Positions(interpret=True)
    for position in positions(200):
        assert got.launch(position) == want.launch(position), position
    assert (got.machine.interpreted, want.machine.interpreted) == (1, 200)


def test_what_an_expanded_launch_wrote_counts_as_written() -> None:
    """Breaks when rows that expanded launches appended are unknown to a launch that is interpreted after them."""
    got = Positions()
    for position in range(4):
        got.launch(position)
    got.machine.run(got.code, probe=lambda *_: None)
    assert got.machine.interpreted == 2


@pytest.mark.parametrize("position", [-1, ROWS, 1 << 20, (1 << 31) - 1])
def test_a_position_outside_traps_as_if_it_were_interpreted(position: int) -> None:
    """Breaks when an expanded view leaves its memory unseen, or a refused launch has written something before."""
    got, want = Positions(), Positions(interpret=True)
    for number in range(3):
        assert got.launch(number) == want.launch(number)
    texts = []
    for machine in (got, want):
        with pytest.raises(Trap) as trapped:
            machine.launch(position)
        texts.append((str(trapped.value), trapped.value.pc, machine.state.tobytes()))
    assert texts[0] == texts[1]
    assert got.launch(3) == want.launch(3)


def moving(program: Program) -> bytes:
    """The program with its dynamic extents and trip counts bound by launch scalars s14 and s13."""
    words: list[Inst] = []
    for inst in program.words:
        operands = inst.named()
        if inst.mnemonic == "salu" and operands["f"] == SALU.index("mov") and operands["d"] == 9:
            inst = Inst.make("salu", f=SALU.index("min"), d=9, a=14, bi=1, imm=operands["imm"])
        if inst.mnemonic == "loop" and not operands["dyn"]:
            words.append(Inst.make("salu", f=SALU.index("min"), d=10, a=13, bi=1, imm=operands["count"]))
            inst = Inst.make("loop", level=operands["level"], len=operands["len"], dyn=1, s=10)
        words.append(inst)
    return b"".join(map(encode, words))


launch = st.tuples(st.integers(-1, 3), st.integers(-1, 80), st.integers(0, 1))


@quick
@given(programs(), st.lists(launch, min_size=3, max_size=5))
def test_random_programs_with_other_scalars_at_each_launch(program: Program, given: list[tuple[int, int, int]]) -> None:
    """Breaks when a program means something else for the second scalars, or traps elsewhere or with another text."""
    binary, machines = moving(program), (machine_for(program), machine_for(program, interpret=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expand, "UNREAD", expand.COPY)  # so that SRAM can be compared too
        for trips, extent, moved in ((3, 80, 0), *given):
            outcomes = []
            for machine in machines:
                try:
                    outcomes.append(str(machine.run(binary, scalars=[0] * 13 + [trips, extent, moved])))
                except Trap as trap:
                    outcomes.append(str(trap))
            assert outcomes[0] == outcomes[1]
            if not outcomes[1].isdigit():
                return
            assert not differing(program, contents(machines[0]), contents(machines[1])), (trips, extent, moved)


def small(**regions: Any) -> Machine:
    return Machine(
        4096, 4096, {Region[name.upper()]: data for name, data in regions.items()}, {Region.IN, Region.PARAMS}
    )


def doubling(count: int) -> bytes:
    """`count` numbers of IN, doubled s1 times."""
    return code(
        view(1, Space.DRAM, region=Region.IN),
        view(2, Space.SRAM),
        view(3, Space.DRAM, region=Region.OUT),
        Inst.make("lda", d=2, a=1, rows=1, cols=count),
        Inst.make("loop", level=0, len=1, dyn=1, s=1),
        Inst.make("vop", f=VOP.index("mul"), d=2, a=2, rows=1, cols=count, imm=bits(2.0)),
        Inst.make("sto", d=3, a=2, rows=1, cols=count),
    )


def test_a_trip_count_may_be_any() -> None:
    """Breaks when a table is too small for the rows of a launch, or keeps those of another one."""
    data, out = np.ones(4, np.float32), np.zeros(16, np.uint8)
    machine = small(**{"in": data.view(np.uint8)}, out=out)
    for count in (1, 100, 0, 5, 120, -7, 100):
        machine.run(doubling(4), scalars=[0, count])
        assert out.view(np.float32).tolist() == [2.0 ** max(count, 0)] * 4
    assert machine.interpreted == 1


def test_a_budget_holds_for_every_trip_count() -> None:
    """Breaks when an expanded launch does more than it may, which the first one did not."""
    data, out = np.ones(4, np.float32), np.zeros(16, np.uint8)
    machine = small(**{"in": data.view(np.uint8)}, out=out)
    for count in (1, 90):
        machine.run(doubling(4), scalars=[0, count], budget=100)
    for _ in range(2):
        with pytest.raises(Trap, match="budget of 100 instructions is spent"):
            machine.run(doubling(4), scalars=[0, 95], budget=100)
    machine.run(doubling(4), scalars=[0, 95])
    with pytest.raises(Trap, match="budget of 100 instructions is spent"):
        machine.run(doubling(4), scalars=[0, 95], budget=100)


def test_blocks_may_go_over_the_border_of_pieces() -> None:
    """Breaks when an address behind a border is taken from the piece before it."""
    values, out = np.arange(24, dtype=np.float32), np.zeros(32, np.uint8)
    places = {4 * start: Piece(values[start : start + 8].view(np.uint8).copy()) for start in (0, 8, 16)}
    machine = Machine(4096, 0, {Region.CONST: Pieces(96, places), Region.OUT: out}, {Region.CONST})
    program = code(
        view(1, Space.DRAM, region=Region.CONST),
        Inst.make("vadd", v=1, s=1, scale=4),
        view(2, Space.SRAM),
        view(3, Space.DRAM, region=Region.OUT),
        Inst.make("lda", d=2, a=1, rows=1, cols=8),
        Inst.make("sto", d=3, a=2, rows=1, cols=8),
    )
    for start in (0, 8, 5, 16, 9, 0):
        machine.run(program, scalars=[0, start])
        assert out.view(np.float32).tolist() == values[start : start + 8].tolist(), start
    assert machine.interpreted == 1
    with pytest.raises(Trap, match="access to bytes"):
        machine.run(program, scalars=[0, 17])


def test_packed_weights_follow_the_view_that_moves() -> None:
    """Breaks when weights of one expert are used for another, or a copy is left out for one launch that the next one
    reads."""
    rng = np.random.default_rng(0)
    weights = rng.integers(-128, 128, (3, 8, 8)).astype(np.int8)
    left, out = rng.integers(-128, 128, 8).astype(np.int8), np.zeros(40, np.uint8)
    const = weights.view(np.uint8).ravel()
    const.flags.writeable = False
    machine = Machine(
        4096, 4096, {Region.CONST: const, Region.IN: left.view(np.uint8), Region.OUT: out}, {Region.CONST, Region.IN}
    )
    byte: Any = {"dtype": Dtype.I8}
    program = code(
        view(1, Space.DRAM, region=Region.IN, **byte),
        view(2, Space.SRAM, **byte),
        view(3, Space.DRAM, region=Region.CONST, **byte),
        Inst.make("vadd", v=3, s=1, scale=64),
        view(4, Space.SRAM, 64, rs=8, **byte),
        view(5, Space.ACC, dtype=Dtype.I32),
        view(6, Space.SRAM, 1024, dtype=Dtype.I32),
        view(7, Space.DRAM, region=Region.OUT, dtype=Dtype.I32),
        view(8, Space.DRAM, 32, region=Region.OUT, **byte),
        Inst.make("lda", d=2, a=1, rows=1, cols=8),
        Inst.make("ldw", d=4, a=3, rows=1, cols=64),
        Inst.make("mm", c=5, a=2, w=4, m=1, n=8, k=8, wt=1),
        Inst.make("vop", f=VOP.index("mov"), d=6, a=5, rows=1, cols=8),
        Inst.make("sto", d=7, a=6, rows=1, cols=8),
        Inst.make("loop", level=0, len=1, dyn=1, s=2),
        Inst.make("sto", d=8, a=4, rows=1, cols=8),
    )
    for expert, reads in ((0, 0), (1, 0), (2, 1), (1, 1), (0, 0), (2, 1)):
        out.fill(0)
        machine.run(program, scalars=[0, expert, reads])
        assert out[:32].view(np.int32).tolist() == (weights[expert].astype(int) @ left.astype(int)).tolist()
        assert out[32:].view(np.int8).tolist() == (weights[expert, 0].tolist() if reads else [0] * 8)
    assert machine.interpreted == 1


def test_a_scalar_that_the_program_wrote_in_dram_is_never_read_beforehand() -> None:
    """Breaks when a scalar is loaded from a place that the launch is only going to write."""
    state, out = np.zeros(16, np.uint8), np.zeros(16, np.uint8)
    machine = small(**{"in": np.arange(16, dtype=np.int32).view(np.uint8)}, state=state, out=out)
    i32: Any = {"dtype": Dtype.I32}
    program = code(
        view(1, Space.DRAM, region=Region.IN, **i32),
        Inst.make("vadd", v=1, s=1, scale=4),
        view(2, Space.SRAM, **i32),
        view(3, Space.DRAM, region=Region.STATE, **i32),
        view(4, Space.DRAM, region=Region.OUT, **i32),
        Inst.make("lda", d=2, a=1, rows=1, cols=4),
        Inst.make("sto", d=3, a=2, rows=1, cols=1),
        Inst.make("sld", d=2, v=3),
        Inst.make("vop", f=VOP.index("xor"), d=2, a=2, b=2, rows=1, cols=4),
        Inst.make("loop", level=0, len=1, dyn=1, s=2),
        Inst.make("vop", f=VOP.index("add"), d=2, a=2, rows=1, cols=4, imm=1),
        Inst.make("sto", d=4, a=2, rows=1, cols=4),
    )
    for first in (3, 5, 5, 1):
        machine.run(program, scalars=[0, first])
        assert out.view(np.int32).tolist() == [first] * 4


@pytest.mark.parametrize("storage", [Dtype.I4, Dtype.I8])
def test_grouped_products_have_a_kernel(storage: Dtype) -> None:
    """Breaks when a decode step goes back to Python at each product of GGUF weights, or at the copy of codes of four
    bits."""
    p, rng, width = emulator_harness.Program(), np.random.default_rng(0), 64 * storage.bits // 8
    x, a, s = p.source(rng.standard_normal((2, 32)), Dtype.F32), p.target(Dtype.I8, 2, 32), p.target(Dtype.F32, 2, 1)
    p.word("vqd", d=a, s=s, a=x, rows=2, cols=32, norm=1, ties=1)
    codes, scales = rng.integers(-128, 128, (8, width // 2)), rng.standard_normal((8, 1)).astype(np.float32)
    packed = p.source(codes, Dtype.I8)
    w, copied = p.view(storage, p.views[packed].base, 32), p.view(storage, p.place(8 * width), 32)
    there = p.view(storage, 0, 32, space=Space.DRAM, region=Region.OUT)
    p.word("sto", d=there, a=w, rows=8, cols=32)
    p.word("lda", d=copied, a=there, rows=8, cols=32)
    c = p.target(Dtype.F32, 2, 8, space=Space.ACC)
    p.word("mmg", c=c, a=a, sa=s, w=copied, sw=p.source(scales, Dtype.F32), m=2, n=8, k=32)
    want = p.run().read(c)
    assert p.machine is not None
    p.machine.run(p.code())
    assert p.read(c).tobytes() == want.tobytes()
    assert p.machine._replays is not None and p.machine._replays._plans is not None
    (plan,) = p.machine._replays._plans._plans.values()
    assert plan.info[layout.HANDLED_COUNT] == 0
