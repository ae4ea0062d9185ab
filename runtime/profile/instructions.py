"""What a timing run says of each instruction of the program, however often it was executed.

An engine does one thing at a time. So of every engine with a queue the cycles of its instructions, and the cycles in
which it stood idle before each of them (their stalls), add up to the moment at which it is done. An instruction that
dispatch executes itself stalls while dispatch waits for others on its behalf.
"""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from emulator.timing.timeline import Timeline
from isa.architecture import QUEUES, WORD_BYTES, Engine
from runtime.profile.run import Run

_Numbers = NDArray[np.int64]
# Why an engine stands idle before an instruction: the stretches up to these moments of it, in order.
STALLS = {
    "dispatch": "until it was dispatched",
    "dependence": "waiting for what its counts ask for",
    "queue": "until it was at the head of its queue",
    "set-up": "of set-up: latency, weights, the bus",
}


class InstructionCycles(Struct, frozen=True):
    """Cycles of an instruction, over all its executions. `work`: it has its engine; `stall`: the engine stood idle
    before it, by cause in `causes`; `charged`: its share of the run's cycles. `waits_for`: the pc of the instruction that
    it waited for longest, -1 for none."""

    executed: int
    work: int
    stall: int
    causes: Mapping[str, int]
    waits_for: int
    charged: int


def by_instruction(run: Run) -> dict[int, InstructionCycles]:
    """By pc; instructions that were never executed are missing."""
    t, words = run.timeline, run.image.words
    at = t.pc // WORD_BYTES

    def total(values: _Numbers) -> list[int]:
        sums = np.zeros(words, np.int64)
        np.add.at(sums, at, values)
        return [int(v) for v in sums.tolist()]

    stretches = _stretches(t)
    charged = np.zeros(len(t.instructions), np.int64)
    for share in run.shares:
        charged[share.instruction] += share.cycles
    executed, work, own = total(np.ones_like(at)), total(t.work_end - t.work_start), total(charged)
    causes = {name: total(stretch) for name, stretch in zip(STALLS, stretches, strict=True)}
    blockers = _blockers(t, stretches[1])
    found = {}
    for number in np.unique(at).tolist():
        here = {name: counts[number] for name, counts in causes.items() if counts[number]}
        found[number * WORD_BYTES] = InstructionCycles(
            executed[number], work[number], sum(here.values()), here, blockers.get(number * WORD_BYTES, -1), own[number]
        )
    return found


def _stretches(t: Timeline) -> tuple[_Numbers, ...]:
    """The idle time before each instruction's work, cut at its dispatch, when its counts hold, and when it starts."""
    idle_from, held = np.zeros(len(t.instructions), np.int64), t.ready.copy()
    for engine in QUEUES:
        mine = t.of(engine)
        idle_from[mine[1:]] = np.maximum.accumulate(t.work_end[mine])[:-1]
    ctl = t.of(Engine.CTL)  # dispatch was busy with other instructions until it got there
    idle_from[ctl], held[ctl] = t.ready[ctl], t.start[ctl]
    moments = [idle_from, *(np.clip(m, idle_from, None) for m in (t.dispatch, held, t.start, t.work_start))]
    return tuple(np.maximum(late - early, 0) for early, late in pairwise(moments))


def _blockers(t: Timeline, waited: _Numbers) -> dict[int, int]:
    """By pc, the pc of the instruction whose end it waited for longest."""
    pcs = t.pc
    cycles: dict[tuple[int, int], int] = {}
    for number in np.flatnonzero(waited).tolist():
        if t.waits[number]:
            last = max(t.waits[number], key=lambda other: int(t.end[other]))
            key = int(pcs[number]), int(pcs[last])
            cycles[key] = cycles.get(key, 0) + int(waited[number])
    found: dict[int, int] = {}
    for (pc, other), _ in sorted(cycles.items(), key=lambda item: item[1]):
        found[pc] = other
    return found
