"""Predict: the cycles of a tile program whose buffers have addresses, as the machine runs it, in its order.

The scheduler knows no addresses, and takes an iteration's length times their number. Here two iterations follow each
other, and what the second one adds is taken for each of the others: engines work through the border between them as far
as the machine lets them. It holds them up in three ways that the scheduler does not see (docs/timing.md):

- Dispatch is in order. Every op takes `WORDS` cycles of it, views included, and a full queue stops it.
- What writes bytes waits for those who read what was there before.
- A count says how many of an engine's latest instructions need not have completed, `MAX_COUNT` at most. Who needs an
  older one waits for newer ones, too, unless an instruction before it in its own queue has done so.
"""

from bisect import bisect_right, insort
from collections.abc import Sequence

import numpy as np

from compiler.plan.jit import frozen
from compiler.plan.pages import last_before, mark
from compiler.tile.cost import occupancy
from compiler.tile.decisions import Placement
from compiler.tile.ir import Buffer, Op, Program, span
from isa.architecture import DMA_ENGINES, GIVEN_REGIONS, MAX_COUNT, QUEUES, Space
from isa.chip import Chip
from isa.fields import Access

ITERATIONS = 2  # that are looked at
WORDS = 3  # of an op: its instruction, and the views and steps that it sets
PAGE, PAGES = 64, 1 << 19  # bytes that are told apart: more in a memory of more pages, as only DRAM has
NONE = -1
_COUNT = len(QUEUES)
_REMEMBERED = 64  # transfers on the bus


def predicted_cycles(program: Program, placement: Placement, chip: Chip) -> int:
    """Cycles of the whole program, every iteration of its loop included."""
    ops, loop = program.ops, program.loop
    run = _Run(placement, chip)
    if loop is None:
        return run.over(ops)
    run.over(ops[: loop.first])
    ends = [run.over(ops[loop.first : loop.end], number) for number in range(min(loop.count, ITERATIONS))]
    more = loop.count - len(ends)
    return run.over(ops[loop.end :]) + (more * (ends[-1] - ends[-2]) if more else 0)


class _Run:
    """Times found so far, in program order."""

    def __init__(self, placement: Placement, chip: Chip) -> None:
        self.placement, self.chip = placement, chip
        self.depths = [getattr(chip.queues, engine.value) for engine in QUEUES]
        self.ends: list[list[int]] = [[] for _ in QUEUES]  # completion of each instruction
        self.known: list[list[list[int]]] = [[] for _ in QUEUES]  # and what had completed when it began
        self.load_free, self.free = [0] * _COUNT, [0] * _COUNT  # when an engine can load weights, and work
        self.clock = self.latest = 0
        self.bus: list[tuple[int, int]] = []  # transfers, in time
        self.iteration = 0
        sizes: dict[object, int] = {}
        for buffer, offset in placement.offsets.items():
            if _can_conflict(buffer):
                end = offset + buffer.bytes + ITERATIONS * buffer.step
                sizes[_memory(buffer)] = max(sizes.get(_memory(buffer), 0), end)
        self.page = {key: max(PAGE, -(-size // PAGES)) for key, size in sizes.items()}
        self.last = {
            key: np.full((2 * _COUNT, size // self.page[key] + 2), NONE, np.int32) for key, size in sizes.items()
        }

    def over(self, ops: Sequence[Op], iteration: int = 0) -> int:
        """When all engines are done with these ops of an iteration, too."""
        self.iteration = iteration
        for op in ops:
            self._op(op)
        return self.latest

    def _op(self, op: Op) -> None:
        mine = QUEUES.index(op.row.engine)
        dma, issued = op.row.engine in DMA_ENGINES, len(self.ends[mine])
        if issued >= self.depths[mine]:
            self.clock = max(self.clock, self.ends[mine][issued - self.depths[mine]])
        self.clock += WORDS
        done = list(self.known[mine][-1]) if issued else [NONE] * _COUNT
        if not dma:
            done[mine] = issued - 1  # an engine executes one after the other
        start = max(self._waited(self._needs(op, mine, issued), done), self.load_free[mine])
        load, busy, last, latency, blocking, _ = occupancy(op, self.chip)
        start = max(start + load, self.free[mine])
        if dma:
            start = self._transfer(start, busy)
        end = start + busy + latency
        self.load_free[mine] = end if blocking else start + last
        self.free[mine] = end if blocking else start + busy
        self.ends[mine].append(end)
        self.known[mine].append(done)
        self.latest = max(self.latest, end)

    def _needs(self, op: Op, mine: int, number: int) -> list[int]:
        """Of each engine the last instruction that must have completed; this one is noted."""
        needs = frozen([NONE] * _COUNT)
        for _, ref, extents, access in op.accesses:
            buffer = ref.buffer
            if not _can_conflict(buffer):
                continue
            base, page = self.placement.offsets[buffer] + self.iteration * buffer.step, self.page[_memory(buffer)]
            low, high = span(ref, extents)
            low, high = base + low, base + high
            pages, first, last = self.last[_memory(buffer)], low // page, (high - 1) // page + 1
            last_before(pages, first, last, access is not Access.R, needs)
            if access is not Access.W:
                mark(pages, _COUNT + mine, first, last, number)
            if access is not Access.R:
                mark(pages, mine, first, last, number)
        needs[mine] = min(needs[mine], number - 1)
        return list(map(int, needs))

    def _waited(self, needs: Sequence[int], done: list[int]) -> int:
        """When what is needed has completed; what is known to have completed then is added to `done`."""
        ready = self.clock
        for queue in sorted(range(_COUNT), key=lambda q: needs[q] - done[q], reverse=True):
            if needs[queue] > done[queue]:
                at = max(needs[queue], len(self.ends[queue]) - 1 - MAX_COUNT)
                ready = max(ready, self.ends[queue][at])
                done[:] = map(max, done, self.known[queue][at])
                done[queue] = max(done[queue], at)
        return ready

    def _transfer(self, start: int, busy: int) -> int:
        """When a transfer that may begin at `start` has the bus to itself for so long."""
        at = max(bisect_right(self.bus, (start, 0)) - 1, 0)
        for low, high in self.bus[at:]:
            if start + busy <= low:
                break
            start = max(start, high)
        insort(self.bus, (start, start + busy))
        del self.bus[:-_REMEMBERED]
        return start


def _can_conflict(buffer: Buffer) -> bool:
    return buffer.space is not Space.DRAM or buffer.region not in GIVEN_REGIONS


def _memory(buffer: Buffer) -> object:
    """What addresses are counted in."""
    return (buffer.space, buffer.region) if buffer.space is Space.DRAM else buffer.space
