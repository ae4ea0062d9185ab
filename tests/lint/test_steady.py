"""Long loops: proved from a few turns, with the same verdict as a replay of them all; what is too long is said to be
unproved."""

import os
import subprocess
import sys
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from steady_random import image as random_image

from isa.asm.assemble import assemble
from isa.replay import trace
from lint.analyse import LAUNCHES, PER_INSTRUCTION, analyse, check, limit_of, lint
from lint.loop_skipping import LoopSkipper
from lint.shadow_memory import Block
from lint.sweeps import meet_later

EXAMPLES = int(os.environ.get("LLMCHIP_EXAMPLES", "15"))
# Layers in a loop: weights stream from DRAM into two buffers, the activation stays in SRAM.
LAYERS = """
.region params bytes=0x100000
.region in bytes=64
.region out bytes=64
.entry name="main", pc=0
.output name="y", shape=[16], dtype="float32", storage=f32, region=out
vset v=v1, space=dram, region=params, dtype=f32, base=0
vinc v=v1, level=0, inc=64
vset v=v2, space=sram, dtype=f32, base=0x100
vinc v=v2, level=0, inc=64, mod=2
vset v=v3, space=sram, dtype=f32, base=0
vset v=v4, space=dram, region=in, dtype=f32, base=0
vset v=v5, space=dram, region=out, dtype=f32, base=0
lda d=v3, a=v4, rows=1, cols=16
loop level=0, len=end, count={count}
  ldw d=v2, a=v1, rows=1, cols=16 {load}
  vop f=mul, d=v3, a=v3, b=v2, rows=1, cols=16 {work}
  act f=tanh, d=v3, a=v3, rows=1, cols=16 {act}
end: sto d=v5, a=v3, rows=1, cols=16 {store}
halt
"""
SOUND = {"load": "@ vec<=1", "work": "@ ldw<=0, lda<=0, act<=0", "act": "@ vec<=0", "store": "@ act<=0"}


def layers(count: int, **changed: str) -> str:
    return LAYERS.format(count=count, **{**SOUND, **changed})


def test_a_long_loop_costs_no_more_than_a_short_one() -> None:
    """Breaks when every iteration is replayed although the state repeats."""
    image = assemble(layers(16000))
    skipper = LoopSkipper()
    assert len(list(trace(image, control=True, skipper=skipper))) < 250 and len(skipper.found) == 1
    assert check(image) == []


@pytest.mark.parametrize("count", [1, 32, 33, 60, 61])
@pytest.mark.parametrize(
    "fault", [{}, {"load": ""}, {"load": "@ vec<=2"}, {"work": "@ ldw<=1, lda<=0, act<=0"}, {"act": ""}, {"store": ""}]
)
def test_the_verdict_is_that_of_the_whole_replay(count: int, fault: dict[str, str]) -> None:
    """Breaks when leaving iterations out hides a race or invents one."""
    image = assemble(layers(count, **fault))
    whole = analyse(image, None, None, dead_code=False, shortcuts=False)
    assert {(f.kind, f.pc) for f in check(image)} == {(f.kind, f.pc) for f in whole}


def test_the_last_iterations_are_checked() -> None:
    """Breaks when a view may run out of its memory towards the end of a long loop."""
    small = ".region params bytes=0x8000"  # 512 layers
    assert check(assemble(layers(512).replace(".region params bytes=0x100000", small))) == []
    assert {f.kind for f in check(assemble(layers(513).replace(".region params bytes=0x100000", small)))} == {"bounds"}
    half = assemble(layers(512).replace("params", "weights").replace("bytes=0x100000", "bytes=0x8000"))
    for data, finds in ((0x8000, set()), (0x4000, {"uninitialized"})):
        assert {f.kind for f in check(replace(half, weights=bytes(data)))} == finds


waits = st.sampled_from(["", "ldw<=0", "ldw<=1", "lda<=0", "vec<=0", "vec<=1", "vec<=2", "act<=0", "act<=1"])
deps = st.lists(waits.filter(bool), max_size=3, unique_by=lambda wait: wait[:3]).map(
    lambda found: "@ " + ", ".join(found) if found else ""
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(deps, deps, deps, deps, st.integers(14, 140), st.sampled_from(["mod=2", "mod=3", "div=2, mod=2", "mod=1"]))
def test_random_waits_have_the_same_verdict(load: str, work: str, act: str, store: str, count: int, step: str) -> None:
    """As above, for random dependence counts and buffers."""
    image = assemble(layers(count, load=load, work=work, act=act, store=store).replace("mod=2", step))
    whole = analyse(image, None, None, dead_code=False, shortcuts=False)
    assert {(f.kind, f.pc) for f in check(image)} == {(f.kind, f.pc) for f in whole}


# A tile comes from DRAM into one of two buffers, is doubled, and goes to where it belongs in DRAM.
TILES = """
.region in bytes={size}
.region out bytes={size}
.entry name=main, pc=0
.output name=y, shape=[{elements}], dtype=float32, storage=f32, region=out, offset=0
vset v=v1, space=dram, region=in, dtype=f32, base=0
vinc v=v1, level=0, inc=64
vset v=v2, space=sram, dtype=f32, base=0
vinc v=v2, level=0, inc=64, mod=2
vset v=v3, space=dram, region=out, dtype=f32, base=0
vinc v=v3, level=0, inc=64
loop level=0, len=end, count={count}
  lda d=v2, a=v1, rows=1, cols=16 @ {load}
  vop f=mul, d=v2, a=v2, rows=1, cols=16, imm=2.0 @ lda<=0
  sto d=v3, a=v2, rows=1, cols=16 @ {store}
  {more}
end:
{behind}
halt
"""
TURNS = (1 << 24) - 1


def tiles(count: int, load: str = "sto<=1", store: str = "vec<=0", more: str = "nop", behind: str = "") -> str:
    return TILES.format(
        count=count, size=64 * count, elements=16 * count, load=load, store=store, more=more, behind=behind
    )


def replayed(text: str) -> int:
    skipper = LoopSkipper()
    return sum(1 for _ in trace(assemble(text), control=True, skipper=skipper, limit=limit_of(assemble(text))))


def test_a_loop_that_stores_through_a_moving_view_is_proved_by_induction() -> None:
    """Breaks when each turn of it is replayed: 2^24 turns would take minutes and gigabytes."""
    assert replayed(tiles(TURNS)) < 300
    assert lint(assemble(tiles(TURNS))) == []


def test_nested_loops_are_proved_by_induction() -> None:
    """Breaks when only outermost loops are cut."""
    text = tiles(1000).replace("loop level=0, len=end", "loop level=1, len=end, count=100000\nloop level=0, len=end")
    assert replayed(text) < 10_000
    assert check(assemble(text)) == []


BEHIND = "vset v=v4, space=dram, region=out, dtype=f32, base={base}\nlda d=v2, a=v4, rows=1, cols=16 @ {waits}"


@pytest.mark.parametrize(
    "changed",
    [{"load": "sto<=2"}, {"store": "lda<=0"}, {"behind": BEHIND.format(base="0x1000", waits="vec<=0")}],
    ids=["load", "store", "behind"],
)
def test_races_in_and_behind_a_long_loop_are_found(changed: dict[str, str]) -> None:
    """Breaks when turns that are left out hide what they touch from the words behind the loop."""
    assert "race" in {finding.kind for finding in check(assemble(tiles(1 << 20, **changed)))}


def test_bytes_that_no_turn_writes_are_missed() -> None:
    """Breaks when turns that are left out are taken to write everything."""
    behind = BEHIND.format(base="0xf000", waits="sto<=0")
    text = tiles(1000, store="vec<=0, sto<=0", behind=behind)
    assert replayed(text) < 400 and check(assemble(text)) == []
    half = "inc=64, div=2\nloop"
    assert {finding.kind for finding in check(assemble(text.replace("inc=64\nloop", half)))} == {
        "output",
        "uninitialized",
    }


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("salu f=add, d=s1, a=s1, bi=1, imm=1", "has a 'salu'"),
        ("vadd v=v3, s=s1, scale=64", "has a 'vadd'"),
        ("vset v=v9, space=dram, region=const, dtype=i32, base=0\n  sld d=s1, v=v9", "has a 'sld'"),
        ("sto d=v3, a=v2, rows=1, cols=32 @ vec<=0", "another iteration touches"),
    ],
)
def test_what_cannot_be_proved_is_said(more: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a program that is too long to be replayed passes in silence, or costs without bound."""
    monkeypatch.setattr("lint.analyse.MAX_INSTRUCTIONS", 1 << 12)
    text = tiles(TURNS, load="sto<=0, vec<=0, lda<=0", more=more)
    image = assemble(f".data const dtype=int32, values=[0]\n{text}")
    found = [finding for finding in lint(image) if finding.kind == "unproved"]
    assert len(found) == 1 and found[0].severity == "error" and found[0].instruction.startswith("loop")
    assert f"of {TURNS} of this loop" in found[0].message and reason in found[0].message


def test_the_replay_is_bounded_over_all_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when each entry of a program may cost as much again."""
    monkeypatch.setattr("lint.analyse.MAX_INSTRUCTIONS", 1 << 12)
    text = tiles(TURNS, more="salu f=add, d=s1, a=s1, bi=1, imm=1")
    text = text.replace(".entry name=main, pc=0\n", "").replace(".output", ".entry name=main, pc=0\n.output")
    image = assemble(text + "".join(f".entry name=e{i}, pc=0\n" for i in range(9)))
    found = [finding.message for finding in check(image) if finding.kind == "unproved"]
    assert limit_of(image) == (1 << 12) + PER_INSTRUCTION * image.words and 1 < LAUNCHES < 9
    assert any("took too long" in message for message in found)


@pytest.mark.slow
def test_lint_of_a_hopeless_program_keeps_to_its_memory() -> None:
    """Breaks when the memory of lint grows with the turns of a loop or the size of a region; docs/proofs.md states 1
    GiB."""
    text = tiles(TURNS, more="salu f=add, d=s1, a=s1, bi=1, imm=1").replace("end:", "end: nop", 1)
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "from isa.asm.assemble import assemble; from lint.analyse import lint\n"
        "print(len(lint(assemble(sys.stdin.read()))))"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    for program in (text, tiles(TURNS)):
        ended = subprocess.run(
            [sys.executable, "-c", code], input=program, capture_output=True, text=True, env=environment
        )
        assert ended.returncode == 0, ended.stderr[-500:]


@pytest.mark.parametrize("block", [0, *(pytest.param(block, marks=pytest.mark.slow) for block in (1, 2, 3))])
def test_random_loops_have_the_verdict_of_the_whole_replay(block: int) -> None:
    """Breaks when turns left out hide a race, a read of what was never written, or an output that is not complete."""
    for seed in range(EXAMPLES * block, EXAMPLES * (block + 1)):
        image = random_image(seed)
        whole = analyse(image, None, None, dead_code=False, shortcuts=False)
        assert {(f.kind, f.pc) for f in check(image)} == {(f.kind, f.pc) for f in whole}, f"steady_random.image({seed})"


# Stores move through scratch memory; whatever else touches block MEETS of it can only be met in that turn. Nothing
# waits for anything of that.
MEETING = """
.region in bytes=0x4000
.region scratch bytes=0x4000
.entry name=main, pc=0
vset v=v1, space=dram, region=in, dtype=f32, base=0, rs=4096
vset v=v2, space=sram, dtype=f32, base=0, rs=4096
vset v=v3, space=dram, region=scratch, dtype=f32, base=0, rs=4096
vset v=v4, space=dram, region=scratch, dtype=f32, base={meets}
vset v=v5, space=sram, dtype=f32, base=0x80000
lda d=v2, a=v1, rows=1, cols=4096
sto d=v3, a=v2, rows=1, cols=4096 @ lda<=0
fence
vinc v=v3, level=0, inc=64
vinc v=v4, level=0, inc={slow}
{ahead}
loop level=0, len=end, count=200
  sto d=v3, a=v2, rows=1, cols=16
  {inside}
end: {behind}
halt
"""
MET = {
    "inside": "lda d=v5, a=v4, rows=1, cols=16 @ lda<=0",
    "ahead": "sto d=v4, a=v2, rows=1, cols=16",
    "behind": "lda d=v5, a=v4, rows=1, cols=16",
    "overtaken": "lda d=v5, a=v4, rows=1, cols=16 @ lda<=0",
}


@pytest.mark.parametrize("place", MET)
@pytest.mark.parametrize("turn", [0, 24, 25, 60, 150, 197, 198, 199, 200, 210])
def test_words_that_meet_in_one_turn_only_race_there(place: str, turn: int) -> None:
    """Breaks when the turns left out are not looked at: for each other, for words before the loop, or by words behind
    it."""
    words = dict.fromkeys(MET, "nop") | {"inside" if place == "overtaken" else place: MET[place]}
    slow = 32 if place == "overtaken" else 0
    image = assemble(MEETING.format(meets=turn * (64 - slow), slow=slow, **words))
    whole = analyse(image, None, None, dead_code=False, shortcuts=False)
    assert {(f.kind, f.pc) for f in check(image)} == {(f.kind, f.pc) for f in whole}
    assert {f.kind for f in whole} == ({"race"} if turn < 200 or place == "overtaken" else set())


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_blocks_that_meet_in_another_turn_are_found(seed: int) -> None:
    """Breaks when the arithmetic of moving blocks differs from their bytes."""
    rng = Random(seed)

    def block() -> Block:
        dims = tuple((rng.randint(1, 3), rng.choice((0, 5, 9, 12, 40))) for _ in range(rng.randrange(4)))
        return Block(rng.randrange(0, 60), dims, rng.randint(1, 9))

    def touched(block: Block, offset: int) -> set[int]:
        starts = [block.first + offset]
        for count, stride in block.dims:
            starts = [start + i * stride for start in starts for i in range(count)]
        return {start + i for start in starts for i in range(block.width)}

    a, b, stride_per_period, most = block(), block(), rng.randint(1, 30), rng.randint(1, 12)
    expected = any(touched(a, turn * stride_per_period) & touched(b, 0) for turn in range(-most, most + 1) if turn)
    assert meet_later(a, b, stride_per_period, most) == expected


# The same in two loops, one in the other, of which turns are left out both; 36 blocks a row, 36 rows.
NESTED = (
    MEETING.replace("0x4000", "0x40000")
    .replace("vinc v=v4, level=0, inc={slow}", "vinc v=v3, level=1, inc=36*64")
    .replace(
        "loop level=0, len=end, count=200",
        "loop level=1, len=end, count=36\n{between}\nloop level=0, len=end, count=36",
    )
    .replace("rows=1, cols=4096", "rows=6, cols=4096")
)


# The first turn, one that both loops leave out, the last one, and one that is no more; what is between them is for
# test-all.
MEETINGS = [(0, 0), (29, 29), (35, 35), (37, 0)]
MORE_MEETINGS = [(0, 29), (10, 29), (29, 3), (33, 29), (34, 35), (35, 33)]


@pytest.mark.parametrize("place", ["between", "inside", "ahead", "behind"])
@pytest.mark.parametrize(
    ("row", "column"), [*MEETINGS, *(pytest.param(*turn, marks=pytest.mark.slow) for turn in MORE_MEETINGS)]
)
def test_words_that_meet_in_nested_loops_race_there(place: str, row: int, column: int) -> None:
    """Breaks when what an inner loop leaves out is forgotten in the turns that the outer loop leaves out."""
    words = dict.fromkeys(("between", "inside", "ahead", "behind"), "nop") | {place: MET.get(place, MET["inside"])}
    image = assemble(NESTED.format(meets=(36 * row + column) * 64, **words))
    whole = analyse(image, None, None, dead_code=False, shortcuts=False)
    assert {(f.kind, f.pc) for f in check(image)} == {(f.kind, f.pc) for f in whole}
    assert {f.kind for f in whole} == ({"race"} if row < 36 else set())
