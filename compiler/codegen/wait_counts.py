"""Dependence counts: which instructions of each engine an instruction must wait for.

Every conflict between two instructions (one writes what the other touches) must be ordered by a count, by in-order
execution of one engine, or by an earlier wait that implies it. Memory is tracked in small pages, so that the latest
conflicting instruction of each engine is a maximum over arrays. Pages make this conservative; `lint.check` proves the
result byte by byte."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compiler.plan.jit import frozen
from compiler.plan.pages import Pages
from isa.architecture import DMA_ENGINES, GIVEN_REGIONS, MAX_COUNT, NO_WAIT, QUEUES, Engine, Space
from isa.fields import Access
from isa.views import Extents, View

PAGE = 64  # bytes; buffers are aligned to this, so that neighbours do not share a page

Touch = tuple[View, Extents, Access]
NONE = -1
COUNT = len(QUEUES)


@dataclass
class Tracker:
    """Feeds on instructions in dispatch order and answers with their six counts.

    Instructions are numbered within their engine."""

    sizes: Mapping[tuple[Space, int], int]
    memories: dict[tuple[Space, int], Pages] = field(default_factory=dict)
    issued: list[int] = field(default_factory=lambda: [0] * COUNT)
    completed: list[int] = field(default_factory=lambda: [NONE] * COUNT)  # by the last fence
    known: list[list[list[int]]] = field(
        default_factory=lambda: [[] for _ in QUEUES]
    )  # per engine and instruction: what had completed when it started

    def wait_counts(
        self, engine: Engine, touches: Sequence[Touch], floor: Sequence[int] = (NO_WAIT,) * COUNT
    ) -> tuple[int, ...]:
        """The dependence counts of the next instruction, which executes on `engine` and touches these blocks.

        `floor` are counts that the instruction has anyway; the result is at least as strict.
        """
        mine = QUEUES.index(engine)
        spots = [
            (self._memory(view), pages(view, extents), access)
            for view, extents, access in touches
            if _can_conflict(view)
        ]
        needs = frozen([NONE] * COUNT)
        for memory, span, access in spots:
            memory.last_before(span.start, span.stop, access is not Access.R, needs)
        latest = list(map(int, needs))
        free, counts = self._free(mine), list(floor)
        done = self._after(free, counts)
        for queue in sorted(range(COUNT), key=lambda q: latest[q] - done[q], reverse=True):
            if latest[queue] > done[queue]:
                counts[queue] = min(self.issued[queue] - 1 - latest[queue], MAX_COUNT, counts[queue])
                self._learn(done, queue, self.issued[queue] - 1 - counts[queue])
        for queue, asked in enumerate(floor):  # a wait that the other waits imply is left out
            others = [NO_WAIT if q == queue else n for q, n in enumerate(counts)]
            if asked == NO_WAIT != counts[queue] and all(
                a >= b for a, b in zip(self._after(free, others), latest, strict=True)
            ):
                counts, done = others, self._after(free, others)
        for memory, span, access in spots:
            if access is not Access.W:
                memory.mark(COUNT + mine, span.start, span.stop, self.issued[mine])
            if access is not Access.R:
                memory.mark(mine, span.start, span.stop, self.issued[mine])
        self.known[mine].append(done)
        self.issued[mine] += 1
        return tuple(counts)

    def implied(self, engine: Engine, counts: Sequence[int]) -> set[int]:
        """The queues of those waits of the next instruction that program order and its other waits imply."""
        free = self._free(QUEUES.index(engine))
        found = set()
        for queue, count in enumerate(counts):
            others = [NO_WAIT if q == queue else n for q, n in enumerate(counts)]
            if count != NO_WAIT and self._after(free, others)[queue] >= self.issued[queue] - 1 - count:
                found.add(queue)
        return found

    def _free(self, mine: int) -> list[int]:
        """What has certainly completed when the next instruction of an engine starts, without any wait."""
        done = list(self.completed)
        if self.known[mine]:
            done = [max(a, b) for a, b in zip(done, self.known[mine][-1], strict=True)]
        if QUEUES[mine] not in DMA_ENGINES:
            done[mine] = self.issued[mine] - 1  # one compute engine executes its instructions one after the other
        return done

    def fence(self) -> None:
        """Dispatch has waited for every instruction: nothing after this need wait for anything before it."""
        self.completed = [n - 1 for n in self.issued]

    def _after(self, done: Sequence[int], counts: Sequence[int]) -> list[int]:
        """What has completed once these counts hold, if `done` had before."""
        result = list(done)
        for queue, count in enumerate(counts):
            if count != NO_WAIT:
                self._learn(result, queue, self.issued[queue] - 1 - count)
        return result

    def _learn(self, done: list[int], queue: int, instruction: int) -> None:
        """Instruction `instruction` of `queue` has completed, and so has everything it had waited for, and all before
        it in its queue."""
        if instruction < 0:
            return
        done[queue] = max(done[queue], instruction)
        for other, index in enumerate(self.known[queue][instruction]):
            done[other] = max(done[other], index)

    def _memory(self, view: View) -> Pages:
        key = (view.space, int(view.region) if view.space is Space.DRAM else 0)
        if key not in self.memories:
            self.memories[key] = Pages(-(-self.sizes[key] // PAGE) + 1, COUNT)
        return self.memories[key]


def _can_conflict(view: View) -> bool:
    return view.space is not Space.DRAM or view.region not in GIVEN_REGIONS


def pages(view: View, extents: Extents) -> slice:
    """The pages from the first to the last byte of a block. Gaps between its rows count as touched."""
    low, high = view.span(extents)
    return slice(low // PAGE, (high - 1) // PAGE + 1)
