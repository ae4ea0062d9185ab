"""Long loops without replaying every iteration: the first few, then the last two periods, if the iterations between are
proved by induction.

Which loops: those whose body changes no scalar and sets each view before it moves it (`isa.replay` decides; nested
loops are fine). Then every operand touches the same block one period later, moved by a constant number of bytes. Two
things are to be proved, and neither is assumed:

- what the instructions know of each other repeats (`is_steady`): one period later, every count is either the same
  instruction from before the loop or the corresponding instruction of the next period. What the next period then does
  is the same again, and so on up to the last.
- the bytes that moving operands reach in the iterations left out are as good as those of the iterations replayed
  (`lint.sweeps`).

Otherwise the loop is replayed iteration by iteration, up to a limit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

FIRST, LAST = 24, 2  # periods replayed at both ends: some to warm up, then as far back as counts reach
MAX_PERIOD = 64
_RECENT = 6  # a count reaches this many instructions back
_COMPARED = (
    10  # periods: the instructions within reach of a count are at most so many periods old, and name none much older
)

Known = list[int]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the dispatcher remembers at the end of an iteration: instructions issued per engine, and those known to be
    complete."""

    issued: Known
    dispatched: Known


def skipped(count: int, period: int) -> tuple[int, int] | None:
    """(iteration after which to jump, iterations to leave out), or None for a loop too short to gain from it."""
    first = FIRST * period
    leave_out = (count - first - LAST * period) // period * period
    return (first, leave_out) if leave_out > 0 else None


def period_of(steps: Sequence[tuple[int, int]]) -> int:
    """Iterations after which all views are back, but for those that move on and on. `steps`: (div, mod) of views that
    move."""
    period = 1
    for div, mod in steps:
        period = math.lcm(period, div * (mod or 1))
    return period


def is_steady(start: Known, a: Snapshot, b: Snapshot, clocks: Sequence[Sequence[Known]]) -> bool:
    """Whether state `b` is state `a` one period later. `start`: instructions issued per engine when the loop began."""
    shift = [y - x for x, y in zip(a.issued, b.issued, strict=True)]

    oldest = [issued - _COMPARED * d - _RECENT for issued, d in zip(a.issued, shift, strict=True)]

    def corresponds(x: Known, y: Known) -> bool:
        """Each number is an instruction from before the loop, or an instruction of the loop, a period later."""
        return all((p == q and p <= s) or (p > s and q == p + d) for p, q, s, d in zip(x, y, start, shift, strict=True))

    def is_recent(x: Known) -> bool:
        """All that it names lies before the loop or in the part that is compared."""
        return all(p <= s or p > o for p, s, o in zip(x, start, oldest, strict=True))

    if not (corresponds(a.dispatched, b.dispatched) and is_recent(a.dispatched)):
        return False
    for queue, instructions in enumerate(clocks):
        compared = range(max(start[queue], oldest[queue]), a.issued[queue])
        followed = range(
            max(start[queue], a.issued[queue] - _RECENT - 1), b.issued[queue]
        )  # what the next period will look up
        if not all(corresponds(instructions[i], instructions[i + shift[queue]]) for i in compared) or not all(
            is_recent(instructions[i]) for i in followed
        ):
            return False
    return True
