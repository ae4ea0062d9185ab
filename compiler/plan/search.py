"""Drives the exact search: restarts it with several box orders and growing node limits until it answers.

Which order finds a placement quickly differs from problem to problem by orders of magnitude (heavy tails), so short
searches in many orders beat a long one. Same problem, same sequence of searches: no randomness but a seeded one.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from math import log
from random import Random

from compiler.plan.heuristics import section_totals
from compiler.plan.parts import Part

MAX_BOXES = (
    1500  # a node costs more steps than this and memory grows with its square: larger parts are left to heuristics
)
FIRST_LIMIT, GROWTH = 2000, 4


@dataclass(frozen=True, slots=True)
class Answer:
    """`offsets` of a placement; none and `proved` says that there is none, none and not proved that time ran out."""

    offsets: list[int] | None
    proved: bool
    nodes: int = 0


def search(part: Part, capacity: int, deadline: float, most: int | None = None) -> Answer:
    """Look for a placement within `capacity` units until `deadline` (of time.monotonic), visiting about `most`
    nodes."""
    if len(part) > MAX_BOXES:
        return Answer(None, proved=False)
    nodes = 0
    asked = time.monotonic()
    import compiler.plan.descend  # noqa: F401  (numba compiles it once per installation: not a part of the search time)

    started = time.monotonic()
    deadline += started - asked
    for limit, order in _schedule(part):
        elapsed = time.monotonic() - started
        remaining = deadline - time.monotonic()
        if remaining <= 0 or (most is not None and nodes >= most):
            break
        if most is not None:
            limit = min(limit, most - nodes)
        elif nodes:
            limit = min(limit, 1 + int(remaining * nodes / max(elapsed, 1e-6)))
        result, offsets, used = _descend(part, order, capacity, limit)
        nodes += used
        if result >= 0:
            return Answer(offsets if result else None, proved=not result, nodes=nodes)
    return Answer(None, proved=False, nodes=nodes)


def _descend(part: Part, order: Sequence[int], capacity: int, limit: int) -> tuple[int, list[int], int]:
    """One search with boxes tried in `order`: (result, offsets, nodes)."""
    from compiler.plan.descend import descend  # compiles on first use
    from compiler.plan.jit import frozen

    rank = [0] * len(part)
    for position, i in enumerate(order):
        rank[i] = position
    ids = sorted(range(len(part)), key=lambda i: part.lower[i])
    fixed = frozen(part.fixed)
    place, counts = frozen([0] * len(part)), frozen([0, limit])
    floor = frozen([max(0, f) for f in part.fixed])
    lower, upper, size, align = (frozen(x) for x in (part.lower, part.upper, part.size, part.align))
    result = descend(frozen(ids), capacity, lower, upper, size, align, fixed, frozen(rank), floor, place, counts)
    return int(result), [int(offset) for offset in place], int(counts[0])


def _schedule(part: Part) -> Iterator[tuple[int, list[int]]]:
    """(node limit, order) for ever: plain orders and disturbed ones in turn, each round with a larger limit."""
    total = section_totals(part)
    span = part.span
    area = [s * w for s, w in zip(part.size, span, strict=True)]
    boxes = range(len(part))
    plain = [sorted(boxes, key=lambda i: tuple(-key[i] for key in keys)) for keys in (
        (total, span, area), (area, total, span), (total, area, span), (span, area, total)
    )]  # fmt: skip
    spread = max(1e-9, log(max(area) / min(area)) / 4)
    random = Random(1)
    for round_ in count():
        limit = FIRST_LIMIT * GROWTH**round_
        for order in plain:
            yield limit, order
            noisy = [log(a) + random.gauss(0, 0.3 * spread) for a in area]
            yield limit, sorted(boxes, key=lambda i: -noisy[i])
