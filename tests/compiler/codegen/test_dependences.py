"""Dependence counts against a brute-force order proof that shares nothing with them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.codegen.wait_counts import Tracker
from isa.architecture import DMA_ENGINES, NO_WAIT, QUEUES, Dtype, Engine, Region, Space
from isa.fields import Access
from isa.views import View

BYTES = 64 * 64
SIZES = {(Space.SRAM, 0): BYTES, (Space.DRAM, int(Region.SCRATCH)): BYTES}


@st.composite
def programs(draw: st.DrawFn) -> list[tuple[Engine, list[tuple[View, tuple[int, int, int], Access]]]]:
    words = []
    for _ in range(draw(st.integers(1, 25))):
        engine = draw(st.sampled_from(QUEUES))
        touches = []
        for _ in range(draw(st.integers(1, 3))):
            space = draw(st.sampled_from((Space.SRAM, Space.DRAM)))
            rows, cols = draw(st.integers(1, 4)), draw(st.integers(1, 40))
            view = View(space, Region.SCRATCH, Dtype.F32, 4 * draw(st.integers(0, 500)), rs=draw(st.integers(cols, 60)))
            touches.append((view, (1, rows, cols), draw(st.sampled_from(Access))))
        words.append((engine, touches))
    return words


def touched(view: View, extents: tuple[int, int, int]) -> set[tuple[Space, int]]:
    _, rows, cols = extents
    return {
        (view.space, view.base + 4 * (r * view.rs + c) + b) for r in range(rows) for c in range(cols) for b in range(4)
    }


@settings(max_examples=60)
@given(programs())
def test_every_conflict_is_ordered(words: list[tuple[Engine, list[tuple[View, tuple[int, int, int], Access]]]]) -> None:
    """Breaks if any pair of words that touch one byte, one of them writing, could overlap in time."""
    tracker = Tracker(SIZES)
    queues: dict[Engine, list[int]] = {q: [] for q in QUEUES}
    before: list[set[int]] = []  # words certainly complete when word i starts
    footprints: list[tuple[set[tuple[Space, int]], set[tuple[Space, int]]]] = []
    for i, (engine, touches) in enumerate(words):
        counts = tracker.wait_counts(engine, touches)
        done: set[int] = set()
        if queues[engine]:
            done |= before[queues[engine][-1]]  # it starts after its predecessor started
            if engine not in DMA_ENGINES:
                done |= set(queues[engine])
        for queue, count in zip(QUEUES, counts, strict=True):
            if count != NO_WAIT:
                done |= set(queues[queue][: len(queues[queue]) - count])
        for j in list(done):
            done |= before[j]
        before.append(done)
        queues[engine].append(i)
        reads = set().union(*(touched(v, e) for v, e, a in touches if a is not Access.W), set())
        writes = set().union(*(touched(v, e) for v, e, a in touches if a is not Access.R), set())
        for j, (r, w) in enumerate(footprints):
            if writes & (r | w) or reads & w:
                assert j in done, f"word {i} may overtake word {j}"
        footprints.append((reads, writes))


def test_independent_words_wait_for_nothing() -> None:
    """Breaks if counts become so conservative that engines no longer overlap."""
    tracker = Tracker(SIZES)
    for n, engine in enumerate(QUEUES):
        view = View(Space.SRAM, Region.SCRATCH, Dtype.F32, 512 * n, rs=0)
        assert set(tracker.wait_counts(engine, [(view, (1, 1, 64), Access.RW)])) == {NO_WAIT}


def test_known_completions_are_not_waited_for_again() -> None:
    """Breaks if a wait that an earlier wait implies is emitted again."""
    tracker = Tracker(SIZES)
    view, block = View(Space.SRAM, Region.SCRATCH, Dtype.F32, 0), (1, 1, 16)
    tracker.wait_counts(Engine.LDW, [(view, block, Access.W)])
    first = tracker.wait_counts(Engine.VEC, [(view, block, Access.R)])
    assert first == (0, *[NO_WAIT] * 5)
    assert tracker.wait_counts(Engine.VEC, [(view, block, Access.R)]) == (NO_WAIT,) * 6
