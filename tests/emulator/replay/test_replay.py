"""Launches by plan, with and without compiled kernels, leave the same bits as word by word."""

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from memories import differing
from naive_programs import Program, programs
from replay_harness import code, launches, machine_for, view

from emulator.machine import Machine
from isa.architecture import Dtype, Region, Space
from isa.codec import Inst
from isa.errors import Trap
from isa.spec import SALU, VOP

expand = pytest.importorskip("emulator.replay.expand", reason="numba is not installed")

EXAMPLES = int(os.environ.get("LLMCHIP_EXAMPLES", "20"))
quick = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@quick
@given(programs())
def test_every_word_means_the_same_in_a_plan(program: Program) -> None:
    """Breaks when a kernel rounds, orders, strides or broadcasts differently, or a plan runs words that were not
    executed."""
    wanted = launches(program, 3, interpret=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expand, "UNREAD", expand.COPY)  # so that SRAM can be compared too
        for compiled in (True, False):
            for number, (got, want) in enumerate(zip(launches(program, 3, compiled=compiled), wanted, strict=True)):
                assert not differing(program, got, want), (compiled, number)


@quick
@given(programs())
def test_copies_that_are_left_out_are_not_missed(program: Program) -> None:
    """Breaks when weights are taken from where they no longer lie, or a copy is left out that something reads."""
    want, got = launches(program, 2, interpret=True)[-1], launches(program, 2)[-1]
    assert [b for b in differing(program, got, want) if b.space is Space.DRAM] == []


def small(**regions: Any) -> Machine:
    return Machine(
        4096, 4096, {Region[name.upper()]: data for name, data in regions.items()}, {Region.IN, Region.PARAMS}
    )


def test_a_loaded_scalar_is_looked_at_before_every_launch() -> None:
    """Breaks when a plan is used for another length than the one that it was recorded with, or the two share what was
    written."""
    params, data, out = np.zeros(4, np.uint8), np.arange(32, dtype=np.float32).view(np.uint8), np.zeros(128, np.uint8)
    machine = small(params=params, **{"in": data}, out=out)
    words = (
        view(1, Space.DRAM, region=Region.PARAMS, dtype=Dtype.I32),
        Inst.make("sld", d=3, v=1),
        view(2, Space.DRAM, region=Region.IN),
        view(3, Space.SRAM),
        view(4, Space.DRAM, region=Region.OUT),
        Inst.make("lda", d=3, a=2, rows=1, cols=1, dyn=3, dyn_s=3),
        Inst.make("vop", f=VOP.index("mul"), d=3, a=3, rows=1, cols=1, imm=0x40000000, dyn=3, dyn_s=3),
        Inst.make("sto", d=4, a=3, rows=1, cols=1, dyn=3, dyn_s=3),
    )
    for length in (5, 5, 9, 9, 5, 9, 0, 5, 32):
        params.view(np.int32)[0] = length
        out.fill(0)
        machine.run(code(*words))
        want = np.arange(32, dtype=np.float32) * 2
        want[length:] = 0
        assert out.view(np.float32).tolist() == want.tolist(), length


def test_a_scalar_that_the_program_computed_in_memory_is_never_trusted() -> None:
    """Breaks when a program whose control flow depends on its own data is replayed."""
    data, out = np.array([3, 0, 0, 0], np.int32).view(np.uint8), np.zeros(16, np.uint8)
    machine = small(**{"in": data}, out=out)
    i32: Any = {"dtype": Dtype.I32}
    words = (
        view(1, Space.DRAM, region=Region.IN, **i32),
        view(2, Space.SRAM, **i32),
        Inst.make("lda", d=2, a=1, rows=1, cols=4),
        Inst.make("sld", d=1, v=2),
        view(3, Space.DRAM, region=Region.OUT, **i32),
        Inst.make("loop", level=0, len=2, dyn=1, s=1),
        Inst.make("vop", f=VOP.index("add"), d=2, a=2, rows=1, cols=4, imm=1),
        Inst.make("sto", d=3, a=2, rows=1, cols=4),
    )
    for count in (3, 3, 5, 1):
        data.view(np.int32)[0] = count
        machine.run(code(*words))
        assert out.view(np.int32)[0] == 2 * count


def test_an_index_outside_a_table_traps_in_a_plan_too() -> None:
    """Breaks when what depends on data is checked in the first launch only, or the trap names another word."""
    index, table, out = np.zeros(16, np.uint8), np.zeros(64, np.uint8), np.zeros(64, np.uint8)
    machine = small(**{"in": index}, params=table, out=out)
    words = (
        view(1, Space.DRAM, region=Region.IN, dtype=Dtype.I32),
        view(2, Space.SRAM, 0, dtype=Dtype.I32),
        Inst.make("lda", d=2, a=1, rows=1, cols=4),
        view(5, Space.SRAM, 0, dtype=Dtype.I32, rs=1),
        view(3, Space.DRAM, region=Region.PARAMS, rs=4),
        view(4, Space.SRAM, 256, rs=4),
        Inst.make("gather", d=4, a=3, idx=5, n=4, cols=4, limit=4),
    )
    for _ in range(2):
        machine.run(code(*words))
    index.view(np.int32)[2] = 4
    with pytest.raises(Trap, match="row 4 .entry 2. is outside a table of 4 rows") as trapped:
        machine.run(code(*words))
    assert trapped.value.pc == 6 * 16
    index.view(np.int32)[2] = 3
    machine.run(code(*words))


def test_weights_that_the_host_may_change_are_read_in_every_launch() -> None:
    """Breaks when writable memory is taken for constant: packed weights would be stale."""
    rng = np.random.default_rng(0)
    left, weights, out = (
        rng.integers(-128, 128, n).astype(np.int8).view(np.uint8) for n in (4 * 8, 8 * 40, 4 * 40 * 4)
    )
    machine = small(**{"in": left}, params=weights, out=out)
    byte: Any = {"dtype": Dtype.I8}
    words = (
        view(1, Space.DRAM, region=Region.IN, **byte),
        view(2, Space.SRAM, rs=8, **byte),
        view(3, Space.DRAM, region=Region.PARAMS, **byte),
        view(4, Space.SRAM, 64, rs=8, **byte),
        view(5, Space.ACC, dtype=Dtype.I32, rs=40),
        view(6, Space.SRAM, 1024, dtype=Dtype.I32, rs=40),
        view(7, Space.DRAM, region=Region.OUT, dtype=Dtype.I32, rs=40),
        Inst.make("lda", d=2, a=1, rows=1, cols=32),
        Inst.make("ldw", d=4, a=3, rows=1, cols=320),
        Inst.make("mm", c=5, a=2, w=4, m=4, n=40, k=8, wt=1),
        Inst.make("vop", f=VOP.index("mov"), d=6, a=5, rows=4, cols=40),
        Inst.make("sto", d=7, a=6, rows=4, cols=40),
    )
    for _ in range(4):
        weights.view(np.int8)[:] = rng.integers(-128, 128, weights.size)
        machine.run(code(*words))
        want = left.view(np.int8).reshape(4, 8).astype(int) @ weights.view(np.int8).reshape(40, 8).astype(int).T
        assert out.view(np.int32).reshape(4, 40).tolist() == want.tolist()


def test_a_word_that_writes_over_what_it_reads_is_the_same_in_every_launch() -> None:
    """Breaks when a copy is left out because the word that reads it also writes over it: the first launch read it, the
    second what that left."""
    data, out = np.arange(4, dtype=np.float32).view(np.uint8), np.zeros(32, np.uint8)
    data.flags.writeable = False
    machine = Machine(4096, 4096, {Region.CONST: data, Region.OUT: out}, {Region.CONST})
    words = (
        view(1, Space.DRAM, region=Region.CONST),
        view(2, Space.SRAM, 64),
        view(3, Space.SRAM, 64, rs=4),
        view(4, Space.DRAM, region=Region.OUT, rs=4),
        Inst.make("lda", d=2, a=1, rows=1, cols=4),
        Inst.make("vop", f=VOP.index("add"), d=3, a=2, b=2, rows=2, cols=4),
        Inst.make("sto", d=4, a=3, rows=2, cols=4),
    )
    for _ in range(3):
        machine.run(code(*words))
        assert out.view(np.float32).tolist() == [0, 2, 4, 6] * 2


def test_programs_that_differ_in_scalars_have_plans_of_their_own() -> None:
    """Breaks when a plan is found by its code alone."""
    out = np.zeros(4, np.uint8)
    machine = small(out=out)
    words = (
        Inst.make("salu", f=SALU.index("add"), d=1, a=0, bi=1, imm=0),
        view(1, Space.SRAM, dtype=Dtype.I32),
        view(2, Space.DRAM, region=Region.OUT, dtype=Dtype.I32),
        Inst.make("vop", f=VOP.index("xor"), d=1, a=1, b=1, rows=1, cols=1),
        Inst.make("loop", level=0, len=1, dyn=1, s=1),
    )
    fill = Inst.make("vop", f=VOP.index("mov"), d=1, a=1, rows=1, cols=1)
    with pytest.raises(Trap, match="never written"):  # and a launch that trapped leaves no plan
        machine.run(code(*words, fill), scalars=[1])
    with pytest.raises(Trap, match="never written"):
        machine.run(code(*words, fill), scalars=[1])


def test_interpreting_keeps_no_plan() -> None:
    """Breaks when `interpret` is ignored: nothing would be left to compare plans with."""
    program = code(Inst.make("nop"))
    for interpret in (True, False):
        machine = Machine(64, 64, interpret=interpret)
        machine.run(program)
        assert (machine._replays is None) == interpret


__all__ = ["machine_for"]
