"""Fast placements: first fit in several orders, then hill climbing from the best. Near linear in the pairs of blocks
that live together."""

from bisect import insort
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import accumulate

from compiler.plan.parts import Part

MAX_PAIRS = 3_000_000  # above this, neighbour lists cost more memory and time than they are worth
VISITS = 60_000_000, 1_000_000  # of neighbours while climbing, compiled and not: half a second
TRIES = 5000  # of other orders, if each looked at all neighbours


def best_placement(part: Part, target: int, visits: int | None = None) -> list[int]:
    """The lowest placement found; stops early at a height of `target` units. Climbing ends after so many `visits`
    (VISITS)."""
    if _pairs(part) > MAX_PAIRS:
        return _sweep(part)
    from compiler.plan.climb import climb  # numba compiles it once per installation
    from compiler.plan.jit import COMPILED, frozen

    near = _neighbours(part)
    flat, first = frozen([k for each in near for k in each]), frozen([0, *accumulate(map(len, near))])
    size, align = frozen(part.size), frozen(part.align)

    def tried(order: list[int], visits: int) -> tuple[int, list[int]]:
        """The height and the offsets of first fit in this order, or in one near it."""
        offsets = frozen(part.fixed)
        height = climb(
            frozen([i for i in order if part.fixed[i] < 0]), size, align, flat, first, offsets, target, visits
        )
        return int(height), [int(offset) for offset in offsets]

    best: tuple[int, list[int], list[int]] | None = None
    for order in _orders(part):
        height, offsets = tried(order, 0)
        if best is None or height < best[0]:
            best = height, offsets, order
        if height <= target:
            return offsets
    assert best is not None
    most = TRIES * (len(part) + len(flat))
    return tried(best[2], min(most, VISITS[0 if COMPILED else 1] if visits is None else visits))[1]


def section_totals(part: Part) -> list[int]:
    """For each box the most that lives at once during its live range, counted at its ends and where blocks begin
    inside."""
    change = [0] * (max(part.upper) + 1)
    for low, high, size in zip(part.lower, part.upper, part.size, strict=True):
        change[low] += size
        change[high] -= size
    totals = list(accumulate(change))
    levels = [totals]  # levels[k][s]: the most within 2**k sections from s
    while 2 << len(levels) - 1 <= len(totals):
        last, half = levels[-1], 1 << len(levels) - 1
        levels.append([max(last[s], last[s + half]) for s in range(len(last) - half)])
    result = []
    for low, high in zip(part.lower, part.upper, strict=True):
        k = (high - low).bit_length() - 1
        result.append(max(levels[k][low], levels[k][high - (1 << k)]))
    return result


def _orders(part: Part) -> list[list[int]]:
    """By size, by area, by start and by section total, the largest or earliest first; ties by number."""
    span = part.span
    total = section_totals(part)
    boxes = range(len(part))
    return [
        sorted(boxes, key=lambda i: (part.lower[i], -span[i])),
        sorted(
            boxes, key=lambda i: (-part.size[i], -part.upper[i])
        ),  # of one size in order of time: no order needs less for them
        sorted(boxes, key=lambda i: (-part.size[i], part.lower[i])),
        sorted(boxes, key=lambda i: (-part.size[i], -span[i])),
        sorted(boxes, key=lambda i: -part.size[i] * span[i]),
        sorted(boxes, key=lambda i: (-total[i], -part.size[i])),
        sorted(boxes, key=lambda i: (-span[i], -part.size[i])),
    ]


def _sweep(part: Part) -> list[int]:
    """First fit in order of time against the blocks alive now, kept sorted by offset: for crowds without neighbour
    lists."""
    offsets = list(part.fixed)
    fixed = [(part.fixed[i], i) for i in range(len(part)) if part.fixed[i] >= 0]
    alive: list[tuple[int, int]] = []
    leaving: list[tuple[int, tuple[int, int]]] = []
    for i in sorted(range(len(part)), key=lambda i: (part.lower[i], part.lower[i] - part.upper[i])):
        while leaving and leaving[0][0] <= part.lower[i]:
            alive.remove(heappop(leaving)[1])
        if part.fixed[i] >= 0:
            continue
        later = [
            entry for entry in fixed if part.lower[entry[1]] < part.upper[i] and part.lower[i] < part.upper[entry[1]]
        ]
        offsets[i] = _lowest_gap(part, i, sorted(alive + later) if later else alive)
        insort(alive, (offsets[i], i))
        heappush(leaving, (part.upper[i], (offsets[i], i)))
    return offsets


def _lowest_gap(part: Part, i: int, taken: Sequence[tuple[int, int]]) -> int:
    at = 0
    for low, k in taken:
        if low >= at + part.size[i]:
            break
        at = max(at, -(-(low + part.size[k]) // part.align[i]) * part.align[i])
    return at


def _pairs(part: Part) -> int:
    """How many pairs of boxes live together: at the birth of each, those alive."""
    change = [0] * (max(part.upper) + 1)
    born = [0] * (max(part.upper) + 1)
    for low, high in zip(part.lower, part.upper, strict=True):
        change[low] += 1
        change[high] -= 1
        born[low] += 1
    return sum(alive * new for alive, new in zip(accumulate(change), born, strict=True))


def _neighbours(part: Part) -> list[list[int]]:
    """For each box those that live at the same time, by one sweep."""
    near: list[list[int]] = [[] for _ in range(len(part))]
    alive: list[int] = []
    for i in sorted(range(len(part)), key=lambda i: part.lower[i]):
        alive = [k for k in alive if part.upper[k] > part.lower[i]]
        for k in alive:
            near[k].append(i)
        near[i].extend(alive)
        alive.append(i)
    return near
