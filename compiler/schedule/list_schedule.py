"""Schedule: reorder a tile program so that the engines work at the same time.

List scheduling (Graham 1969): engines, bus and memories are simulated with the durations of the timing rules; among the
ops whose inputs exist, the one that can start first goes next (the earlier one on a tie). Loads therefore run ahead as
far as memory allows, which is what double buffering and weight prefetch are. An op that needs new memory waits until
enough has been left.

**State.** `oldest`: the first op in the old order that is not placed yet. `missing[i]`: how many ops that i must follow
are not placed yet. `ready`: the ops with none missing, among the `window` from `oldest` on. Times: when each engine and
the bus are free, when the inputs of each op exist. Per memory: the buffers taken, and when each will be free again.

**Dependences kept.** i before j in the old order, both touching one byte of one buffer, at least one of them writing
(`tile.conflicts.predecessors`; the bytes of a view count from its first to its last, gaps included). Of buffers that
nobody writes (regions that are given) there are none. Two buffers count as two memories: those that get an address are
kept apart by the plan while both live, those with a given address are taken to lie apart.

**Legal order.** A permutation of the ops between two borders of the loop in which every dependence keeps its direction.
An op is ready only when all that it must follow is placed, so each order made here is one. There always is a next op:
what `oldest` must follow is older, hence placed, and the window begins with it.

**Why the meaning stays.** An op reads and writes memory, and nothing else of the machine: view registers and dependence
counts come after the schedule, with codegen. So each read finds the last write before it in the old order, also in the
new one (the fundamental theorem of dependence: Allen & Kennedy 2001, theorem 2.2). Times decide which legal order comes
out, never whether it is legal.

**Loops.** What stands before, in and after the loop is reordered by itself; no op crosses a border. The iterations are
executed one after the other in program order, each is a legal order of the same ops, so that the program before and
after mean the same, whatever passes from one iteration to the next. Engines overlap iterations all the same, within
their dependence counts; the prediction does not count on that: it takes an iteration's length times their number.

**Shares of memory.** Ops may fill the share `fill` of a memory (FILLS). An op that is the first to touch a buffer goes
ahead of older ones only if the bytes alive (in units of ALIGN) stay within that share at each op that it skips, with
all that has run ahead already. So at no op of the new order more is alive than the share, or than the most in the old
order if that is more; what lives across a border counts throughout. The rest of a memory is for gaps.

**Not proved.** That addresses exist: bytes alive within a memory are only a lower bound of what a plan needs, so the
search goes on with smaller shares until one is placed (autotune.py). That the order is the fastest, or the prediction
exact. And nothing here is verified by comparing the two orders: behind the pass, compiler/tile/verify_state.py looks at
the new program as at any other, the translation check replays it on symbols, and lint/races.py proves counts and
addresses of the image.
"""

from bisect import insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from compiler.emit.tile_sizes import WINDOW
from compiler.tile.conflicts import predecessors
from compiler.tile.cost import cycles
from compiler.tile.decisions import Schedule
from compiler.tile.ir import Buffer, Op, Program
from compiler.tile.state import TileState, made
from isa.architecture import DMA_ENGINES, QUEUES, Engine, Space
from isa.chip import Chip
from isa.timing import drain_cycles

ALIGN = 64
FILLS = (0.98, 0.95, 0.92, 0.86, 0.8)  # shares of a memory that instructions may fill: the rest is for gaps in the plan
NEVER = 1 << 60
# Engines by number: members of an enumeration are slow to look up, and every op that is ready asks, at every turn.
IS_DMA = tuple(engine in DMA_ENGINES for engine in QUEUES)

Cycles = Callable[[Op], int]


@dataclass(frozen=True)
class ScheduleOps:
    """Order the ops so that engines work at the same time, within the share `fill` of each memory."""

    name: ClassVar[str] = "schedule"
    fill: float = FILLS[0]
    in_turn: bool = False
    window: int = WINDOW

    def run(self, state: TileState) -> TileState:
        found = schedule(
            made(state.tiled).program,
            state.chip,
            lambda op: cycles(op, state.chip),
            self.fill,
            self.in_turn,
            self.window,
        )
        return replace(state, schedule=found)


def schedule(
    program: Program, chip: Chip, cycles: Cycles, fill: float = FILLS[0], in_turn: bool = False, window: int = WINDOW
) -> Schedule:
    """The same ops in an order that keeps the engines busy. Bits cannot change: every conflict keeps its order.

    What stands before, in and after the loop is scheduled by itself. Ops may fill the share `fill` of each memory.
    With `in_turn`, a load waits while an older one waits for memory, so that large blocks are not kept out by many
    small ones.
    """
    loop, count = program.loop, len(program.ops)
    borders = (0, count) if loop is None else (0, loop.first, loop.end, count)
    ops: list[Op] = []
    times: list[tuple[int, int]] = []
    total = end_of_part = 0
    for first, last in pairwise(borders):
        part = _scheduler(program, first, last, chip, cycles, fill, in_turn, window)
        order = part.order()
        times += [(end_of_part + part.start[i], end_of_part + part.finish[i]) for i in order]
        ops += [part.program.ops[i] for i in order]
        end = max((part.finish[i] for i in order), default=0)
        total += end * (loop.count if loop is not None and first == loop.first else 1)
        end_of_part += end
    return Schedule(Program(tuple(ops), loop), tuple(times), total)


def _scheduler(
    program: Program, first: int, end: int, chip: Chip, cycles: Cycles, fill: float, in_turn: bool, window: int
) -> "_Scheduler":
    """For ops first .. end of `program`. Buffers alive beyond these ops count as alive throughout."""
    crossing = frozenset(
        buffer for buffer, (a, b) in program.live.items() if a < end and b >= first and (a < first or b >= end)
    )
    part = Program(program.ops[first:end])
    sizes = ((Space.SRAM, chip.sram.bytes), (Space.ACC, chip.acc.bytes))
    memories = tuple(_Memory(part, space, int(size * fill), crossing) for space, size in sizes)
    return _Scheduler(part, chip, [cycles(op) for op in part.ops], window, memories, in_turn)


class _Memory:
    """One memory, seen in two ways.

    In the original order, `alive` bytes at each op: instructions issued early add to the ops they skip, so that what is
    left can always be finished in that order. In time: what is taken, and when each buffer that nobody needs any more
    becomes free."""

    def __init__(self, program: Program, space: Space, capacity: int, resident: frozenset[Buffer]) -> None:
        self.limit = capacity - sum(_bytes(b) for b in resident if b.space is space)
        self.alive: NDArray[np.int64] = np.zeros(len(program.ops) + 1, np.int64)
        self.first: dict[Buffer, int] = {}
        for buffer, (first, last) in program.live.items():
            if buffer.space is space and buffer not in resident:
                self.alive[first : last + 1] += _bytes(buffer)
                self.first[buffer] = first
        self.touched = [
            tuple({r.buffer: 0 for r in op.views if r is not None and r.buffer in self.first}) for op in program.ops
        ]
        self.readers: dict[Buffer, list[int]] = {}
        for index, buffers in enumerate(self.touched):
            for buffer in buffers:
                self.readers.setdefault(buffer, []).append(index)
        self.news = [list(buffers) for buffers in self.touched]  # of each op, what it would be the first to touch
        self.size = [sum(map(_bytes, buffers)) for buffers in self.touched]  # their bytes
        self.waiting = {buffer: len(indices) for buffer, indices in self.readers.items()}
        self.taken = self.now = 0
        self.last: dict[Buffer, int] = {}  # when what was issued so far leaves each buffer
        self.frees: list[tuple[int, int]] = []  # (time, bytes)

    def fits(self, index: int, oldest: int) -> bool:
        """Whether op `index` can go before all that are older and still waiting."""
        if not self.size[index]:
            return True
        first = min(self.first[b] for b in self.news[index])
        return first <= oldest or int(self.alive[oldest:first].max(initial=0)) + self.size[index] <= self.limit

    def available(self, index: int) -> int:
        """When there is room for what op `index` is the first to touch; NEVER if that is not known yet.

        Not before the last op that took memory: then the order of the ops is the order in which they take it, as the
        plan needs it.
        """
        size = self.size[index]
        if not size:
            return 0
        short = self.taken + size - self.limit
        if short <= 0:
            return self.now
        for time, freed in self.frees:
            short -= freed
            if short <= 0:
                return max(time, self.now)
        return NEVER

    def take(self, index: int, oldest: int, start: int, finish: int) -> None:
        """Op `index` has its place in the new order and in time."""
        if self.size[index]:
            self.now = max(self.now, start)
            for buffer in tuple(self.news[index]):
                self._touch(buffer, oldest)
        for buffer in self.touched[index]:
            self.waiting[buffer] -= 1
            self.last[buffer] = max(self.last.get(buffer, 0), finish)
            if not self.waiting[buffer]:
                insort(self.frees, (self.last[buffer], _bytes(buffer)))
        while self.frees and self.frees[0][0] <= self.now:
            self.taken -= self.frees.pop(0)[1]

    def _touch(self, buffer: Buffer, oldest: int) -> None:
        """A buffer takes its memory, and is news to nobody any more."""
        size = _bytes(buffer)
        self.taken += size
        self.alive[oldest : self.first[buffer]] += size  # nothing if it is not early
        for index in self.readers[buffer]:
            self.news[index].remove(buffer)
            self.size[index] -= size


def _bytes(buffer: Buffer) -> int:
    return -(-buffer.bytes // ALIGN) * ALIGN


@dataclass
class _Scheduler:
    program: Program
    chip: Chip
    cycles: list[int]
    window: int
    memories: tuple[_Memory, ...]
    in_turn: bool = False
    bus_free_at: int = 0
    start: list[int] = field(default_factory=list)
    finish: list[int] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)  # when the inputs of each op exist
    engines: list[int] = field(default_factory=list)  # of each op, as its number in QUEUES
    dispatched: int = 0  # when dispatch has come to the end of the new order so far

    def __post_init__(self) -> None:
        self.free_at = [0] * len(QUEUES)
        # when the last instructions of each engine have finished
        self.queued = [deque[int](maxlen=getattr(self.chip.queues, engine.value)) for engine in QUEUES]

    def order(self) -> list[int]:
        """Indices of the ops in their new order; their times are in `start` and `finish`."""
        ops = self.program.ops
        number = {engine: n for n, engine in enumerate(QUEUES)}
        self.engines = [number[op.row.engine] for op in ops]
        before = predecessors(ops)
        after: list[list[int]] = [[] for _ in ops]
        missing = [len(b) for b in before]
        for index, earlier in enumerate(before):
            for other in earlier:
                after[other].append(index)
        self.start, self.finish, self.inputs = ([0] * len(ops) for _ in range(3))
        done = [False] * len(ops)
        seen = min(self.window, len(ops))
        ready = [i for i in range(seen) if not missing[i]]
        oldest, result = 0, []
        while oldest < len(ops):
            index = self._pick(ready, oldest)
            ready.remove(index)
            self._issue(index, oldest)
            done[index] = True
            result.append(index)
            for later in after[index]:
                missing[later] -= 1
                self.inputs[later] = max(self.inputs[later], self.finish[index])
                if not missing[later] and later < seen:
                    ready.append(later)
            while oldest < len(ops) and done[oldest]:
                oldest += 1
            while seen < min(oldest + self.window, len(ops)):
                if not missing[seen]:
                    ready.append(seen)
                seen += 1
        return result

    def _pick(self, ready: list[int], oldest: int) -> int:
        """The ready op that can start first and fits in memory; if all wait for memory the oldest, for which there
        always is some."""
        engines, inputs = self.engines, self.inputs
        free = [self._engine_free(engine) for engine in range(len(QUEUES))]
        best, found, turn = NEVER, oldest, self._turn(ready, free) if self.in_turn else NEVER
        starts = [(inputs[i] if inputs[i] > free[engines[i]] else free[engines[i]], i) for i in ready]
        starts.sort()
        for start, index in starts:
            if start >= best:
                break
            if index > turn and IS_DMA[engines[index]]:
                continue
            start = self._with_memory(start, index)
            if start < best and (index == oldest or all(m.fits(index, oldest) for m in self.memories)):
                best, found = start, index
        return found

    def _turn(self, ready: list[int], free: Sequence[int]) -> int:
        """The oldest load that could start but for memory; NEVER if there is none."""
        for index in sorted(i for i in ready if IS_DMA[self.engines[i]]):
            start = max(self.inputs[index], free[self.engines[index]])
            if self._with_memory(start, index) > start:
                return index
        return NEVER

    def _with_memory(self, start: int, index: int) -> int:
        """When an op that could otherwise start at `start` has the memory that it is the first to touch."""
        for memory in self.memories:
            if memory.size[index]:
                start = max(start, memory.available(index))
        return start

    def _engine_free(self, engine: int) -> int:
        """When the next instruction of an engine could start if inputs and memory were no matter.

        Instructions are dispatched in order, and a full queue holds all of them up.
        """
        queue, free = self.queued[engine], max(self.free_at[engine], self.dispatched)
        if len(queue) == queue.maxlen:
            free = max(free, queue[0])
        return max(free, self.bus_free_at) if IS_DMA[engine] else free

    def _issue(self, index: int, oldest: int) -> None:
        """Occupy the engine from the earliest start."""
        engine = self.engines[index]
        unhindered = max(self.inputs[index], self._engine_free(engine))
        start = self._with_memory(unhindered, index)
        if start >= NEVER:
            start = unhindered
        queue = self.queued[engine]
        if len(queue) == queue.maxlen:
            self.dispatched = max(self.dispatched, queue[0])
        end = start + self.cycles[index]
        latency = drain_cycles(self.chip.mxu) if QUEUES[engine] is Engine.MXU else 0
        if IS_DMA[engine]:
            self.bus_free_at, latency = end, self.chip.dram.latency_cycles
        self.free_at[engine] = end
        queue.append(end + latency)
        self.start[index], self.finish[index] = start, end + latency
        for memory in self.memories:
            memory.take(index, oldest, start, end + latency)
