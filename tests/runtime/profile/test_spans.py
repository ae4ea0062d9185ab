"""Stretches of time for a screen: whatever the run, few enough, in order, and with the same sums."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from runtime.profile import spans
from runtime.profile.spans import Spans

LENGTHS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 200), st.integers(0, 4)), min_size=1, max_size=300)


def row(some: list[tuple[int, int, int]], touching: bool = False) -> Spans:
    gaps, lengths, owners = (np.array(column, np.int64) for column in zip(*some, strict=True))
    high = np.cumsum(lengths + (0 if touching else gaps))
    return spans.of(high - lengths, high, owners, np.arange(len(some)))


@given(LENGTHS, st.integers(1, 100))
def test_groups_keep_all_work_and_their_order(some: list[tuple[int, int, int]], most: int) -> None:
    """Breaks when a span is lost, counted twice or drawn before its time, or there are more than a screen can show."""
    found = row(some)
    shown = spans.shown(found, spans.bucket_for([found], most))
    assert len(shown) <= most
    assert (shown.work.sum(), shown.count.sum()) == (found.length.sum(), len(found))
    assert (shown.low[1:] >= shown.high[:-1]).all() and (shown.work <= shown.high - shown.low).all()
    assert (shown.low[0], shown.high[-1]) == (found.low[0], found.high[-1])


@given(LENGTHS, st.integers(5, 100))
def test_packed_pieces_keep_every_owner_to_the_last_cycle(some: list[tuple[int, int, int]], most: int) -> None:
    """Breaks when a cause of waiting gains or loses a cycle where there are too many pieces."""
    found = row(some, touching=True)
    lengths, owners = spans.packed(found, most)
    assert len(lengths) <= most and lengths.min() > 0
    assert np.bincount(owners, lengths, 5).tolist() == np.bincount(found.owner, found.length, 5).tolist()


def test_few_spans_stay_as_they_are() -> None:
    found = row([(1, 4, 0), (0, 4, 1), (2, 9, 0)])
    assert spans.bucket_for([found], 3) == 1
    assert spans.shown(found, 1).low.tolist() == found.low.tolist()
    assert spans.packed(row([(0, 4, 0), (0, 4, 1), (0, 4, 1)], touching=True), 9)[0].tolist() == [4, 8]
