"""Overlapping execution in a random order that the dependence counts allow: what a race would show on the chip, made
visible.

    machine.run(code, adversarial=7)        same bits as machine.run(code) for every seed, unless the program has a race

Instructions are dispatched in program order; an instruction's operands are snapshots of its dispatch. An instruction
starts when its counts hold and, on MXU, VEC and ACT, when its predecessor on the engine is complete; DMA instructions
start and complete in the order of their queue but any number may be under way. Real instructions read and write all the
time while they run. Here each takes one of the extremes, by lot: all at its start, all at its completion, or reads at
its start and writes at its completion.

A seed is a strategy: one engine in turn (seed modulo 6) is held back as long as anything else can move, the others have
random priorities that now and then change. Holding back the engine that a missing wait was for is what uncovers the
race.
"""

from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import Final

from emulator.context import Call, Core, Probe
from emulator.decoded import Decoded, bind, bind_sources, bind_targets, resolve
from isa.architecture import DMA_ENGINES, NO_WAIT, QUEUES, WORD_BYTES, Engine
from isa.fields import Access

COUNT: Final = len(QUEUES)
DISPATCH: Final = COUNT  # the dispatcher takes part in the lottery like an engine
NUMBER: Final = {engine: number for number, engine in enumerate(QUEUES)}
OVERLAPS: Final = tuple(engine in DMA_ENGINES for engine in QUEUES)
ATONCE, LATE, SPLIT = range(3)  # when an instruction reads and writes
CHANGE_PRIORITIES: Final = 0.02
ANYTHING_GOES: Final = 0.05


@dataclass(slots=True)
class _Flight:
    """A dispatched instruction on its way. `needs` are the completed instructions per engine that it waits for."""

    index: int
    instruction: Decoded
    call: Call | None
    indices: tuple[int, ...]
    needs: tuple[tuple[int, int], ...]
    when: int = ATONCE


@dataclass(slots=True)
class _Queue:
    waiting: deque[_Flight] = field(default_factory=deque)
    running: deque[_Flight] = field(default_factory=deque)
    issued: int = 0
    completed: int = 0


class Overlapped:
    """Takes the instructions in program order and executes them in another one. `at` is the instruction that is being
    executed."""

    def __init__(self, core: Core, seed: int, probe: Probe | None = None, depth: int | None = None) -> None:
        self._core, self._probe, self._depth = core, probe, depth
        self._random = Random(seed)
        self._queues = [_Queue() for _ in QUEUES]
        self._held_back = seed % COUNT
        self._priority = [0.0] * (COUNT + 1)
        self._reshuffle()
        self.at: int | None = None

    def dispatch(self, instruction: Decoded, index: int) -> None:
        """Let other instructions move for as long as the lottery says, then dispatch this one. `halt` ends when all is
        complete."""
        needs = self._needs(instruction)
        if instruction.engine is Engine.CTL:
            self._until(needs, full=None)
            self._control(instruction)
            return
        queue = self._queues[NUMBER[instruction.engine]]
        self._until((), full=queue)
        flight = _Flight(
            index,
            instruction,
            resolve(self._core, instruction),
            tuple(self._core.indices),
            needs,
            self._random.randrange(3),
        )
        queue.waiting.append(flight)
        queue.issued += 1

    def _needs(self, instruction: Decoded) -> tuple[tuple[int, int], ...]:
        """For each engine with a count: how many of its instructions must be complete."""
        issued = [queue.issued for queue in self._queues]
        counts = instruction.inst.deps
        return tuple((i, issued[i] - n) for i, n in enumerate(counts) if n != NO_WAIT and issued[i] > n)

    def _control(self, instruction: Decoded) -> None:
        mask = instruction.inst.row.drained(instruction.operands)
        self._until(tuple((i, queue.issued) for i, queue in enumerate(self._queues) if mask >> i & 1), full=None)
        call = resolve(self._core, instruction)
        if call is not None:
            bind(self._core, instruction, call)
            instruction.handler(self._core, call)

    def _until(self, needs: tuple[tuple[int, int], ...], full: _Queue | None) -> None:
        """Move instructions until the dispatcher can go on, and draws the lot."""
        while True:
            can_dispatch = self._holds(needs) and (
                full is None or self._depth is None or len(full.waiting) < self._depth
            )
            movable = [i for i in range(COUNT) if self._can_start(i) or self._queues[i].running]
            if can_dispatch:
                movable.append(DISPATCH)
            choice = self._choose(movable)
            if choice == DISPATCH:
                return
            self._move(choice)

    def _holds(self, needs: tuple[tuple[int, int], ...]) -> bool:
        return all(self._queues[i].completed >= least for i, least in needs)

    def _can_start(self, number: int) -> bool:
        queue = self._queues[number]
        if not queue.waiting or (queue.running and not OVERLAPS[number]):
            return False
        return self._holds(queue.waiting[0].needs)

    def _choose(self, movable: list[int]) -> int:
        if self._random.random() < CHANGE_PRIORITIES:
            self._reshuffle()
        if self._random.random() < ANYTHING_GOES:
            return self._random.choice(movable)
        return max(movable, key=self._priority.__getitem__)

    def _reshuffle(self) -> None:
        self._priority = [self._random.random() for _ in self._priority]
        self._priority[self._held_back] = -1.0

    def _move(self, number: int) -> None:
        """Start or complete one instruction of a queue; where both are possible, by lot."""
        queue = self._queues[number]
        if self._can_start(number) and (not queue.running or self._random.random() < 0.7):
            flight = queue.waiting.popleft()
            queue.running.append(flight)
            self._start(flight)
        else:
            flight = queue.running.popleft()
            self._finish(flight)
            queue.completed += 1

    def _start(self, flight: _Flight) -> None:
        call = flight.call
        if call is None:
            return
        self.at = flight.index
        if flight.when == ATONCE:
            bind(self._core, flight.instruction, call)
            self._execute(flight, call)
        elif flight.when == SPLIT:
            bind_sources(self._core, flight.instruction, call)
            lazy = {operand.field.name for operand in flight.instruction.views if operand.lazy}
            for operand in flight.instruction.views:
                name = operand.field.name
                if (
                    operand.access is Access.R
                    and name not in lazy
                    and self._core.memory.store_of(call.views[name]).pieces is None
                ):
                    call.blocks[name] = call.blocks[name].copy()
        self.at = None

    def _finish(self, flight: _Flight) -> None:
        call = flight.call
        if call is None or flight.when == ATONCE:
            return
        self.at = flight.index
        if flight.when == LATE:
            bind(self._core, flight.instruction, call)
        else:
            bind_targets(self._core, flight.instruction, call)
        self._execute(flight, call)
        self.at = None

    def _execute(self, flight: _Flight, call: Call) -> None:
        flight.instruction.handler(self._core, call)
        if self._probe is not None:
            self._probe(
                flight.index * WORD_BYTES,
                flight.indices,
                flight.instruction.inst,
                call.operands,
                call.views,
                self._core.memory,
            )
