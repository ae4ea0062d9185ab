"""Schedule: reorder a tile program so that the engines work at the same time.

List scheduling: the engines are simulated with the durations of the timing rules; among the words whose inputs exist, the one
that can start first goes next (the earlier one on a tie). Loads therefore run ahead as far as memory allows, which is
what double buffering and weight prefetch are. Memory stays within what the original order plus early words need.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from compiler.tile.ir import Buffer, Op, Program, span
from compiler.tile.place import live_ranges
from isa.chip import Chip
from isa.spec import Access, Engine, Region, Space

WINDOW = 160  # how many ops beyond the oldest waiting one may be considered
ALIGN = 64
FILLS = (0.98, 0.92, 0.8)  # shares of a memory that early words may fill: the rest is for gaps in the plan
NEVER_WRITTEN = (Region.WEIGHTS, Region.CONST, Region.IN)

Cycles = Callable[[Op], int]


def schedule(program: Program, chip: Chip, cycles: Cycles, fill: float = FILLS[0], window: int = WINDOW) -> Program:
    """The same ops in an order that keeps the engines busy. Bits cannot change: every conflict keeps its order.

    What stands before, in and after the loop is scheduled by itself. Words that go early may fill the share `fill` of each memory.
    """
    if program.loop is None:
        return Program(_ordered(program, 0, len(program.ops), chip, cycles, fill, window))
    first, end = program.loop.first, program.loop.end
    parts = [_ordered(program, a, b, chip, cycles, fill, window) for a, b in ((0, first), (first, end), (end, len(program.ops)))]
    return Program((*parts[0], *parts[1], *parts[2]), program.loop)


def _ordered(program: Program, first: int, end: int, chip: Chip, cycles: Cycles, fill: float, window: int) -> tuple[Op, ...]:
    """Ops first .. end of `program` in their new order. Buffers alive beyond these ops count as alive throughout."""
    crossing = [buffer for buffer, (a, b) in live_ranges(program).items() if a < end and b >= first and (a < first or b >= end)]
    ops = program.ops[first:end]
    return tuple(ops[i] for i in _Scheduler(Program(ops), chip, cycles, fill, window, frozenset(crossing)).order())


def predecessors(ops: Sequence[Op]) -> list[list[int]]:
    """For each op the earlier ops it must follow: those that touch the same bytes, one of the two writing."""
    touched: dict[Buffer, list[tuple[int, int, int, bool]]] = {}
    result: list[list[int]] = []
    for index, op in enumerate(ops):
        before: set[int] = set()
        mine = []
        for _, ref, extents, access in op.accesses():
            if ref.buffer.space is Space.DRAM and ref.buffer.region in NEVER_WRITTEN:
                continue
            low, high = span(ref, extents)
            writes = access is not Access.R
            for other, a, b, wrote in touched.get(ref.buffer, ()):
                if (writes or wrote) and a < high and low < b:
                    before.add(other)
            mine.append((ref.buffer, (index, low, high, writes)))
        for buffer, entry in mine:
            touched.setdefault(buffer, []).append(entry)
        result.append(sorted(before))
    return result


@dataclass
class _Scheduler:
    program: Program
    chip: Chip
    cycles: Cycles
    fill: float
    window: int
    resident: frozenset[Buffer] = frozenset()
    free_at: dict[Engine, int] = field(default_factory=dict)
    bus_free_at: int = 0

    def order(self) -> list[int]:
        ops = self.program.ops
        before = predecessors(ops)
        after: list[list[int]] = [[] for _ in ops]
        missing = [len(b) for b in before]
        for index, earlier in enumerate(before):
            for other in earlier:
                after[other].append(index)
        sizes = ((Space.SRAM, self.chip.sram.bytes), (Space.ACC, self.chip.acc.bytes))
        memory = {space: _Occupancy(self.program, space, int(size * self.fill), self.resident) for space, size in sizes}
        finish = [0] * len(ops)
        done = [False] * len(ops)
        ready = [i for i in range(min(self.window, len(ops))) if not missing[i]]
        oldest, seen, result = 0, min(self.window, len(ops)), []
        while oldest < len(ops):
            index = self._pick(ready, before, finish, oldest, memory)
            ready.remove(index)
            start = self._start(index, before, finish)
            finish[index] = start + self._run(ops[index], start)
            for occupancy in memory.values():
                occupancy.take(index, oldest)
            done[index] = True
            result.append(index)
            for later in after[index]:
                missing[later] -= 1
                if not missing[later] and later < seen:
                    ready.append(later)
            while oldest < len(ops) and done[oldest]:
                oldest += 1
            while seen < min(oldest + self.window, len(ops)):
                if not missing[seen]:
                    ready.append(seen)
                seen += 1
        return result

    def _pick(self, ready: list[int], before: list[list[int]], finish: list[int], oldest: int, memory: "dict[Space, _Occupancy]") -> int:
        """The ready op that can start first and fits in memory. The oldest one always fits."""
        best = heapq.nsmallest(len(ready), ((self._start(i, before, finish), i) for i in ready))
        for _, index in best:
            if index == oldest or all(m.fits(index, oldest) for m in memory.values()):
                return index
        return min(ready)

    def _start(self, index: int, before: list[list[int]], finish: list[int]) -> int:
        engine = self.program.ops[index].row.engine
        inputs = max((finish[i] for i in before[index]), default=0)
        bus = self.bus_free_at if engine in (Engine.LDW, Engine.LDA, Engine.STO) else 0
        return max(inputs, self.free_at.get(engine, 0), bus)

    def _run(self, op: Op, start: int) -> int:
        """Occupy the engine; returns the time to completion."""
        busy = self.cycles(op)
        self.free_at[op.row.engine] = start + busy
        if op.row.engine in (Engine.LDW, Engine.LDA, Engine.STO):
            self.bus_free_at = start + busy
            return busy + self.chip.dram.latency_cycles
        if op.row.engine is Engine.MXU:
            return busy + self.chip.mxu.rows + self.chip.mxu.cols
        return busy


class _Occupancy:
    """Bytes alive in one memory at each point of the original order; words issued early add to the points they skip."""

    def __init__(self, program: Program, space: Space, capacity: int, resident: frozenset[Buffer]) -> None:
        self.limit = capacity - sum(-(-b.bytes // ALIGN) * ALIGN for b in resident if b.space is space)
        self.alive: NDArray[np.int64] = np.zeros(len(program.ops) + 1, np.int64)
        self.news: dict[int, int] = {}
        for buffer, (first, last) in live_ranges(program).items():
            if buffer.space is space and buffer not in resident:
                size = -(-buffer.bytes // ALIGN) * ALIGN
                self.alive[first : last + 1] += size
                self.news[first] = self.news.get(first, 0) + size

    def fits(self, index: int, oldest: int) -> bool:
        size = self.news.get(index, 0)
        return size == 0 or int(self.alive[oldest:index].max(initial=0)) + size <= self.limit

    def take(self, index: int, oldest: int) -> None:
        size = self.news.get(index, 0)
        if size and index > oldest:
            self.alive[oldest:index] += size
