"""When each instruction runs: the rules of docs/timing.md on a whole program. Needs no data, so it is fast.

    timeline = simulate(image)      timeline.cycles      timeline.start[i], timeline.end[i]

Instructions only wait for earlier instructions, so all times follow from one another, in any order of evaluation,
except on the bus: there a later instruction can slow an earlier one down. So everything that is determined is settled
first; whatever is then still open waits for a transfer that has not ended, and it is safe to move the bus to its next
event.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from emulator.timing.bus import Bus
from emulator.timing.timeline import CTL, Timeline
from isa.architecture import DMA_ENGINES, NO_WAIT, QUEUES, Engine
from isa.chip import Chip
from isa.image.image import Image
from isa.replay import Dispatch, trace
from isa.timing import DEFAULT, Occupancy, Options, occupancy

_NUMBER = {engine: i for i, engine in enumerate((*QUEUES, Engine.CTL))}
_DMA = tuple(QUEUES.index(engine) for engine in DMA_ENGINES)
_COMPUTE = tuple(q for q in range(len(QUEUES)) if q not in _DMA)
_EVERYTHING = (1 << len(QUEUES)) - 1
_PLAIN = Occupancy(busy=1)


def simulate(
    image: Image,
    chip: Chip | None = None,
    options: Options = DEFAULT,
    entry: str | None = None,
    values: Mapping[str, int] | None = None,
) -> Timeline:
    """The timeline of one launch. `values` gives scalar arguments, which otherwise take their maximum. Raises
    ReplayError."""
    return simulate_instructions(list(trace(image, entry, values, control=True)), chip or image.chip, options)


def simulate_instructions(instructions: Sequence[Dispatch], chip: Chip, options: Options = DEFAULT) -> Timeline:
    """The timeline of instructions in dispatch order, control instructions included."""
    run = _Run(_fixed(instructions, chip, options), chip)
    run.settle()
    while run.bus.advance():
        for queue, at in run.bus.finished:
            run.left_bus(queue, at)
        run.settle()
    assert run.next == len(instructions) and all(len(e) == len(p) for e, p in zip(run.ends, run.placed, strict=True)), (
        "an instruction never ran"
    )
    return run.timeline(instructions, options)


class _Fixed(NamedTuple):
    """What does not depend on time: engine, cost and awaited (queue, number of instructions) of each instruction."""

    engine: list[int]
    cost: list[Occupancy]
    needs: list[list[tuple[int, int]]]


def _fixed(instructions: Sequence[Dispatch], chip: Chip, options: Options) -> _Fixed:
    costs: dict[object, tuple[object, Occupancy]] = {}
    fixed = _Fixed([], [], [])
    issued = [0] * len(QUEUES)
    for instruction in instructions:
        inst = instruction.inst
        row = inst.row
        queue = _NUMBER[row.engine]
        cost = _PLAIN
        if queue != CTL or instruction.views:
            key: object = id(instruction.operands)
            if queue in _DMA:  # the only cost that depends on where views point
                key = (key, *((v.space, v.dtype, v.rs, v.ps, v.cs) for v in instruction.views.values()))
            known = costs.get(key)
            if known is None:
                known = costs[key] = (
                    instruction.operands,
                    occupancy(instruction, chip, options),
                )  # the operands are kept, so that their id stays theirs
            cost = known[1]
        needs = [(q, issued[q] - n) for q, n in enumerate(inst.deps) if n != NO_WAIT and issued[q] > n]
        if mask := row.drained(instruction.operands):
            needs += [(q, count) for q, count in enumerate(issued) if count and mask >> q & 1]
        fixed.engine.append(queue)
        fixed.cost.append(cost)
        fixed.needs.append(needs)
        if queue != CTL:
            issued[queue] += 1
    return fixed


class _Run:
    """Times found so far. `placed` has the dispatched instructions of each queue, `ends` the completions known, `heads`
    the next instruction to start."""

    def __init__(self, fixed: _Fixed, chip: Chip) -> None:
        count = len(fixed.engine)
        self.fixed, self.chip, self.bus = fixed, chip, Bus(chip)
        self.depths = [getattr(chip.queues, engine.value) for engine in QUEUES]
        self.placed: list[list[int]] = [[] for _ in QUEUES]
        self.ends: list[list[int]] = [[] for _ in QUEUES]
        self.heads = [0] * len(QUEUES)
        self.load_free = [0] * len(QUEUES)
        self.work_free = [0] * len(QUEUES)
        self.next = self.clock = 0
        self.dispatch, self.ready, self.start, self.work_start, self.work_end, self.end = (
            [0] * count for _ in range(6)
        )

    def settle(self) -> None:
        """Find every time that does not depend on the bus's future."""
        progress = True
        while progress:
            progress = self._dispatch()
            for queue in _COMPUTE:
                if self.heads[queue] < len(self.placed[queue]):
                    progress |= self._compute(queue)
            for queue in _DMA:
                if self.heads[queue] < len(self.placed[queue]):
                    progress |= self._request(queue)

    def _holds(self, index: int) -> int | None:
        """When the counts of an instruction hold, or None if that is not known yet."""
        at = 0
        for queue, number in self.fixed.needs[index]:
            ends = self.ends[queue]
            if len(ends) < number:
                return None
            if ends[number - 1] > at:
                at = ends[number - 1]
        return at

    def _dispatch(self) -> bool:
        engines, needs, first, total = self.fixed.engine, self.fixed.needs, self.next, len(self.fixed.engine)
        while self.next < total:
            index, clock = self.next, self.clock
            queue = engines[index]
            if queue == CTL:
                at = self._holds(index) if needs[index] else clock
                if at is None:
                    break
                at = max(at, clock)
                self.clock = at + self.fixed.cost[index].busy
                self.ready[index] = clock
                self.start[index] = self.work_start[index] = at
                self.work_end[index] = self.end[index] = self.clock
            else:
                full = len(self.placed[queue]) - self.depths[queue]  # that instruction must have completed
                if full >= len(self.ends[queue]):
                    break
                at = max(clock, self.ends[queue][full]) if full >= 0 else clock
                self.clock = at + 1
                self.placed[queue].append(index)
            self.dispatch[index] = at
            self.next += 1
        return self.next > first

    def _compute(self, queue: int) -> bool:
        """Start as many instructions of an engine as are determined."""
        placed, first = self.placed[queue], self.heads[queue]
        while self.heads[queue] < len(placed):
            index = placed[self.heads[queue]]
            holds = self._holds(index)
            if holds is None:
                break
            load, busy, last, latency, blocking, _ = self.fixed.cost[index]
            ready = max(self.dispatch[index] + 1, holds)
            start = max(ready, self.load_free[queue])
            work_start = max(start + load, self.work_free[queue])
            work_end = work_start + busy
            end = work_end + latency
            self.load_free[queue] = end if blocking else work_start + last
            self.work_free[queue] = end if blocking else work_end
            self._record(queue, index, ready, start, work_start, work_end, end)
        return self.heads[queue] > first

    def _request(self, queue: int) -> bool:
        """Ask for the bus for the next transfer of a queue, unless one is there already."""
        placed, first = self.placed[queue], self.heads[queue]
        while self.heads[queue] < len(placed) and not self.bus.holds(queue):
            index = placed[self.heads[queue]]
            holds = self._holds(index)
            if holds is None:
                break
            self.ready[index] = max(self.dispatch[index] + 1, holds)
            start = max(self.ready[index], self.work_free[queue])
            if self.fixed.cost[index].bytes:
                self.start[index] = start
                self.bus.request(queue, index, start, self.fixed.cost[index].bytes)
                return True
            self.work_free[queue] = start
            self._record(queue, index, self.ready[index], start, start, start, start + self.fixed.cost[index].latency)
        return self.heads[queue] > first

    def left_bus(self, queue: int, at: int) -> None:
        index = self.placed[queue][self.heads[queue]]
        self.work_free[queue] = at
        start = self.start[index]
        self._record(queue, index, self.ready[index], start, start, at, at + self.fixed.cost[index].latency)

    def _record(self, queue: int, index: int, ready: int, start: int, work_start: int, work_end: int, end: int) -> None:
        self.ready[index], self.start[index], self.end[index] = ready, start, end
        self.work_start[index], self.work_end[index] = work_start, work_end
        self.ends[queue].append(end)
        self.heads[queue] += 1

    def timeline(self, instructions: Sequence[Dispatch], options: Options) -> Timeline:
        room, previous = np.full(len(instructions), -1, np.int64), np.full(len(instructions), -1, np.int64)
        for placed, depth in zip(self.placed, self.depths, strict=True):
            previous[placed[1:]] = placed[:-1]
            room[placed[depth:]] = placed[: max(len(placed) - depth, 0)]
        dispatch, ready, start, work_start, work_end, end = (
            np.array(t, np.int64)
            for t in (self.dispatch, self.ready, self.start, self.work_start, self.work_end, self.end)
        )
        return Timeline(
            instructions=instructions,
            chip=self.chip,
            options=options,
            engine=np.array(self.fixed.engine, np.int8),
            dispatch=dispatch,
            ready=ready,
            start=start,
            work_start=work_start,
            work_end=work_end,
            end=end,
            bytes=np.array([cost.bytes for cost in self.fixed.cost], np.int64),
            waits=[tuple(self.placed[q][n - 1] for q, n in needs) for needs in self.fixed.needs],
            room=room,
            previous=previous,
            bus=np.array(self.bus.history, np.int64).reshape(-1, 5),
            cycles=max([self.clock, *self.end]),
        )
