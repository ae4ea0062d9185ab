"""Loops, moving views, scalars, dynamic extents, DMA, and the probe."""

from collections.abc import Mapping

import numpy as np
import pytest
from emulator_harness import Program

from emulator.machine import Machine
from emulator.memory import Memory
from isa.architecture import Dtype, Region, Space
from isa.codec import Inst, encode
from isa.spec import SALU, VOP
from isa.views import View

I4, I8, I32, F32 = Dtype.I4, Dtype.I8, Dtype.I32, Dtype.F32
ADD, MOV = VOP.index("add"), VOP.index("mov")


def counted(p: Program, n: int) -> int:
    """n int32 zeros."""
    d = p.target(I32, n)
    p.word("vop", f=MOV, d=d, a=p.source(np.zeros(n), I32), rows=1, cols=n)
    return d


def one_more(p: Program, view: int) -> None:
    p.word("vop", f=ADD, d=view, a=view, rows=1, cols=1, imm=1)


@pytest.mark.parametrize(
    ("div", "mod", "want"),
    [(1, 0, [1, 1, 1, 1, 1, 1]), (1, 2, [3, 3, 0, 0, 0, 0]), (2, 0, [2, 2, 2, 0, 0, 0]), (2, 2, [4, 2, 0, 0, 0, 0])],
)
def test_views_move_with_loops(div: int, mod: int, want: list[int]) -> None:
    """Breaks on a wrong order of division and modulus."""
    p = Program()
    d = counted(p, 6)
    p.view(I32, p.views[d].base)
    moving = len(p.views)
    p.word("vinc", v=moving, level=0, inc=4, div=div, mod=mod)
    p.word("loop", level=0, len=1, count=6)
    one_more(p, moving)
    one_more(p, moving)  # outside the loop the view is back at its base
    want[0] += 1
    assert p.run().read(d)[0].tolist() == want


def test_nested_loops_that_end_together() -> None:
    """Breaks when the inner loop's end hides the outer one's, or an index survives its loop."""
    p = Program()
    d = counted(p, 6)
    moving = p.view(I32, p.views[d].base)
    p.word("vinc", v=moving, level=1, inc=12).word("vinc", v=moving, level=3, inc=4)
    p.word("loop", level=1, len=3, count=2).word("nop").word("loop", level=3, len=1, count=3)
    one_more(p, moving)
    assert p.run().read(d)[0].tolist() == [1] * 6


@pytest.mark.parametrize(("count", "want"), [(0, 0), (-3, 0), (1, 1), (4, 4)])
def test_trip_counts_from_scalars(count: int, want: int) -> None:
    """Breaks when an empty loop runs once, or a negative count runs for ever."""
    p = Program()
    d = counted(p, 1)
    p.word("loop", level=0, len=1, dyn=1, s=3)
    one_more(p, d)
    assert p.run(scalars=[0, 0, 0, count]).read(d)[0].tolist() == [want]


SALU_CASES = [
    ("mov", 9, -7, -7),
    ("add", 2**31 - 1, 1, -(2**31)),
    ("sub", -(2**31), 1, 2**31 - 1),
    ("mul", 65536, 65536, 0),
    ("min", -1, 2, -1),
    ("max", -1, 2, 2),
    ("ceildiv", 7, 2, 4),
    ("ceildiv", -7, 2, -3),
    ("shl", 1, 31, -(2**31)),
    ("shr", -8, 1, -4),
    ("and", -1, 255, 255),
]


@pytest.mark.parametrize(("f", "a", "b", "want"), SALU_CASES)
@pytest.mark.parametrize("immediate", [False, True])
def test_scalar_arithmetic(f: str, a: int, b: int, want: int, immediate: bool) -> None:
    """Breaks when scalars are unsigned, do not wrap, or round the wrong way. The result moves a view, which shows
    it."""
    p = Program()
    d = counted(p, 3)
    p.word("salu", f=SALU.index(f), d=5, a=1, b=2, bi=int(immediate), imm=b % 2**32 if immediate else 0)
    p.word("salu", f=SALU.index("sub"), d=5, a=5, bi=1, imm=(want - 1) % 2**32)  # 1 if right
    p.word("vadd", v=d, s=5, scale=4)
    one_more(p, d)
    assert p.run(scalars=[0, a, b]).read(d)[0].tolist() == [0, 1, 0]


def test_vset_forgets_increments_and_offsets() -> None:
    """Breaks when a redefined view keeps moving."""
    p = Program()
    d = counted(p, 2)
    p.word("vinc", v=d, level=0, inc=4).word("vadd", v=d, s=0, scale=4)
    p.words.append(next(w for w in p.words if w.mnemonic == "vset" and w.named()["v"] == d))
    p.word("loop", level=0, len=1, count=2)
    one_more(p, d)
    assert p.run(scalars=[1]).read(d)[0].tolist() == [2, 0]


def test_a_loaded_scalar_replaces_an_extent() -> None:
    """Breaks when sld reads the wrong element, or a dynamic extent is ignored."""
    p = Program()
    numbers = p.source(np.array([7, 2, 5]), I32)
    d = counted(p, 4)
    p.word("sld", d=9, v=numbers, off=1)
    p.word("vop", f=ADD, d=d, a=d, rows=1, cols=4, imm=1, dyn=3, dyn_s=9)
    assert p.run().read(d)[0].tolist() == [1, 1, 0, 0]


def test_an_extent_of_zero_does_nothing() -> None:
    """Breaks when an empty word checks its operands, traps or clears its result."""
    p = Program()
    d = counted(p, 1)
    lost = p.view(F32, 1 << 30)
    p.word("vop", f=ADD, d=lost, a=lost, rows=0, cols=4)
    p.word("vop", f=ADD, d=lost, a=lost, rows=1, cols=4, dyn=3, dyn_s=1)
    assert p.run().read(d)[0].tolist() == [0]


def test_gather_copies_rows_by_index() -> None:
    """Breaks when rows are counted in bytes or elements instead of row strides."""
    p = Program()
    table = np.arange(20).reshape(5, 4)
    index = p.source(np.array([4, 0, 4]), I32, rs=1)
    at = len(p.const)
    p.const += table.astype(np.int32).tobytes()
    a = p.view(I32, at, 4, space=Space.DRAM)
    d = p.target(I32, 3, 4)
    p.word("gather", d=d, a=a, idx=index, n=3, cols=4, limit=5)
    assert p.run().read(d).tolist() == table[[4, 0, 4]].tolist()


def test_copies_transpose_planes_and_packed_int4() -> None:
    """Breaks on wrong strides between DRAM and SRAM, or on half bytes."""
    p = Program()
    values = np.arange(24).reshape(2, 3, 4)
    a = p.source(values, I8)
    d = p.view(I8, 0, 4, 12, space=Space.DRAM, region=Region.OUT)
    back = p.view(I8, p.place(24), 8, 4)
    p.shapes[back] = (2, 3, 4)
    p.word("sto", d=d, a=a, planes=2, rows=3, cols=4)
    p.words.append(Inst.make("vset", v=29, space=2, region=int(Region.OUT), dtype=int(I8), base=0, rs=4, ps=12))
    p.word("lda", d=back, a=29, planes=2, rows=3, cols=4)
    assert np.array_equal(p.run().read(back), values)
    q = Program()
    packed = q.source(np.array([0x21, 0x43, 0x65], np.uint8).view(np.int8), I8)
    out = q.view(I4, 0, space=Space.DRAM, region=Region.OUT)
    q.word("sto", d=out, a=q.view(I4, q.views[packed].base), rows=1, cols=5).run()
    assert q.machine is not None and q.machine.memory.data(Space.DRAM, Region.OUT)[:3].tolist() == [0x21, 0x43, 0x05]


def test_probe_sees_every_engine_word_with_its_loop_indices() -> None:
    """Breaks when CTL words are reported, or views without their movement."""
    p = Program()
    d = counted(p, 2)
    moving = p.view(I32, p.views[d].base)
    p.word("vinc", v=moving, level=2, inc=4)
    p.word("loop", level=2, len=1, count=2)
    one_more(p, moving)
    seen = []

    def probe(
        pc: int, indices: tuple[int, ...], inst: Inst, ops: Mapping[str, int], views: Mapping[str, View], memory: Memory
    ) -> None:
        seen.append(
            (
                pc,
                indices,
                inst.mnemonic,
                ops["cols"],
                views["d"].base - p.views[d].base,
                int(memory.load(views["d"], (1, 1, 1)).item()),
            )
        )

    p.run(probe=probe)
    last = 16 * (len(p.words) - 1)
    assert seen[-2:] == [(last, (0, 0, 0, 0), "vop", 1, 0, 1), (last, (0, 0, 1, 0), "vop", 1, 4, 1)]
    assert {entry[2] for entry in seen} == {"ldw", "vop"}


def test_entry_points_exit_codes_and_persistent_state() -> None:
    """Breaks when a run cannot start elsewhere, loses its exit code, or forgets STATE between launches."""

    def view(number: int, space: Space, region: Region = Region.WEIGHTS) -> Inst:
        return Inst.make("vset", v=number, space=int(space), region=int(region), dtype=int(I32), base=0)

    sram, state, const = view(1, Space.SRAM), view(2, Space.DRAM, Region.STATE), view(3, Space.DRAM, Region.CONST)
    make = Inst.make
    write = [
        sram,
        state,
        const,
        make("ldw", d=1, a=3, rows=1, cols=1),
        make("sto", d=2, a=1, rows=1, cols=1),
        make("halt", code=7),
    ]
    read = [sram, state, make("lda", d=1, a=2, rows=1, cols=1), make("halt", code=9)]
    code = b"".join(encode(i) for i in write + read)
    regions = {Region.STATE: np.zeros(4, np.uint8), Region.CONST: np.array([1, 2, 3, 4], np.uint8)}
    machine = Machine(64, 64, regions, {Region.CONST})
    assert machine.run(code) == 7
    assert machine.run(code, 16 * len(write)) == 9
    assert regions[Region.STATE].tolist() == [1, 2, 3, 4] == machine.memory.data(Space.SRAM)[:4].tolist()
