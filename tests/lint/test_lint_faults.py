"""The static checkers: each kind of fault planted by hand and found, and sound programs left in peace."""

import dataclasses
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isa_strategies import insts, small_image

from isa.architecture import Region, Space
from isa.asm.assemble import assemble
from isa.codec import Inst, encode
from isa.image.image import Image, PlanRecord
from isa.replay import ReplayError, replay, trace
from lint.analyse import check
from lint.check import check_plan

EXAMPLES = int(os.environ.get("LLMCHIP_EXAMPLES", "15"))
VIEWS = """
.region in bytes=0x10000
.region out bytes=0x10000
.region scratch bytes=0x10000
.entry name="main", pc=0
.output name="y", shape=[4, 4096], dtype="float32", storage=f32, region=out
vset v=v1, space=dram, region=in, dtype=f32, base=0, rs=4096
vinc v=v1, level=0, inc=0x4000
vset v=v2, space=sram, dtype=f32, base=0, rs=4096
vinc v=v2, level=0, inc=0x4000, mod=2
vset v=v3, space=dram, region=out, dtype=f32, base=0, rs=4096
vinc v=v3, level=0, inc=0x4000
"""
DOUBLE_BUFFERED = (
    VIEWS
    + """
loop level=0, len=end, count=4
  lda d=v2, a=v1, rows=1, cols=4096 @ sto<=1
  vop f=add, d=v2, a=v2, rows=1, cols=4096, imm=1.0 @ lda<=0
  sto d=v3, a=v2, rows=1, cols=4096 @ vec<=0
end: halt
"""
)
# The load of the next block is issued before the work on this one, so "lda<=1" is right in every iteration but the
# last.
PREFETCHED = """
.region in bytes=0x14000
.entry name="main", pc=0
vset v=v1, space=dram, region=in, dtype=f32, base=0, rs=4096
vset v=v2, space=sram, dtype=f32, base=0, rs=4096
vset v=v4, space=dram, region=in, dtype=f32, base=0x4000, rs=4096
vinc v=v4, level=0, inc=0x4000
vset v=v5, space=sram, dtype=f32, base=0x4000, rs=4096
vset v=v6, space=sram, dtype=f32, base=0, rs=4096
vinc v=v5, level=0, inc=0x4000
vinc v=v6, level=0, inc=0x4000
vset v=v7, space=sram, dtype=f32, base=0x100000, rs=4096
lda d=v2, a=v1, rows=1, cols=4096
loop level=0, len=end, count=4
  lda d=v5, a=v4, rows=1, cols=4096
  vop f=add, d=v7, a=v6, rows=1, cols=4096, imm=1.0 @ lda<=1
end:
vset v=v6, space=sram, dtype=f32, base=0x10000, rs=4096
vop f=add, d=v7, a=v6, rows=1, cols=4096, imm=1.0 @ lda<=0
halt
"""


def kinds(text: str) -> set[str]:
    return {finding.kind for finding in check(assemble(text))}


def test_sound_programs_have_no_findings() -> None:
    """Breaks when the race proof does not follow a chain: the load waits for the store, which waited for VEC."""
    assert check(assemble(DOUBLE_BUFFERED)) == []
    assert check(assemble(PREFETCHED)) == []


@pytest.mark.parametrize("dropped", [" @ sto<=1", " @ lda<=0", " @ vec<=0"])
def test_a_dropped_dependence_is_found(dropped: str) -> None:
    """Breaks when one of the three dependences of a double-buffered loop is not needed for the proof."""
    found = check(assemble(DOUBLE_BUFFERED.replace(dropped, "")))
    assert {finding.kind for finding in found} == {"race"}
    assert all(finding.other is not None and "may be running" in finding.message for finding in found)


@pytest.mark.parametrize(
    ("right", "wrong"), [(" @ sto<=1", " @ sto<=2"), (" @ lda<=0", " @ lda<=1"), (" @ vec<=0", " @ vec<=1")]
)
def test_a_count_one_too_large_is_found(right: str, wrong: str) -> None:
    """Breaks when counts are compared off by one."""
    assert kinds(DOUBLE_BUFFERED.replace(right, wrong)) == {"race"}


def test_the_last_iteration_of_double_buffering_is_checked() -> None:
    """Breaks when only a steady iteration is replayed: without a younger load, "lda<=1" lets the epilogue start too
    early."""
    late = PREFETCHED.replace("imm=1.0 @ lda<=0", "imm=1.0 @ lda<=1")
    assert {finding.kind for finding in check(assemble(late))} == {"race"}


def test_a_fence_orders_everything() -> None:
    """Breaks when fences are not part of the proof, or a mask is ignored."""
    unsafe = DOUBLE_BUFFERED.replace(" @ lda<=0", "").replace("  vop", "  fence mask=2\n  vop")
    assert kinds(unsafe) == set()
    assert kinds(unsafe.replace("mask=2", "mask=1")) == {"race"}


def test_dma_words_of_one_queue_overlap() -> None:
    """Breaks when DMA words are taken to run one after the other."""
    text = (
        VIEWS.split(".entry")[0]
        + "vset v=v1, space=dram, region=in, dtype=i8, base=0\nvset v=v2, space=sram, dtype=i8, base=0\n"
    )
    twice = text + "lda d=v2, a=v1, rows=1, cols=64\nlda d=v2, a=v1, rows=1, cols=64{}\nhalt"
    assert kinds(twice.format("")) == {"race"}
    assert kinds(twice.format(" @ lda<=0")) == set()


def test_compute_words_of_one_engine_are_ordered() -> None:
    """Breaks when VEC words need counts against themselves."""
    text = """.region in bytes=64
vset v=v1, space=sram, dtype=f32, base=0
vset v=v3, space=dram, region=in, dtype=f32, base=0
"""
    assert (
        kinds(
            text
            + "lda d=v1, a=v3, rows=1, cols=16\nfence\nvop f=add, d=v1, a=v1, rows=1, cols=16\nvop f=add, d=v1, a=v1, rows=1, cols=16\nhalt"
        )
        == set()
    )


@pytest.mark.parametrize(("region", "data", "cols", "finds"), [
    ("weights", 0, 1, True), ("const", 0, 1, True), ("const", 32, 8, False), ("const", 32, 9, True), ("const", 64, 16, False), ("in", 0, 16, False),
])  # fmt: skip
@pytest.mark.parametrize(
    "word", ["lda d=v1, a=v3, rows=1, cols={}", "gather d=v1, a=v3, idx=v4, n=1, cols=1, limit={}"]
)
def test_a_region_larger_than_its_data_is_defined_as_far_as_these_go(
    word: str, region: str, data: int, cols: int, finds: bool
) -> None:
    """Breaks when lint takes what is declared for what is there: the program would always trap."""
    text = f""".region in bytes=64
.region {region} bytes=64
vset v=v1, space=sram, dtype=f32, base=0
vset v=v2, space=dram, region=in, dtype=i32, base=0
vset v=v3, space=dram, region={region}, dtype=f32, base=0, rs=1
vset v=v4, space=sram, dtype=i32, base=1024, rs=1
lda d=v4, a=v2, rows=1, cols=1
fence
{word.format(cols)}
halt"""
    image = assemble(text)
    image = dataclasses.replace(image, const=bytes(data)) if region == "const" else image
    assert {finding.kind for finding in check(image)} == ({"uninitialized"} if finds else set())


def test_memory_never_written_is_found_byte_for_byte() -> None:
    """Breaks when one element beyond what was loaded may be read."""
    text = """.region in bytes=64
vset v=v3, space=dram, region=in, dtype=f32, base=0
vset v=v1, space=sram, dtype=f32, base=0
lda d=v1, a=v3, rows=1, cols=15
fence
vop f=add, d=v1, a=v1, rows=1, cols={}
halt"""
    assert kinds(text.format(15)) == set()
    assert kinds(text.format(16)) == {"uninitialized"}


def test_unwritten_outputs_are_found() -> None:
    """Breaks when a program may leave part of its output undefined."""
    assert kinds(DOUBLE_BUFFERED.replace("count=4", "count=3")) == {"output"}


@pytest.mark.parametrize(
    ("program", "kind"),
    [
        ("vset v=v1, space=sram, dtype=f32, base=0x7fffff0\nvop f=add, d=v1, a=v1, rows=1, cols=16\nhalt", "bounds"),
        ("vset v=v1, space=sram, dtype=f32, base=2\nvop f=add, d=v1, a=v1, rows=1, cols=16\nhalt", "alignment"),
        ("vset v=v1, space=sram, dtype=i4, base=0\nvop f=add, d=v1, a=v1, rows=1, cols=16\nhalt", "kind"),
        ("vset v=v1, space=acc, dtype=f32, base=0\nlda d=v1, a=v1, rows=1, cols=16\nhalt", "kind"),
        ("vset v=v1, space=sram, dtype=f32, base=0, rs=8\nvop f=add, d=v1, a=v1, rows=2, cols=16\nhalt", "overlap"),
        ("vop f=add, d=v1, a=v1, rows=1, cols=16\nhalt", "structure"),
        ("vset v=v1, space=sram, dtype=f32, base=0\nvop f=add, d=v1, a=v0, rows=1, cols=16\nhalt", "structure"),
        ("nop", "structure"),
        ("halt\n.word 0xff", "structure"),
        ("loop level=0, len=2, count=1\nhalt", "structure"),
        ("loop level=0, len=2, count=1\nloop level=0, len=1, count=1\nnop\nhalt", "structure"),
        ("loop level=0, len=2, count=1\nloop level=1, len=2, count=1\nnop\nhalt", "structure"),
        ("sld d=s1, v=v1\nhalt", "structure"),
    ],
)
def test_faults_of_one_word_are_found(program: str, kind: str) -> None:
    """Breaks when a word that traps on the chip passes the checker."""
    assert kind in kinds(program)


def test_scalar_arguments_are_tried_at_both_ends() -> None:
    """Breaks when only the largest length is proved safe, or the extent ignores the register."""
    text = """.region params bytes=4
.region in bytes=64
.entry name="main", pc=0
.scalar name="n", offset=0, minimum=0, maximum={}
vset v=v1, space=dram, region=params, dtype=i32, base=0
sld d=s1, v=v1
vset v=v2, space=dram, region=in, dtype=i32, base=0
vset v=v3, space=sram, dtype=i32, base=0
lda d=v3, a=v2, rows=1, cols=0, dyn=cols, dyn_s=s1
halt"""
    assert kinds(text.format(16)) == set()
    assert kinds(text.format(17)) == {"bounds"}
    assert [word.operands["cols"] for word in trace(assemble(text.format(16)), values={"n": 5})] == [5]


def test_trace_follows_loops_and_views() -> None:
    """Breaks when increments, modulus or loop indices are replayed wrongly."""
    seen = [
        (w.pc, w.indices[0], w.views["a"].base, w.views["d"].base)
        for w in trace(assemble(DOUBLE_BUFFERED))
        if "lda" in w.inst.mnemonic
    ]
    assert seen == [(0x70, i, 0x4000 * i, 0x4000 * (i % 2)) for i in range(4)]


@settings(max_examples=3 * EXAMPLES, suppress_health_check=[HealthCheck.too_slow])  # a busy machine draws slowly
@given(st.lists(insts, min_size=1, max_size=12))
def test_random_programs_never_crash_the_checker(program: list[Inst]) -> None:
    """Breaks when an operand nobody thought of raises something else than findings."""
    image = Image(b"".join(map(encode, program)))
    try:
        assert all(word.engine.value != "ctl" for word in replay(image.code, limit=2000))
    except ReplayError as error:
        if "still running" not in error.what:
            assert check(image)
    else:
        check(image)


plans = st.lists(
    st.builds(
        PlanRecord,
        st.just("b"),
        st.just(Space.SRAM),
        st.integers(0, 30),
        st.integers(1, 20),
        st.integers(0, 5),
        st.integers(5, 9),
    ),
    max_size=6,
)


@given(plans)
def test_plan_checker_agrees_with_painting(plan: list[PlanRecord]) -> None:
    """Breaks when an overlap in time and space is missed, or touching buffers are refused."""
    cells = [
        (byte, word)
        for r in plan
        for byte in range(r.offset, r.offset + r.bytes)
        for word in range(r.first, r.last + 1)
    ]
    image = dataclasses.replace(small_image(), plan=tuple(plan))
    assert bool(check_plan(image)) == (len(cells) != len(set(cells)))


def test_long_plans_are_checked_at_once() -> None:
    """Breaks when the check compares every buffer with every other: 30,000 of them, all alive, would take minutes."""
    apart = [PlanRecord("b", Space.DRAM, 16 * i, 16, 0, 5) for i in range(30_000)]
    image = dataclasses.replace(
        small_image(), plan=tuple(apart), sizes=tuple(16 * len(apart) if r is Region.SCRATCH else 0 for r in Region)
    )
    assert not check_plan(image)
    assert check_plan(dataclasses.replace(image, plan=(*apart[:-1], PlanRecord("last", Space.DRAM, 8, 16, 5, 5))))


def test_plans_must_fit() -> None:
    """Breaks when a buffer may leave its memory."""
    image = dataclasses.replace(small_image(), plan=(PlanRecord("big", Space.ACC, 2 << 20, 1, 0, 0),))
    assert "does not fit" in check_plan(image)[0].message
