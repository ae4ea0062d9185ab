"""Long loops without replaying every iteration: the first few, then the last two periods, if a steady state is proved.

Which loops: outermost ones whose body changes no scalar, sets each view before it moves it, and moves views only by a modulus (after one
period they are back) or through WEIGHTS and CONST, which nobody writes (there the first, second and last steps decide about
alignment and bounds). `shortcut` chooses the iterations; whether the state really repeats is not assumed but checked by
`is_steady`: one period later, everything that the race proof remembers is either the same word from before the loop or the
corresponding word of the next period. What the next period then does is the same again, and so on up to the last. If it
does not repeat, or anything at all is found, the program is replayed in full.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIRST, LAST = 14, 2  # periods replayed at both ends: some to warm up, then as far back as counts reach
_RECENT = 6  # a count reaches this many words back

Known = list[int]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the race proof remembers at the end of an iteration. `last` are the shadow arrays, copied."""

    issued: Known
    dispatched: Known
    last: Mapping[tuple[Any, ...], NDArray[np.int32]]  # by memory, reads or writes, engine
    defined: Mapping[tuple[Any, ...], NDArray[np.bool_]]


def skipped(count: int, period: int) -> tuple[int, int] | None:
    """(iteration after which to jump, iterations to leave out), or None for a loop too short to gain from it."""
    first = FIRST * period
    leave_out = (count - first - LAST * period) // period * period
    return (first, leave_out) if leave_out > 0 else None


def period_of(steps: Sequence[tuple[int, int, bool]]) -> int | None:
    """Iterations after which all views are back. `steps`: (div, mod, through read-only memory) of views that move; None: never."""
    period = 1
    for div, mod, read_only in steps:
        if not mod and not read_only:
            return None
        period = math.lcm(period, div * (mod or 1))
    return period if period <= 64 else None


def is_steady(start: Known, a: Snapshot, b: Snapshot, knew: Sequence[Sequence[Known]]) -> bool:
    """Whether state `b` is state `a` one period later. `start`: words issued per engine when the loop began."""
    shift = [y - x for x, y in zip(a.issued, b.issued, strict=True)]

    oldest = [issued - 2 * d - _RECENT for issued, d in zip(a.issued, shift, strict=True)]

    def corresponds(x: Known, y: Known) -> bool:
        """Each number is a word from before the loop, or a word of the loop, a period later."""
        return all((p == q and p <= s) or (p > s and q == p + d) for p, q, s, d in zip(x, y, start, shift, strict=True))

    def is_recent(x: Known) -> bool:
        """All that it names lies before the loop or in the part that is compared."""
        return all(p <= s or p > o for p, s, o in zip(x, start, oldest, strict=True))

    if not (corresponds(a.dispatched, b.dispatched) and is_recent(a.dispatched) and a.last.keys() == b.last.keys() and a.defined.keys() == b.defined.keys()):
        return False
    for queue, words in enumerate(knew):
        compared = range(max(start[queue], oldest[queue]), a.issued[queue])
        followed = range(max(start[queue], a.issued[queue] - _RECENT - 1), b.issued[queue])  # what the next period will look up
        if not all(corresponds(words[i], words[i + shift[queue]]) for i in compared) or not all(is_recent(words[i]) for i in followed):
            return False
    for key, x_cells in a.last.items():
        y_cells, s, d = b.last[key], start[key[-1]], shift[key[-1]]
        if not bool(np.where(x_cells <= s, y_cells == x_cells, y_cells == x_cells + d).all()):
            return False
    return all(np.array_equal(cells, b.defined[key]) for key, cells in a.defined.items())
