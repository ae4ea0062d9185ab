"""Fast placements: first fit in several orders, then a few repairs. Near linear in the pairs of blocks that live together.

First fit puts each block at the lowest free offset among the blocks already placed; only the order matters. The
improvement moves the block that sticks out to the front of the order and places again.
"""

from bisect import insort
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import accumulate

from compiler.plan.parts import Part

MAX_PAIRS = 3_000_000  # above this, neighbour lists cost more memory and time than they are worth
IMPROVEMENT_WORK = 1_500_000  # neighbour visits spent on repairs, under a second
MAX_REPAIRS = 100

Neighbours = list[list[int]]


def best_placement(part: Part, target: int) -> list[int]:
    """The lowest placement found; stops early at a height of `target` units."""
    if _pairs(part) > MAX_PAIRS:
        return _sweep(part)
    near = _neighbours(part)
    best: list[int] = []
    best_order: list[int] = []
    for order in _orders(part):
        offsets = first_fit(part, order, near)
        if not best or _height(part, offsets) < _height(part, best):
            best, best_order = offsets, order
        if _height(part, best) <= target:
            return best
    return _improve(part, best_order, best, near, target)


def first_fit(part: Part, order: Sequence[int], near: Neighbours) -> list[int]:
    """Place boxes in `order`, fixed ones first, each at the lowest offset that is free during its whole live range."""
    offsets = list(part.fixed)
    size, align = part.size, part.align
    for i in order:
        if part.fixed[i] >= 0:
            continue
        at, need, step = 0, size[i], align[i]
        for low, high in sorted([(offsets[k], offsets[k] + size[k]) for k in near[i] if offsets[k] >= 0]):
            if low >= at + need:
                break
            if high > at:
                at = -(-high // step) * step
        offsets[i] = at
    return offsets


def section_totals(part: Part) -> list[int]:
    """For each box the most that lives at once during its live range, counted at its ends and where blocks begin inside."""
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
        sorted(boxes, key=lambda i: (-part.size[i], -part.upper[i])),  # of one size in order of time: no order needs less for them
        sorted(boxes, key=lambda i: (-part.size[i], part.lower[i])),
        sorted(boxes, key=lambda i: (-part.size[i], -span[i])),
        sorted(boxes, key=lambda i: -part.size[i] * span[i]),
        sorted(boxes, key=lambda i: (-total[i], -part.size[i])),
        sorted(boxes, key=lambda i: (-span[i], -part.size[i])),
    ]


def _improve(part: Part, order: list[int], best: list[int], near: Neighbours, target: int) -> list[int]:
    """Move the block that ends highest to the front, place again, keep what is lower; the number of repairs is fixed by size."""
    repairs = min(MAX_REPAIRS, IMPROVEMENT_WORK // (1 + len(part) + sum(map(len, near))))
    offsets = best
    for _ in range(repairs):
        if _height(part, best) <= target:
            break
        top = max(range(len(part)), key=lambda i: offsets[i] + part.size[i])
        order = [top, *(i for i in order if i != top)]
        offsets = first_fit(part, order, near)
        if _height(part, offsets) < _height(part, best):
            best = offsets
    return best


def _sweep(part: Part) -> list[int]:
    """First fit in order of time against the blocks alive now, kept sorted by offset: for crowds without neighbour lists."""
    offsets = list(part.fixed)
    fixed = [(part.fixed[i], i) for i in range(len(part)) if part.fixed[i] >= 0]
    alive: list[tuple[int, int]] = []
    leaving: list[tuple[int, tuple[int, int]]] = []
    for i in sorted(range(len(part)), key=lambda i: (part.lower[i], part.lower[i] - part.upper[i])):
        while leaving and leaving[0][0] <= part.lower[i]:
            alive.remove(heappop(leaving)[1])
        if part.fixed[i] >= 0:
            continue
        later = [entry for entry in fixed if part.lower[entry[1]] < part.upper[i] and part.lower[i] < part.upper[entry[1]]]
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


def _neighbours(part: Part) -> Neighbours:
    """For each box those that live at the same time, by one sweep."""
    near: Neighbours = [[] for _ in range(len(part))]
    alive: list[int] = []
    for i in sorted(range(len(part)), key=lambda i: part.lower[i]):
        alive = [k for k in alive if part.upper[k] > part.lower[i]]
        for k in alive:
            near[k].append(i)
        near[i].extend(alive)
        alive.append(i)
    return near


def _height(part: Part, offsets: Sequence[int]) -> int:
    return max(map(int.__add__, offsets, part.size))
