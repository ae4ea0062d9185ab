"""Stretches of time for a screen: very many of them become a bounded number, neighbours that no screen tells apart one.

Time is cut into buckets of a power of two of cycles. What is shorter than a bucket goes together with its neighbours
that begin in the same one; what is longer stays alone. So there are never more than three groups for each bucket.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Spans:
    """Stretches from `low` to `high`, in the order of time: the `instruction` of each, and the number of its `owner`."""

    low: Numbers
    high: Numbers
    owner: Numbers
    instruction: Numbers

    def __len__(self) -> int:
        return len(self.low)

    @cached_property
    def length(self) -> Numbers:
        return self.high - self.low

    def groups(self, bucket: int) -> Numbers:
        """Where each group of the ones that go together begins."""
        place, long = self.low // bucket, self.length >= bucket
        new = (place[1:] != place[:-1]) | long[1:] | long[:-1]
        return np.flatnonzero(np.concatenate([[True], new])) if len(self) else np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Shown:
    """Groups of spans: `work` cycles in `count` of them; `owner` and `instruction` are those of the longest."""

    low: Numbers
    high: Numbers
    work: Numbers
    count: Numbers
    owner: Numbers
    instruction: Numbers

    def __len__(self) -> int:
        return len(self.low)


def of(low: Sequence[int] | Numbers, high: Sequence[int] | Numbers, owner: Numbers, instruction: Numbers) -> Spans:
    """Spans in the order of time."""
    begin, end = np.asarray(low, np.int64), np.asarray(high, np.int64)
    order = np.argsort(begin, kind="stable")
    return Spans(begin[order], end[order], owner[order], instruction[order])


def joined(spans: Spans) -> Spans:
    """Neighbours of one owner that touch, as one."""
    if not len(spans):
        return spans
    new = (spans.owner[1:] != spans.owner[:-1]) | (spans.low[1:] != spans.high[:-1])
    first = np.flatnonzero(np.concatenate([[True], new]))
    last = np.append(first[1:], len(spans)) - 1
    return Spans(spans.low[first], spans.high[last], spans.owner[first], spans.instruction[first])


def bucket_for(rows: Sequence[Spans], most: int) -> int:
    """The smallest bucket with which all rows together are at most `most` groups; 1 changes nothing."""
    bucket = 1
    while sum(len(row.groups(bucket)) for row in rows) > most:
        bucket *= 2
    return bucket


def packed(pieces: Spans, most: int) -> tuple[Numbers, Numbers]:
    """Lengths and owners of the pieces of a whole, at most `most`: where there are too many, those of a bucket that
    belong to one owner are one, so that every owner keeps its cycles to the last one. `most` must leave room for all
    owners."""
    whole = joined(pieces)
    bucket = 1
    while True:
        first = whole.groups(bucket)
        group = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(whole))))
        order = np.lexsort((whole.owner, group)) if bucket > 1 else np.arange(len(whole))
        place, owner = group[order], whole.owner[order]
        new = np.flatnonzero(np.concatenate([[True], (place[1:] != place[:-1]) | (owner[1:] != owner[:-1])]))
        if len(new) <= most:
            return np.add.reduceat(whole.length[order], new), owner[new]
        bucket *= 2


def shown(spans: Spans, bucket: int) -> Shown:
    """The groups of spans; those of one row do not overlap."""
    first = spans.groups(bucket)
    if not len(first):
        return Shown(*(np.zeros(0, np.int64) for _ in range(6)))
    group = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(spans))))
    longest = np.lexsort((spans.length, group))[np.append(first[1:], len(spans)) - 1]
    return Shown(
        low=spans.low[first],
        high=np.maximum.reduceat(spans.high, first),
        work=np.add.reduceat(spans.length, first),
        count=np.diff(np.append(first, len(spans))),
        owner=spans.owner[longest],
        instruction=spans.instruction[longest],
    )
