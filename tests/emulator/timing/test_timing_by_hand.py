"""Single words and short sequences against times worked out by hand from docs/timing.md.

The edge chip has 128 x 128 multipliers, loads 4 weight rows and moves 100 bytes in a cycle.
"""

import pytest
from timing_harness import (
    DRAM_WIDE,
    EDGE,
    SETUP,
    SRAM_F32,
    SRAM_I8,
    SRAM_I32,
    add,
    chip,
    exp,
    load,
    mm,
    mmg,
    run,
    times,
    word,
)

from emulator.timing.timeline import Timeline
from emulator.timing.waterfall import waterfall
from isa.codec import Inst
from isa.timing import Options

DRAIN = 128 + 128 - 2


def after_start(timeline: Timeline, index: int = 0) -> int:
    _, start, end = times(timeline, index)
    return end - start


@pytest.mark.parametrize(
    ("rows", "cols", "planes", "cycles"),
    [
        (1, 1, 1, 1 + 16), (128, 768, 1, 128 * 6 + 16), (128, 769, 1, 128 * 7 + 16), (5, 128, 3, 15 + 16), (0, 128, 1, 16),
        (12, 64, 1, 6 + 16), (13, 33, 3, 20 + 16), (9, 32, 1, 3 + 16), (200, 1, 1, 2 + 16), (4, 65, 1, 4 + 16),
    ],
)  # fmt: skip
def test_vector_word(rows: int, cols: int, planes: int, cycles: int) -> None:
    """planes * rows * ceil(cols / 128) + 16, short rows packed by powers of two. Breaks if planes, rounding, packing or
    latency are wrong."""
    assert after_start(run(add(rows, cols, planes))) == cycles


def test_quantize_takes_two_passes_or_one() -> None:
    """Breaks if the absmax that a producer supplies does not save a pass."""
    block = {"d": SRAM_I8, "s": SRAM_F32, "a": SRAM_F32, "rows": 10, "cols": 300}
    assert after_start(run(word("vqd", **block))) == 2 * 10 * 3 + 16
    assert after_start(run(word("vqd", **block, am=SRAM_F32))) == 10 * 3 + 16


def test_activation_word() -> None:
    assert after_start(run(exp(100, 129))) == 200 + 24


def test_words_of_a_vector_engine_follow_each_other() -> None:
    """Breaks if an engine takes the next word before its latency is over, or loses a cycle between."""
    timeline = run(add(10, 128), add(20, 128), add(1, 1))
    assert [times(timeline, i) for i in range(3)] == [(0, 1, 27), (1, 27, 63), (2, 63, 80)]
    assert timeline.cycles == len(SETUP) + 80 + 1  # setup, the words, halt's own cycle


def test_one_tile_of_matmul() -> None:
    """32 cycles of weights, 100 rows, out of the array. Breaks if any of the three is missing."""
    assert after_start(run(mm(100, 128, 128))) == 32 + 100 + DRAIN


def test_long_tiles_hide_the_weight_load() -> None:
    """2 * 3 * 2 tiles of 64 rows: only the first load shows."""
    assert after_start(run(mm(64, 384, 256, b=2))) == 32 + 12 * 64 + DRAIN


def test_short_tiles_wait_for_weights() -> None:
    """One row a tile: every load of 32 cycles shows, the last row streams in one."""
    assert after_start(run(mm(1, 384, 256))) == 6 * 32 + 1 + DRAIN


def test_a_partial_tile_loads_only_its_rows() -> None:
    """k = 130: tiles of 128 and 2 rows load in 32 and 1 cycles."""
    assert after_start(run(mm(1, 256, 130))) == 32 + max(1, 1) + max(1, 32) + max(1, 1) + 1 + DRAIN


def test_matmuls_are_pipelined() -> None:
    """Breaks if the second word's weights are not loaded behind the first word's last tile, or its rows wait for the
    drain."""
    timeline = run(mm(100, 256, 128), mm(50, 128, 128))
    first_stream = 1 + 32
    assert times(timeline, 0) == (0, 1, first_stream + 200 + DRAIN)
    assert times(timeline, 1) == (1, first_stream + 100, first_stream + 200 + 50 + DRAIN)


def test_a_dependent_matmul_waits_for_the_drain() -> None:
    timeline = run(mm(100, 128, 128), mm(50, 128, 128, after={"mxu": 0}))
    assert times(timeline, 1)[1:] == (1 + 32 + 100 + DRAIN, 1 + 32 + 100 + DRAIN + 32 + 50 + DRAIN)


@pytest.mark.parametrize(
    ("n", "k", "b", "passes", "first"),
    [
        (128, 64, 2, 1, 32),
        (128, 64, 5, 3, 32),
        (64, 128, 4, 2, 32),
        (64, 256, 4, 4, 32),
        (128, 65, 2, 2, 17),
        (128, 64, 1, 1, 16),
        (65, 128, 2, 2, 32),
    ],
)
def test_split_array_takes_two_heads(n: int, k: int, b: int, passes: int, first: int) -> None:
    """Two planes a pass where both fit half of the rows or half of the columns. Breaks if they are paired wrongly, or
    loaded for free."""
    timeline = run(mm(200, n, k, b=b), chip=chip(mxu={"split": True}))
    assert after_start(timeline) == first + passes * 200 + DRAIN


def test_groups_do_not_share_a_column() -> None:
    """Groups of 32 rows: four tiles where int8 has one. Breaks if a tile takes rows of two groups."""
    assert after_start(run(mmg(50, 128, 128))) == 8 + 4 * 50 + DRAIN


def test_lanes_do_not_share_a_column() -> None:
    """A group of 256 is eight sums of 32 rows, each row for two cycles. Breaks if lanes mix or wide weights are
    free."""
    assert after_start(run(mmg(50, 128, 256, glog=3, ss=SRAM_I8))) == 8 + 8 * 2 * 50 + DRAIN


def test_float_rows_enter_every_fourth_cycle() -> None:
    assert after_start(run(mm(50, 128, 128, fmt=1))) == 32 + 4 * 50 + DRAIN


SHAPES = [
    (1, 1, 1),
    (128, 128, 128),
    (1, 768, 768),
    (128, 768, 768),
    (384, 3072, 768),
    (128, 768, 3072),
    (100, 130, 1),
    (512, 64, 512),
    (7, 1000, 300),
    (4096, 129, 129),
]


@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
@pytest.mark.parametrize(("rows", "cols"), [(128, 128), (32, 64), (8, 8)])
def test_without_overlap_it_is_the_formula_of_scale_sim(m: int, n: int, k: int, rows: int, cols: int) -> None:
    """Weight stationary: every fold takes 2R + C + M - 2 cycles. Breaks if folds overlap, or loads of partial folds are
    short."""
    folds = -(-k // rows) * -(-n // cols)
    timeline = run(mm(m, n, k), chip=chip(mxu={"rows": rows, "cols": cols}), options=Options(overlap=False))
    assert after_start(timeline) == folds * (2 * rows + cols + m - 2)


@pytest.mark.parametrize(
    ("rows", "cols", "size"),
    [(1, 256, 1024), (100, 256, 102_400), (100, 255, 100 * 1024), (3, 1, 3 * 64), (1, 17, 128), (0, 256, 0)],
)
def test_transfer(rows: int, cols: int, size: int) -> None:
    """Dense rows are one run, others are rounded up to bursts of 64 one by one; then 8 + 200 cycles."""
    timeline = run(load(rows, cols))
    assert int(timeline.bytes.sum()) == size
    assert after_start(timeline) == -(-size // 100) + 208


def test_gathered_rows_are_requests_of_their_own() -> None:
    timeline = run(word("gather", d=SRAM_F32, a=DRAM_WIDE, idx=SRAM_I32, n=10, cols=1000, limit=50))
    assert int(timeline.bytes.sum()) == 10 * 4032
    assert after_start(timeline) == -(-40320 // 100) + 208


def test_latency_does_not_occupy_the_bus() -> None:
    """Breaks if the second transfer of a queue waits for the first to complete."""
    timeline = run(load(100), load(50))
    assert [times(timeline, i) for i in range(2)] == [(0, 1, 1 + 1024 + 208), (1, 1025, 1025 + 512 + 208)]


def test_queues_share_the_bus_equally() -> None:
    """Half the bandwidth each while both transfer; what is left of the longer one then has all of it."""
    timeline = run(load(100), load(25, queue="lda"))  # 102,400 and 25,600 bytes; the second is ready a cycle later
    assert times(timeline, 1) == (1, 2, 2 + 512 + 208)
    assert times(timeline, 0) == (0, 1, 1 + 1 + 512 + (102_400 - 100 - 25_600) // 100 + 208)


def test_three_queues_share_the_bus() -> None:
    timeline = run(load(25), load(25, queue="lda"), word("sto", d=2, a=SRAM_F32, rows=25, cols=256))
    first, second, third = (times(timeline, i)[2] for i in range(3))
    assert (
        max(first, second, third) - 208 == 1 + 768 + 1
    )  # 76,800 bytes, and the last cycle of the last but one is not used up
    assert first < second < third


def test_dependence_sees_completion() -> None:
    """Breaks if a count is satisfied by the start of a word, or by the end of its transfer."""
    timeline = run(load(100), mm(10, 128, 128, after={"ldw": 0}), add(1, 1, after={"mxu": 0}))
    loaded = 1 + 1024 + 208
    assert times(timeline, 1) == (1, loaded, loaded + 32 + 10 + DRAIN)
    assert times(timeline, 2)[1] == loaded + 32 + 10 + DRAIN


def test_count_allows_younger_words_to_run() -> None:
    """ldw <= 1 waits for the first of two loads only."""
    timeline = run(load(100), load(100), add(1, 1, after={"ldw": 1}))
    assert times(timeline, 2)[1] == 1 + 1024 + 208


def test_full_queue_stalls_dispatch() -> None:
    """Room for two: the third is dispatched when the first completes, and everything after it later still."""
    timeline = run(add(10, 128), add(10, 128), add(10, 128), exp(1, 1), chip=chip(queues={"vec": 2}))
    assert [times(timeline, i)[:2] for i in range(4)] == [(0, 1), (1, 27), (27, 53), (28, 29)]


def test_fence_and_scalar_load_stall_dispatch() -> None:
    """Breaks if a fence looks at the wrong queue, or a scalar from DRAM is free."""
    timeline = run(add(10, 128), exp(100, 128), Inst.make("fence", mask=0b010000), exp(1, 1))
    assert times(timeline, 3)[0] == 27 + 1
    remote = run(Inst.make("sld", d=1, v=2), add(1, 1))
    assert times(remote, 1)[0] == 1 + 208


def test_control_words_cost_a_cycle_each() -> None:
    timeline = run(*[Inst.make("nop")] * 10, Inst.make("loop", level=0, len=2, count=5), Inst.make("nop"), add(1, 1))
    assert times(timeline, 12) == (12, 13, 13 + 17)
    assert [times(timeline, 12 + 2 * i)[0] for i in range(5)] == [12, 14, 16, 18, 20]


def test_same_program_same_timeline() -> None:
    """Breaks if anything depends on hashing or time."""
    words = [load(30), load(7, 9, queue="lda"), mm(9, 200, 200, after={"ldw": 0}), add(3, 300, after={"mxu": 0})] * 5
    one, two = run(*words), run(*words)
    assert one.end.tolist() == two.end.tolist() and one.bus.tolist() == two.bus.tolist()
    assert one.chip is EDGE


def test_a_gap_is_charged_to_what_the_resource_waits_for() -> None:
    """VEC stands idle until a transfer is there. Breaks if these cycles go to the word that had to wait."""
    timeline = run(load(64), add(1, 8, after={"ldw": 0}))
    first = len(SETUP)
    waiting = [share for share in waterfall(timeline, "vec") if share.cause == "waiting_dram"]
    assert {share.instruction for share in waiting} == {first}
    assert sum(share.cycles for share in waiting) == 656 + 8 + 200  # 65,536 bytes at 100 a cycle, and the way to DRAM
