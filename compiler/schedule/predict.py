"""Predict: the cycles of a tile program whose buffers have addresses, as the machine runs it, in its order.

The scheduler knows no addresses, and takes an iteration's length times their number. Here two iterations follow each
other, and what the second one adds is taken for each of the others: engines work through the border between them as far
as the machine lets them. It holds them up in four ways that the scheduler does not see (docs/timing.md):

- Dispatch is in order. Every op takes `WORDS` cycles of it, views included, and a full queue stops it.
- What writes bytes waits for those who read what was there before.
- A count says how many of an engine's latest instructions need not have completed, `MAX_COUNT` at most. Who needs an
  older one waits for newer ones, too, unless an instruction before it in its own queue has done so.
- The bus is shared equally by the queues that have a transfer on it: weights come half as fast beside a store.

What an instruction waits for does not depend on time and is found first (`_Waits`); then the machine runs
(engines.py).
"""

from collections.abc import Sequence

from compiler.plan.jit import Vector, frozen
from compiler.plan.pages import Pages
from compiler.schedule.engines import Instructions, run
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


def predicted_cycles(program: Program, placement: Placement, chip: Chip) -> int:
    """Cycles of the whole program, every iteration of its loop included."""
    ops, loop = program.ops, program.loop
    waits = _Waits(placement, chip)
    if loop is None:
        waits.over(ops)
        return max(map(int, waits.times()), default=0)
    waits.over(ops[: loop.first])
    borders = [waits.over(ops[loop.first : loop.end], number) for number in range(min(loop.count, ITERATIONS))]
    waits.over(ops[loop.end :])
    times = list(map(int, waits.times()))
    ends = [max(times[:border], default=0) for border in borders]
    more = loop.count - len(ends)
    return max(times, default=0) + (more * (ends[-1] - ends[-2]) if more else 0)


class _Waits:
    """What each instruction so far waits for, in program order."""

    def __init__(self, placement: Placement, chip: Chip) -> None:
        self.placement, self.chip = placement, chip
        self.known: list[list[list[int]]] = [[] for _ in QUEUES]  # what had completed when each instruction began
        self.rows: list[tuple[int, ...]] = []  # of each instruction: engine, its cycles, the six it waits for
        self.iteration = 0
        sizes: dict[object, int] = {}
        for buffer, offset in placement.offsets.items():
            if _can_conflict(buffer):
                end = offset + buffer.bytes + ITERATIONS * buffer.step
                sizes[_memory(buffer)] = max(sizes.get(_memory(buffer), 0), end)
        self.page = {key: max(PAGE, -(-size // PAGES)) for key, size in sizes.items()}
        self.last = {key: Pages(size // self.page[key] + 2, _COUNT) for key, size in sizes.items()}

    def over(self, ops: Sequence[Op], iteration: int = 0) -> int:
        """How many instructions there are with these ops of an iteration."""
        self.iteration = iteration
        for op in ops:
            self._op(op)
        return len(self.rows)

    def times(self) -> Vector:
        """When each instruction completes."""
        engine, load, busy, last, latency, blocking = (frozen([row[i] for row in self.rows]) for i in range(6))
        waits = frozen([number for row in self.rows for number in row[6:]])
        depths = frozen([getattr(self.chip.queues, engine.value) for engine in QUEUES])
        work = Instructions(engine, load, busy, last, latency, blocking, waits)
        return run(work, depths, frozen([int(e in DMA_ENGINES) for e in QUEUES]), WORDS)

    def _op(self, op: Op) -> None:
        mine = QUEUES.index(op.row.engine)
        issued = len(self.known[mine])
        done = list(self.known[mine][-1]) if issued else [NONE] * _COUNT
        if op.row.engine not in DMA_ENGINES:
            done[mine] = issued - 1  # an engine executes one after the other
        waits = self._waited(self._needs(op, mine, issued), done)
        load, busy, last, latency, blocking, _ = occupancy(op, self.chip)
        self.rows.append((mine, load, busy, last, latency, int(blocking), *waits))
        self.known[mine].append(done)

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
            pages.last_before(first, last, access is not Access.R, needs)
            if access is not Access.W:
                pages.mark(_COUNT + mine, first, last, number)
            if access is not Access.R:
                pages.mark(mine, first, last, number)
        needs[mine] = min(needs[mine], number - 1)
        return list(map(int, needs))

    def _waited(self, needs: Sequence[int], done: list[int]) -> list[int]:
        """Of each queue the instruction that is waited for; what is known to have completed then is added to `done`."""
        waits = [NONE] * _COUNT
        for queue in sorted(range(_COUNT), key=lambda q: needs[q] - done[q], reverse=True):
            if needs[queue] > done[queue]:
                at = max(needs[queue], len(self.known[queue]) - 1 - MAX_COUNT)
                waits[queue] = at
                done[:] = map(max, done, self.known[queue][at])
                done[queue] = max(done[queue], at)
        return waits


def _can_conflict(buffer: Buffer) -> bool:
    return buffer.space is not Space.DRAM or buffer.region not in GIVEN_REGIONS


def _memory(buffer: Buffer) -> object:
    """What addresses are counted in."""
    return (buffer.space, buffer.region) if buffer.space is Space.DRAM else buffer.space
