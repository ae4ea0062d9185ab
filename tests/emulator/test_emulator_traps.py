"""What a program may not do: each must stop the machine with pc, instruction and node."""

from collections.abc import Callable

import numpy as np
import pytest
from emulator_harness import Program

from emulator.machine import Machine
from isa.architecture import Dtype, Region, Space
from isa.codec import Inst, encode
from isa.errors import Trap
from isa.spec import SALU, VOP

I8, I32, F32 = Dtype.I8, Dtype.I32, Dtype.F32
MOV = VOP.index("mov")


def move(p: Program, d: int, a: int, cols: int = 4) -> Program:
    return p.word("vop", f=MOV, d=d, a=a, rows=1, cols=cols)


def good(p: Program) -> int:
    return p.source(np.zeros(4), F32)


def out_of_range(p: Program) -> None:
    move(p, p.view(F32, (1 << 18) - 8), good(p))


def below_zero(p: Program) -> None:
    d = p.target(F32, 4)
    p.word("salu", f=0, d=1, bi=1, imm=2**32 - 1).word("vadd", v=d, s=1, scale=1 << 20)
    move(p, d, good(p))


def misaligned(p: Program) -> None:
    move(p, p.view(F32, 1026), good(p))


def never_written(p: Program) -> None:
    move(p, p.target(F32, 4), p.target(F32, 4))


def one_byte_never_written(p: Program) -> None:
    a = good(p)
    move(p, p.target(F32, 4), p.view(F32, p.views[a].base + 4))


def gap_never_written(p: Program) -> None:
    a = p.view(F32, p.views[p.source(np.zeros(64), F32)].base, 70)
    p.word("vop", f=MOV, d=p.target(F32, 2, 4), a=a, rows=2, cols=4)


def accumulate_never_written(p: Program) -> None:
    a = p.source(np.zeros(4), I8)
    p.word("mm", c=p.target(I32, 1, space=Space.ACC), a=a, w=a, m=1, n=1, k=4, wt=1, acc=1)


def wrong_dtype(p: Program) -> None:
    p.word("vqd", d=p.target(F32, 4), s=p.target(F32, 1), a=good(p), rows=1, cols=4)


def wrong_space(p: Program) -> None:
    move(p, p.view(F32, 0, space=Space.DRAM, region=Region.OUT), good(p))


def mixed_matrix(p: Program) -> None:
    a = p.source(np.zeros(4), I8)
    p.word("mm", c=p.target(F32, 1, space=Space.ACC), a=a, w=a, m=1, n=1, k=4, wt=1)


def grouped(**operands: int) -> Callable[[Program], None]:
    """A grouped product with operands that do not go together; 1 stands for a view of them."""

    def program(p: Program) -> None:
        a, s = p.source(np.zeros(4), I8), good(p)
        views = {"ss": a, "sm": a, "zw": s}
        given = {name: views.get(name, value) for name, value in operands.items()}
        p.word("mmg", c=p.target(F32, 1, space=Space.ACC), a=a, w=a, sa=s, sw=s, m=1, n=1, k=4, **given)

    program.__name__ = "grouped_" + "_".join(operands)
    return program


def accumulated_lanes(p: Program) -> None:
    a, s, c = p.source(np.zeros(4), I8), good(p), p.target(F32, 1, space=Space.ACC)
    for more in ({}, {"ss": a, "acc": 1}):
        p.word("mmg", c=c, a=a, w=a, sa=s, sw=s, m=1, n=1, k=4, **more)


def undefined_view(p: Program) -> None:
    move(p, 20, good(p))


def absent_operand(p: Program) -> None:
    move(p, p.target(F32, 4), 0)


def set_absent_view(p: Program) -> None:
    p.word("vset", v=0, space=0, dtype=3, base=0)


def overlapping_destination(p: Program) -> None:
    a = p.views[good(p)].base
    p.word("vop", f=MOV, d=p.view(F32, 4096, 2), a=p.view(F32, a), rows=2, cols=4)


def converting_copy(p: Program) -> None:
    p.const += bytes(4)
    p.word("lda", d=p.target(F32, 1), a=p.view(I32, 0, space=Space.DRAM), rows=1, cols=1)


def read_only_region(p: Program) -> None:
    p.word("sto", d=p.view(F32, 0, space=Space.DRAM), a=good(p), rows=1, cols=4)


def absent_region(p: Program) -> None:
    p.word("lda", d=p.target(F32, 1), a=p.view(F32, 0, space=Space.DRAM, region=Region.STATE), rows=1, cols=1)


def unwritten_output(p: Program) -> None:
    p.word("lda", d=p.target(F32, 1), a=p.view(F32, 0, space=Space.DRAM, region=Region.OUT), rows=1, cols=1)


def negative_extent(p: Program) -> None:
    p.word("salu", f=0, d=1, bi=1, imm=2**32 - 1)
    p.word("vop", f=MOV, d=p.target(F32, 4), a=good(p), rows=1, cols=4, dyn=3, dyn_s=1)


def huge_extent(p: Program) -> None:
    p.word("salu", f=0, d=1, bi=1, imm=1 << 20)
    p.word("vop", f=MOV, d=p.target(F32, 4), a=good(p), rows=1, cols=4, dyn=2, dyn_s=1)


def used_level(p: Program) -> None:
    p.word("loop", level=1, len=3, count=2).word("loop", level=1, len=1, count=2).word("nop")


def crossing_loops(p: Program) -> None:
    p.word("loop", level=0, len=2, count=2).word("loop", level=1, len=2, count=2).word("nop").word("nop")


def endless_body(p: Program) -> None:
    p.word("loop", level=0, len=200, count=1)


def division_by_zero(p: Program) -> None:
    p.word("salu", f=SALU.index("ceildiv"), d=1, bi=1)


def zero_divisor(p: Program) -> None:
    p.word("vinc", v=good(p), level=0, inc=0, div=0)


def gather_of(index: int) -> Callable[[Program], None]:
    def program(p: Program) -> None:
        idx = p.source(np.array([0, index]), I32, rs=1)
        p.const += bytes(64)
        p.word("gather", d=p.target(I32, 2, 4), a=p.view(I32, 0, 4, space=Space.DRAM), idx=idx, n=2, cols=4, limit=3)

    return program


WRONG = [
    (out_of_range, "has 0x40000"),
    (below_zero, "access to bytes -"),
    (misaligned, "not aligned"),
    (never_written, "never written"),
    (one_byte_never_written, "never written"),
    (gap_never_written, "never written"),
    (accumulate_never_written, "never written"),
    (wrong_dtype, "operand d cannot be f32"),
    (wrong_space, "cannot be in dram"),
    (mixed_matrix, "does not work on"),
    (grouped(nib=1), "needs a w of i4"),
    (grouped(sm=1), "sm does not go without ss"),
    (grouped(ss=1, zw=1), "sm and zw go together"),
    (grouped(ss=1, sm=1), "sm and zw go together"),
    (grouped(ss=1, pre=1), "do not go with ss"),
    (grouped(ss=1, half=1), "do not go with ss"),
    (accumulated_lanes, "do not go with ss"),
    (undefined_view, "v20 was never set"),
    (absent_operand, "needs operand a"),
    (set_absent_view, "v0"),
    (overlapping_destination, "overlaps itself"),
    (converting_copy, "cannot turn i32 into f32"),
    (read_only_region, "read-only"),
    (absent_region, "dram.state"),
    (unwritten_output, "never written"),
    (negative_extent, "extent cols"),
    (huge_extent, "extent rows"),
    (used_level, "already in use"),
    (crossing_loops, "enclosing loop"),
    (endless_body, "inside the program"),
    (division_by_zero, "division by zero"),
    (zero_divisor, "divides by zero"),
    (gather_of(3), "row 3"),
    (gather_of(-1), "row -1"),
]


@pytest.mark.parametrize(("program", "message"), WRONG, ids=[f.__name__ for f, _ in WRONG])
def test_wrong_programs_trap(program: Callable[[Program], None], message: str) -> None:
    """Breaks when a wrong program runs on, or stops with another complaint."""
    p = Program()
    program(p)
    with pytest.raises(Trap, match=message):
        p.run()


def test_trap_names_pc_instruction_and_node() -> None:
    """Breaks when a user could not find the word that trapped."""
    p = Program()
    misaligned(p)
    p.word("nop")
    with pytest.raises(Trap) as caught:
        p.run(node_of=lambda pc, indices: f"node@{pc}")
    pc = 16 * (len(p.words) - 2)
    assert (caught.value.pc, caught.value.node) == (pc, f"node@{pc}")
    assert caught.value.instruction.startswith("vop f=mov, d=v") and "rows=1" in caught.value.instruction


def test_illegal_words_trap_only_when_reached() -> None:
    """Breaks when data behind a program stops it, or an unknown opcode is skipped."""
    bad = (0xEE).to_bytes(16, "little")
    halt = encode(Inst.make("halt"))
    machine = Machine(16, 16)
    assert machine.run(halt + bad) == 0
    with pytest.raises(Trap, match="unknown opcode 0xee") as caught:
        machine.run(encode(Inst.make("nop")) + bad + halt)
    assert caught.value.pc == 16 and caught.value.instruction.startswith(".word 0x")
    with pytest.raises(Trap, match="reserved bits"):
        machine.run((int.from_bytes(halt, "little") | 1 << 127).to_bytes(16, "little"))


def test_programs_that_end_without_halt_trap() -> None:
    """Breaks when execution runs past the last word, or starts between two words."""
    with pytest.raises(Trap, match="halt is missing"):
        Machine(16, 16).run(encode(Inst.make("nop")))
    with pytest.raises(Trap, match="cannot start"):
        Machine(16, 16).run(encode(Inst.make("halt")), 8)


def test_a_launch_does_not_see_the_last_one() -> None:
    """Breaks when SRAM of an earlier launch counts as written."""
    p = Program()
    a = good(p)
    move(p, p.target(F32, 4), a)
    p.run()
    assert p.machine is not None
    q = Program()
    q.view(F32, p.views[a].base)
    move(q, q.target(F32, 4), 1)
    with pytest.raises(Trap, match="never written"):
        p.machine.run(q.code())
