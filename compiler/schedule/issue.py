"""The simulation behind the list scheduler: which op goes next, and when. Written for numba, runs without it (`jit`).

Engines are numbers in the order of QUEUES, memories 0 and 1 (SPACES of list_schedule.py), buffers numbers of a part of
the program. Lists of lists are flat: those of op i are flat[first[i]:first[i + 1]].
"""

from typing import NamedTuple

from compiler.plan.jit import Vector, compiled, vector

NEVER = 1 << 60


class Work(NamedTuple):
    """What is to be ordered: for each op its engine, its busy cycles, how many ops it must follow, which follow it, and
    which buffers it touches."""

    engines: Vector
    cycles: Vector
    missing: Vector  # counts down to 0
    later: Vector  # flat
    later_first: Vector
    buffers: Vector  # flat
    buffers_first: Vector


class Memories(NamedTuple):
    """Two memories, each seen in two ways.

    In the original order, `alive` bytes at each op, those of memory 1 behind those of memory 0: instructions issued early
    add to the ops they skip, so that what is left can always be finished in that order. In time: what is taken, and when
    each buffer that nobody needs any more becomes free."""

    limit: Vector  # of each memory, in bytes
    alive: Vector
    memory: Vector  # of each buffer
    bytes: Vector  # of each buffer
    first: Vector  # of each buffer, the op that touches it first in the original order
    readers: Vector  # flat: the ops that touch a buffer
    readers_first: Vector
    waiting: Vector  # of each buffer, how many ops that touch it are not placed yet
    last: Vector  # of each buffer, when what was placed so far leaves it
    new: Vector  # of each buffer, whether nothing that touches it is placed yet
    size: Vector  # of each op, bytes that it would be the first to touch: in memory 0 at 2i, in memory 1 at 2i + 1
    taken: Vector  # of each memory, now
    now: Vector  # of each memory, when the last op took some
    free_times: Vector  # when bytes become free, in order of time; those of memory 1 behind those of memory 0
    free_bytes: Vector
    free_first: Vector  # of each memory, where in these two the times to come begin
    free_end: Vector  # and end


class Machine(NamedTuple):
    """The engines, and how far dispatch has come."""

    dma: Vector  # of each engine, whether it moves data over the one bus
    latency: Vector  # of each engine, cycles from its last busy one until results are there
    depth: Vector  # of each engine, how many instructions its queue holds
    queued: Vector  # when those in the queue of an engine have finished: a ring of `depth`, one engine after the other
    queued_first: Vector  # of each engine, where its ring begins
    given: Vector  # of each engine, how many instructions it was given
    free: Vector  # of each engine, when it has done all that it was given
    clock: Vector  # [0]: when the bus is free, [1]: when dispatch has come to the end of the new order so far


@compiled()
def engine_free(machine: Machine, engine: int) -> int:
    """When the next instruction of an engine could start if inputs and memory were no matter.

    Instructions are dispatched in order, and a full queue holds all of them up.
    """
    free = max(machine.free[engine], machine.clock[1])
    depth, count = machine.depth[engine], machine.given[engine]
    if count >= depth:
        free = max(free, machine.queued[machine.queued_first[engine] + count % depth])
    return max(free, machine.clock[0]) if machine.dma[engine] else free


@compiled()
def with_memory(memories: Memories, op: int, start: int) -> int:
    """When an op that could otherwise start at `start` has the memory that it is the first to touch; NEVER if that is
    not known yet.

    Not before the last op that took memory: then the order of the ops is the order in which they take it, as the plan
    needs it.
    """
    for m in range(2):
        size = memories.size[2 * op + m]
        if not size:
            continue
        short = memories.taken[m] + size - memories.limit[m]
        start = max(start, memories.now[m])
        at = memories.free_first[m]
        while short > 0:
            if at == memories.free_end[m]:
                return NEVER
            short -= memories.free_bytes[at]
            if short <= 0:
                start = max(start, memories.free_times[at])
            at += 1
    return start


@compiled()
def fits(work: Work, memories: Memories, op: int, oldest: int) -> bool:
    """Whether op can go before all that are older and still waiting."""
    ops = len(work.engines)
    for m in range(2):
        size = memories.size[2 * op + m]
        if not size:
            continue
        first = ops
        for at in range(work.buffers_first[op], work.buffers_first[op + 1]):
            buffer = work.buffers[at]
            if memories.memory[buffer] == m and memories.new[buffer]:
                first = min(first, memories.first[buffer])
        for skipped in range(m * ops + oldest, m * ops + first):
            if memories.alive[skipped] + size > memories.limit[m]:
                return False
    return True


@compiled()
def take(work: Work, memories: Memories, op: int, oldest: int, start: int, finish: int) -> None:
    """Op has its place in the new order and in time."""
    ops = len(work.engines)
    for m in range(2):
        if memories.size[2 * op + m]:
            memories.now[m] = max(memories.now[m], start)
    for at in range(work.buffers_first[op], work.buffers_first[op + 1]):
        buffer = work.buffers[at]
        m, size = memories.memory[buffer], memories.bytes[buffer]
        if memories.new[buffer]:  # takes its memory, and is news to nobody any more
            memories.new[buffer] = 0
            memories.taken[m] += size
            for skipped in range(m * ops + oldest, m * ops + memories.first[buffer]):  # none if it is not early
                memories.alive[skipped] += size
            for reader in range(memories.readers_first[buffer], memories.readers_first[buffer + 1]):
                memories.size[2 * memories.readers[reader] + m] -= size
        memories.waiting[buffer] -= 1
        memories.last[buffer] = max(memories.last[buffer], finish)
        if not memories.waiting[buffer]:
            place = memories.free_end[m]
            while place > memories.free_first[m] and memories.free_times[place - 1] > memories.last[buffer]:
                memories.free_times[place] = memories.free_times[place - 1]
                memories.free_bytes[place] = memories.free_bytes[place - 1]
                place -= 1
            memories.free_times[place], memories.free_bytes[place] = memories.last[buffer], size
            memories.free_end[m] += 1
    for m in range(2):
        while memories.free_first[m] < memories.free_end[m]:
            if memories.free_times[memories.free_first[m]] > memories.now[m]:
                break
            memories.taken[m] -= memories.free_bytes[memories.free_first[m]]
            memories.free_first[m] += 1


@compiled()
def pick(
    work: Work,
    memories: Memories,
    machine: Machine,
    inputs: Vector,
    ready: Vector,
    count: int,
    oldest: int,
    in_turn: bool,
) -> int:
    """The place in `ready` (its first `count`) of the op that can start first and fits in memory, the first of them
    without a thought for memory, then the oldest; if all wait for memory the oldest of all, for which there always is
    some. With `in_turn`, no load that is younger than one that waits for nothing but memory."""
    turn = NEVER
    if in_turn:
        for at in range(count):
            op = ready[at]
            if machine.dma[work.engines[op]] and op < turn:
                start = max(inputs[op], engine_free(machine, work.engines[op]))
                if with_memory(memories, op, start) > start:
                    turn = op
    best, best_plain, found = NEVER, NEVER, -1
    for at in range(count):
        op = ready[at]
        if op == oldest and found < 0:
            found = at
        if op > turn and machine.dma[work.engines[op]]:
            continue
        plain = max(inputs[op], engine_free(machine, work.engines[op]))
        if plain > best:
            continue
        start = with_memory(memories, op, plain)
        if start > best or start == NEVER:
            continue
        if start == best and (plain > best_plain or (plain == best_plain and op > ready[found])):
            continue
        if op == oldest or fits(work, memories, op, oldest):
            best, best_plain, found = start, plain, at
    return found


@compiled()
def order(
    work: Work,
    memories: Memories,
    machine: Machine,
    window: int,
    in_turn: bool,
    start: Vector,
    finish: Vector,
    result: Vector,
) -> None:
    """Fills `result` with the ops in their new order, `start` and `finish` with the times of each."""
    ops = len(work.engines)
    inputs, ready, done = vector(ops), vector(ops), vector(ops)
    oldest = seen = count = 0
    for placed in range(ops):
        while seen < min(oldest + window, ops):  # the window moves on
            if not work.missing[seen]:
                ready[count] = seen
                count += 1
            seen += 1
        at = pick(work, memories, machine, inputs, ready, count, oldest, in_turn)
        op = ready[at]
        count -= 1
        ready[at] = ready[count]
        # ---- occupy the engine from the earliest start
        engine = work.engines[op]
        unhindered = max(inputs[op], engine_free(machine, engine))
        begin = with_memory(memories, op, unhindered)
        if begin == NEVER:
            begin = unhindered
        depth, given = machine.depth[engine], machine.given[engine]
        slot = machine.queued_first[engine] + given % depth
        if given >= depth:
            machine.clock[1] = max(machine.clock[1], machine.queued[slot])
        machine.given[engine] += 1
        machine.free[engine] = begin + work.cycles[op]
        if machine.dma[engine]:
            machine.clock[0] = machine.free[engine]
        start[op], finish[op] = begin, machine.free[engine] + machine.latency[engine]
        machine.queued[slot] = finish[op]
        take(work, memories, op, oldest, begin, finish[op])
        # ---- what it leaves behind
        result[placed] = op
        done[op] = 1
        for place in range(work.later_first[op], work.later_first[op + 1]):
            later = work.later[place]
            work.missing[later] -= 1
            inputs[later] = max(inputs[later], finish[op])
            if not work.missing[later] and later < seen:
                ready[count] = later
                count += 1
        while oldest < ops and done[oldest]:
            oldest += 1
