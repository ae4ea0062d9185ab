"""Dependence counts: which words of each engine a word must wait for.

Every conflict between two words (one writes what the other touches) must be ordered by a count, by in-order execution
of one engine, or by an earlier wait that implies it. Memory is tracked in small pages, so that the latest conflicting
word of each engine is a maximum over arrays. Pages make this conservative; `isa.check` proves the result byte by byte.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from isa.spec import DMA_ENGINES, MAX_COUNT, NO_WAIT, QUEUES, Access, Engine, Space
from isa.views import Extents, View

PAGE = 64  # bytes; buffers are aligned to this, so that neighbours do not share a page

Touch = tuple[View, Extents, Access]
NONE = -1


@dataclass
class _Memory:
    """Per page, the index (within its engine) of the last word of each engine that wrote, and that read."""

    writers: NDArray[np.int32]
    readers: NDArray[np.int32]

    @classmethod
    def of(cls, size: int) -> "_Memory":
        pages = -(-size // PAGE) + 1
        return cls(np.full((len(QUEUES), pages), NONE, np.int32), np.full((len(QUEUES), pages), NONE, np.int32))


@dataclass
class Tracker:
    """Feeds on words in dispatch order and answers with their six counts."""

    sizes: dict[tuple[Space, int], int]
    memories: dict[tuple[Space, int], _Memory] = field(default_factory=dict)
    issued: list[int] = field(default_factory=lambda: [0] * len(QUEUES))
    known: list[list[list[int]]] = field(default_factory=lambda: [[] for _ in QUEUES])  # per engine and word: what had completed when it started

    def wait_counts(self, engine: Engine, touches: Sequence[Touch]) -> tuple[int, ...]:
        """The dependence counts of the next word, which executes on `engine` and touches these blocks."""
        mine = QUEUES.index(engine)
        latest = [NONE] * len(QUEUES)
        spots = [(self._memory(view), pages, access) for view, extents, access in touches for pages in page_ranges(view, extents)]
        for memory, pages, access in spots:
            for queue in range(len(QUEUES)):
                conflict = int(memory.writers[queue, pages].max())
                if access is not Access.R:
                    conflict = max(conflict, int(memory.readers[queue, pages].max()))
                latest[queue] = max(latest[queue], conflict)
        done = list(self.known[mine][-1]) if self.known[mine] else [NONE] * len(QUEUES)
        if engine not in DMA_ENGINES:
            done[mine] = self.issued[mine] - 1  # one compute engine executes its words one after the other
        counts = [NO_WAIT] * len(QUEUES)
        for queue in sorted(range(len(QUEUES)), key=lambda q: latest[q] - done[q], reverse=True):
            if latest[queue] > done[queue]:
                count = min(self.issued[queue] - 1 - latest[queue], MAX_COUNT)
                counts[queue] = count
                self._learn(done, queue, self.issued[queue] - 1 - count)
        for memory, pages, access in spots:
            if access is not Access.W:
                memory.readers[mine, pages] = self.issued[mine]
            if access is not Access.R:
                memory.writers[mine, pages] = self.issued[mine]
        self.known[mine].append(done)
        self.issued[mine] += 1
        return tuple(counts)

    def _learn(self, done: list[int], queue: int, word: int) -> None:
        """Word `word` of `queue` has completed, and so has everything it had waited for, and all before it in its queue."""
        if word < 0:
            return
        done[queue] = max(done[queue], word)
        for other, index in enumerate(self.known[queue][word]):
            done[other] = max(done[other], index)

    def _memory(self, view: View) -> _Memory:
        key = (view.space, int(view.region) if view.space is Space.DRAM else 0)
        if key not in self.memories:
            self.memories[key] = _Memory.of(self.sizes[key])
        return self.memories[key]


def page_ranges(view: View, extents: Extents) -> Iterator[slice]:
    """Slices of page numbers that cover a block, rows joined where they share or follow pages."""
    planes, rows, cols = extents
    if not (planes and rows and cols):
        return
    bits = view.dtype.bits
    length = -(-((cols - 1) * view.cs + 1) * bits // 8)
    if rows > 1 and view.rs * bits // 8 - length < 2 * PAGE:  # nearly dense rows: one run
        length, rows = (rows - 1) * view.rs * bits // 8 + length, 1
    if planes > 1 and rows == 1 and view.ps * bits // 8 - length < 2 * PAGE:
        length, planes = (planes - 1) * view.ps * bits // 8 + length, 1
    for p in range(planes):
        for r in range(rows):
            start = view.base + (p * view.ps + r * view.rs) * bits // 8
            yield slice(start // PAGE, (start + length - 1) // PAGE + 1)
