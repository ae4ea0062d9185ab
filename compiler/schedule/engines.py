"""Engines and the bus in time: when each instruction of a program completes, if what each must wait for is known.
Written for numba, runs without it (`jit`).

By the rules of docs/timing.md: dispatch is in order and stops at a full queue; an engine executes in order; the bus is
shared equally by the queues that have a transfer on it. So a transfer's end depends on transfers that begin later, and
times are found event by event.
"""

from typing import NamedTuple

from compiler.plan.jit import Vector, compiled, vector

QUEUES = 6
WHOLE = 6  # units of the bus in a cycle: a number that 1, 2 and 3 transfers share evenly
ABSENT, COMING, MOVING = 0, 1, 2  # a queue's transfer


class Instructions(NamedTuple):
    """In the order of dispatch: engine, cycles (see isa.timing.Occupancy), and what must have completed before."""

    engine: Vector
    load: Vector
    busy: Vector
    last: Vector
    latency: Vector
    blocking: Vector
    waits: Vector  # QUEUES of each: the last instruction of queue q that it waits for, by its number there; -1: none


class Progress(NamedTuple):
    """What is known so far. Lists of queue q begin at q * instructions."""

    placed: Vector  # the instructions of each queue
    ends: Vector  # when they complete
    ready: Vector  # of each instruction, when dispatch has handed it over
    given: Vector  # of each queue, how many were handed over
    ended: Vector  # and of how many the end is known
    load_free: Vector
    free: Vector
    state: Vector  # of each queue's transfer
    at: Vector  # when it comes to the bus
    left: Vector  # what is left of it, in units
    clock: Vector  # [0]: dispatch, [1]: the bus, [2]: how many instructions were handed over


@compiled()
def awaited(work: Instructions, known: Progress, index: int) -> int:
    """When an instruction has all that it waits for; -1 if that is not known yet."""
    count, at = len(work.engine), known.ready[index]
    for queue in range(QUEUES):
        number = work.waits[index * QUEUES + queue]
        if number >= known.ended[queue]:
            return -1
        if number >= 0:
            at = max(at, known.ends[queue * count + number])
    return at


@compiled()
def dispatch(work: Instructions, known: Progress, depths: Vector, words: int) -> bool:
    """Hand instructions over until one finds its queue full. Whether there was one."""
    count, before = len(work.engine), known.clock[2]
    while known.clock[2] < count:
        index = known.clock[2]
        queue = work.engine[index]
        full = known.given[queue] - depths[queue]  # that instruction must have completed
        if full >= known.ended[queue]:
            break
        if full >= 0:
            known.clock[0] = max(known.clock[0], known.ends[queue * count + full])
        known.clock[0] += words
        known.ready[index] = known.clock[0]
        known.placed[queue * count + known.given[queue]] = index
        known.given[queue] += 1
        known.clock[2] += 1
    return known.clock[2] > before


@compiled()
def execute(work: Instructions, known: Progress, queue: int, moves: bool) -> bool:
    """Find the times of a queue's next instructions; of one that `moves` data, when its transfer comes to the bus.
    Whether there was one."""
    count, found = len(work.engine), False
    while known.ended[queue] < known.given[queue] and known.state[queue] == ABSENT:
        index = known.placed[queue * count + known.ended[queue]]
        at = awaited(work, known, index)
        if at < 0:
            break
        found = True
        start = max(max(at, known.load_free[queue]) + work.load[index], known.free[queue])
        if moves and work.busy[index]:
            known.state[queue], known.at[queue] = COMING, start
            known.left[queue] = work.busy[index] * WHOLE
            break
        end = start + work.busy[index] + work.latency[index]
        known.load_free[queue] = end if work.blocking[index] else start + work.last[index]
        known.free[queue] = end if work.blocking[index] else start + work.busy[index]
        known.ends[queue * count + known.ended[queue]] = end
        known.ended[queue] += 1
    return found


@compiled()
def move(work: Instructions, known: Progress) -> bool:
    """Let the bus work until a transfer ends, or another comes. False if there is none."""
    count, moving, first, least = len(work.engine), 0, -1, -1
    for queue in range(QUEUES):
        if known.state[queue] == COMING and known.at[queue] <= known.clock[1]:
            known.state[queue] = MOVING
        if known.state[queue] == MOVING:
            moving += 1
            if least < 0 or known.left[queue] < least:
                least = known.left[queue]
        elif known.state[queue] == COMING and (first < 0 or known.at[queue] < first):
            first = known.at[queue]
    if not moving:
        if first >= 0:
            known.clock[1] = first
        return first >= 0
    share = WHOLE // moving
    step = -(-least // share)
    if first >= 0:
        step = min(step, first - known.clock[1])
    known.clock[1] += step
    for queue in range(QUEUES):
        if known.state[queue] == MOVING:
            known.left[queue] -= share * step
            if known.left[queue] <= 0:
                known.state[queue] = ABSENT
                index = known.placed[queue * count + known.ended[queue]]
                known.free[queue] = known.clock[1]
                known.load_free[queue] = 0
                known.ends[queue * count + known.ended[queue]] = known.clock[1] + work.latency[index]
                known.ended[queue] += 1
    return True


@compiled()
def run(work: Instructions, depths: Vector, moves: Vector, words: int) -> Vector:
    """When each instruction completes."""
    count = len(work.engine)
    known = Progress(
        vector(QUEUES * count),
        vector(QUEUES * count),
        vector(count),
        vector(QUEUES),
        vector(QUEUES),
        vector(QUEUES),
        vector(QUEUES),
        vector(QUEUES),
        vector(QUEUES),
        vector(QUEUES),
        vector(3),
    )
    more = True
    while more:
        progress = True
        while progress:
            progress = dispatch(work, known, depths, words)
            for queue in range(QUEUES):
                if execute(work, known, queue, moves[queue] > 0):
                    progress = True
        more = move(work, known)
    result = vector(count)
    for queue in range(QUEUES):
        for number in range(known.ended[queue]):
            result[known.placed[queue * count + number]] = known.ends[queue * count + number]
    return result
