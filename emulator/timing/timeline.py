"""What the timing mode knows after a run: for every dispatched instruction when it was dispatched, ready, started and
done."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isa.architecture import QUEUES, Engine
from isa.chip import Chip
from isa.replay import Dispatch
from isa.timing import Options

Cycles = NDArray[np.int64]
CTL = len(QUEUES)  # the engine number of instructions that dispatch executes itself
ENGINES = (*QUEUES, Engine.CTL)


@dataclass(frozen=True, eq=False)
class Timeline:
    """One entry per dispatched instruction, in program order; times in cycles.

    dispatch ≤ ready ≤ start ≤ work_start ≤ work_end ≤ end. `ready`: dispatched, and its counts hold. `start`: at the
    head of its queue too. Between `work_start` and `work_end` it has its engine (MXU rows stream, DMA instructions are
    on the bus), at `end` dependence counts see it complete. For CTL instructions `ready` is when dispatch got to the
    instruction.
    """

    instructions: Sequence[Dispatch]
    chip: Chip
    options: Options
    engine: NDArray[np.int8]  # index into ENGINES
    dispatch: Cycles
    ready: Cycles
    start: Cycles
    work_start: Cycles
    work_end: Cycles
    end: Cycles
    bytes: Cycles  # on the bus, whole bursts
    waits: Sequence[tuple[int, ...]]  # instructions whose completion each instruction's counts (or fence) ask for
    room: Cycles  # the instruction whose completion made room in the queue, or -1
    previous: Cycles  # the instruction before it in its queue, or -1
    bus: Cycles  # rows (from, to, instruction of ldw, lda, sto): who shared the bus when; -1: nobody
    cycles: int

    @property
    def pc(self) -> Cycles:
        return np.array([instruction.pc for instruction in self.instructions], np.int64)

    @property
    def indices(self) -> Cycles:
        """Loop indices, one column per level."""
        return np.array([instruction.indices for instruction in self.instructions], np.int64)

    @property
    def seconds(self) -> float:
        return self.cycles / self.chip.clock_hz

    def of(self, engine: Engine) -> NDArray[np.intp]:
        """The instructions of an engine, in order."""
        return np.flatnonzero(self.engine == ENGINES.index(engine))

    def busy(self, engine: Engine) -> int:
        """Cycles in which the engine works; those of one engine never overlap."""
        mine = self.of(engine)
        return int((self.work_end[mine] - self.work_start[mine]).sum())

    def bus_busy(self) -> int:
        """Cycles in which at least one transfer is on the bus."""
        return int((self.bus[:, 1] - self.bus[:, 0]).sum())
