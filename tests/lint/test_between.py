"""Programs that scalars steer: proved for every value of their range, and faults that show only at one value found."""

import os
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from steered_random import image as random_image

from isa.asm.assemble import assemble
from isa.image.image import Image
from isa.replay import combined
from isa.spec import SALU
from lint.analyse import check
from lint.check import Finding
from lint.piecewise import Unsteerable, Value, combine, corners_of, pieces
from lint.shapes import Shape, are_apart, is_covered, meet

EXAMPLES = int(os.environ.get("LLMCHIP_EXAMPLES", "15"))
HEAD = """
.region params bytes=4
.region in bytes=0x1000
.region state bytes=0x80000
.entry name="main", pc=0
.scalar name="n", offset=0, minimum=0, maximum={largest}
vset v=v1, space=dram, region=params, dtype=i32, base=0
sld d=s1, v=v1
vset v=v2, space=dram, region=in, dtype=f32, base=0, rs=16
vset v=v3, space=sram, dtype=f32, base=0, rs=16
"""
TENT = """salu f=mul, d=s2, a=s1, bi, imm=0xffffffff
salu f=add, d=s2, a=s2, bi, imm={largest}
salu f=min, d=s2, a=s2, b=s1
"""  # s2 = min(n, largest - n)


def program(body: str, largest: int = 40) -> Image:
    return assemble((HEAD + body + "\nhalt").format(largest=largest))


def at(image: Image, value: int) -> set[tuple[str, int]]:
    return {(finding.kind, finding.pc) for finding in check(image, values={"n": value})}


def only(image: Image, kind: str) -> Finding:
    """The one finding, which neither end of the range shows."""
    scalar = image.entry().scalars[0]
    assert not at(image, scalar.minimum) and not at(image, scalar.maximum)
    (finding,) = check(image)
    assert finding.kind == kind
    return finding


def test_a_wait_that_is_missing_at_one_value_is_found() -> None:
    """Breaks when accesses are compared at the ends of a range, or of their pieces, alone."""
    body = """vset v=v4, space=sram, dtype=f32, base=0
vadd v=v4, s=s1, scale=64
lda d=v3, a=v2, rows=41, cols=16
fence mask=63
lda d=v4, a=v2, rows=1, cols=16
vset v=v5, space=sram, dtype=f32, base={base}
vset v=v6, space=sram, dtype=f32, base=0x10000
vop f=add, d=v6, a=v5, rows=1, cols=16, imm=1.0{wait}"""
    seventeen = {"{base}": str(64 * 17), "{wait}": ""}
    for key, text in seventeen.items():
        body = body.replace(key, text)
    finding = only(program(body), "race")
    assert "(n = 17)" in finding.message and finding.instruction.startswith("vop")
    assert check(program(body + " @ lda<=0")) == []


def test_a_view_that_leaves_its_region_in_the_middle_is_found() -> None:
    """Breaks when the ends of the range are taken for the furthest that a view reaches."""
    body = (
        TENT
        + """salu f=add, d=s3, a=s2, bi, imm=0xfffffc00
salu f=max, d=s3, a=s3, bi, imm=0
vset v=v4, space=dram, region=in, dtype=f32, base=0
vadd v=v4, s=s3, scale=4
lda d=v3, a=v4, rows=1, cols={cols}"""
    )
    assert check(program(body.replace("{cols}", "1"), 4095)) == []  # n - 1024, up to 1023
    assert "leave the memory" in only(program(body.replace("{cols}", "16"), 4095), "bounds").message


def test_memory_that_one_launch_does_not_write_is_found() -> None:
    """Breaks when what is written at both ends is taken for written between. Written are max(n, 40 - n) elements."""
    body = (
        TENT
        + """salu f=mul, d=s2, a=s2, bi, imm=0xffffffff
salu f=add, d=s2, a=s2, bi, imm=40
lda d=v3, a=v2, rows=1, cols=40, dyn=cols, dyn_s=s2
vset v=v6, space=sram, dtype=f32, base=0x10000
vop f=add, d=v6, a=v3, rows=1, cols={cols}, imm=1.0 @ lda<=0"""
    )
    assert check(program(body.replace("{cols}", "20"))) == []
    assert "(n = 20)" in only(program(body.replace("{cols}", "21")), "uninitialized").message


STEP = """salu f=add, d=s2, a=s1, bi, imm=1
salu f=min, d=s3, a=s1, bi, imm=16
salu f=add, d=s4, a=s1, bi, imm=0xfffffff0
salu f=max, d=s4, a=s4, bi, imm=0
vset v=v4, space=sram, dtype=f32, base=0x400, rs=16
vset v=v5, space=dram, region=state, dtype=f32, base=0, rs=16
vset v=v6, space=dram, region=state, dtype=f32, base=0x400, rs=16
vset v=v7, space=dram, region=state, dtype=f32, base=0
vadd v=v7, s=s1, scale=64
vset v=v8, space=sram, dtype=f32, base=0
vadd v=v8, s=s1, scale=64
vset v=v9, space=sram, dtype=f32, base=0x20000, rs=16
lda d=v9, a=v2, rows=2, cols=16
lda d=v3, a=v5, rows=16, cols=16, dyn=rows, dyn_s=s3
lda d=v4, a=v6, rows=24, cols=16, dyn=rows, dyn_s=s4
vop f=mov, d=v8, a=v9, rows=1, cols=16 @ lda<=0
sto d=v7, a=v9, rows=1, cols=16 @ lda<=2
vop f=add, d=v3, a=v3, rows=40, cols=16, imm=1.0, dyn=rows, dyn_s=s2
"""  # n old rows in two tiles, and the new one behind them; stored behind the old rows meanwhile


def test_a_step_over_a_cache_is_proved() -> None:
    """Breaks when old rows and the new one are not told apart, or tiles do not make up the rows: then a finding for
    what is sound, or none for what is not."""
    assert check(program(STEP, 39)) == []
    late = STEP.replace("imm=0xfffffff0", "imm=0xffffffef")  # the second tile begins one row too late
    assert {finding.kind for finding in check(program(late, 39))} == {"uninitialized"}
    near = STEP.replace("vadd v=v7, s=s1, scale=64", "vadd v=v7, s=s1, scale=60")  # the new row goes to the old ones
    assert {finding.kind for finding in check(program(near, 39))} == {"race"}


def test_loops_whose_count_depends_on_a_scalar_are_taken_apart() -> None:
    """Breaks when the iterations of one launch stand for those of all."""
    body = (
        TENT
        + """salu f=shr, d=s2, a=s2, bi, imm=2
vset v=v4, space=dram, region=state, dtype=f32, base=0
vinc v=v4, level=0, inc=64
vset v=v5, space=dram, region=state, dtype=f32, base=0x100
lda d=v3, a=v2, rows=1, cols=16
fence mask=63
loop level=0, len=1, dyn, s=s2
  sto d=v4, a=v3, rows=1, cols=16
vset v=v6, space=sram, dtype=f32, base=0x10000
lda d=v6, a=v5, rows=1, cols=16{wait}"""
    )
    finding = only(program(body.replace("{wait}", " @ sto<=5")), "race")  # row 4 is stored where there are 5: n = 20
    assert finding.instruction.startswith("lda")
    assert check(program(body.replace("{wait}", " @ sto<=0"))) == []


@pytest.mark.slow
def test_what_takes_too_long_is_said_to_be_unproved() -> None:
    """Breaks when launches that were not looked at pass in silence, or every one of two thousand million is."""
    body = "salu f=and, d=s2, a=s1, bi, imm=7\nlda d=v3, a=v2, rows=1, cols=16, dyn=rows, dyn_s=s2"
    assert check(program(body, 2000)) == []
    found = check(program(body, 2**31 - 1))
    assert {finding.kind for finding in found} == {"unproved"}
    assert any("nothing is proved for n =" in finding.message for finding in found)


@pytest.mark.wide
@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 1 << 20))
def test_the_verdict_is_that_of_all_launches_one_by_one(seed: int) -> None:
    """Breaks when a proof overlooks a launch, or finds a fault that none has. A launch that cannot be followed hides
    what else is wrong with it, and one at fault what follows from that."""
    image = random_image(seed)
    names, ranges = zip(*((s.name, range(s.minimum, s.maximum + 1)) for s in image.entry().scalars), strict=True)
    single = {
        (finding.kind, finding.pc)
        for values in product(*ranges)
        for finding in check(image, values=dict(zip(names, values, strict=True)))
    }
    together = {(finding.kind, finding.pc) for finding in check(image)}
    assert bool(single) == bool(together), f"steered_random.image({seed})"
    if not any(kind == "structure" for kind, _ in single):
        assert together <= single, f"steered_random.image({seed})"


@settings(max_examples=10 * EXAMPLES)
@given(
    st.lists(st.tuples(st.sampled_from(SALU), st.integers(-70, 70), st.booleans()), max_size=6), st.integers(-9, 9),
    st.integers(1, 60),
)  # fmt: skip
def test_values_follow_salu(steps: list[tuple[str, int, bool]], first: int, count: int) -> None:
    """Breaks when a function in pieces differs from what the chip computes, value by value."""
    last = first + count
    value, numbers = Value.of("n", first, last), list(range(first, last + 1))
    own = value, list(numbers)
    for f, number, register in steps:
        if f in ("ceildiv", "shl", "shr") and (register or number <= 0):
            continue
        b, others = own if register else (Value(number), [number] * len(numbers))
        try:
            value = combine(SALU.index(f), value, b)
        except Unsteerable:
            return
        numbers = [combined(SALU.index(f), x, y) for x, y in zip(numbers, others, strict=True)]
    assert [value.at({"n": x}) for x in range(first, last + 1)] == numbers
    for part in pieces([value], {"n": (first, last)}):
        low, high = part["n"]
        assert all(
            (number - numbers[low - first]) * (high - low) == (numbers[high - first] - numbers[low - first]) * i
            for i, number in enumerate(numbers[low - first : high - first + 1])
        )


@pytest.mark.parametrize(("plane", "apart"), [(0x1000, True), (0x1001, True), (0xFFF, False)])
def test_planes_that_interleave_are_told_apart(plane: int, apart: bool) -> None:
    """Breaks when blocks in planes are compared by their first and last byte, or meet unseen in the next plane."""
    n = Value.of("n", 0, 63)
    old = Shape(Value(), ((Value(3), plane),), n.times(64), n)
    new = Shape(n.times(64), ((Value(3), plane),), Value(64), Value(1))
    box = {"n": (1, 63)}
    assert are_apart(old, new, corners_of(box)) is apart
    assert any(meet(old, new, {"n": x}) for x in range(64)) is not apart


def test_a_block_is_made_up_of_others_only_if_each_byte_is() -> None:
    """Breaks when a gap between blocks, or a row that one of them lacks, is overlooked."""
    n = Value.of("n", 1, 9)
    rows, read = ((Value(2), 64),), Shape(Value(), ((Value(2), 64),), n.plus(Value(1)).times(4), Value(1))
    old, new = Shape(Value(), rows, n.times(4), Value(1)), Shape(n.times(4), rows, Value(4), Value(1))
    corners = corners_of({"n": (1, 9)})
    assert is_covered(read, [new, old], corners)
    assert not is_covered(read, [old], corners) and not is_covered(read, [new], corners)
    assert not is_covered(read, [old, Shape(n.times(4), (), Value(4), Value(1))], corners)
    assert not is_covered(read, [Shape(Value(), rows, n.times(4).plus(Value(-1)), Value(1)), new], corners)
