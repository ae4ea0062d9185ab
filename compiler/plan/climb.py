"""Hill climbing over the order of first fit. Written for numba, runs without it (see `jit`).

First fit puts each box at the lowest free offset; only the order matters. A box that sticks out above the target is put
before, or changes places with, an earlier one that lives at the same time, and what follows in the order is placed
again. The new order stays unless more bytes stick out than before. Orders near a good one are good: this finds plans at
95 % of the capacity, where a systematic search does not end.

`order` holds the boxes that may move; `position` is a box's place in it, -1 for fixed ones, which come before all. The
neighbours of box i are near[first[i]:first[i + 1]].
"""

from compiler.plan.jit import Vector, compiled, vector


@compiled("int64(int64, V, V, V, V, V, V, V, V)")
def lowest(
    i: int,
    position: Vector,
    size: Vector,
    align: Vector,
    near: Vector,
    first: Vector,
    offsets: Vector,
    lows: Vector,
    highs: Vector,
) -> int:
    """The lowest offset of box i that is free among its neighbours earlier in the order. `lows` and `highs` are
    scratch."""
    count = 0
    for q in range(first[i], first[i + 1]):
        k = near[q]
        if position[k] < position[i]:
            low = offsets[k]
            at = count
            while at > 0 and lows[at - 1] > low:
                lows[at] = lows[at - 1]
                highs[at] = highs[at - 1]
                at -= 1
            lows[at] = low
            highs[at] = low + size[k]
            count += 1
    free = 0
    for q in range(count):
        if lows[q] >= free + size[i]:
            break
        if highs[q] > free:
            free = -(-highs[q] // align[i]) * align[i]
    return free


@compiled("int64(V, V)")
def top(size: Vector, offsets: Vector) -> int:
    """The height of a placement."""
    height = 0
    for i in range(len(size)):
        height = max(height, offsets[i] + size[i])
    return height


@compiled("int64(int64)")
def following(state: int) -> int:
    """The next number of a linear congruential generator modulo 2**31 (its upper bits are the random ones)."""
    return (state * 1103515245 + 12345) % 2147483648


@compiled("int64(V, V, V, V, V, V, int64, int64)")
def climb(  # noqa: C901 - one loop, for numba
    order: Vector, size: Vector, align: Vector, near: Vector, first: Vector, best: Vector, target: int, visits: int
) -> int:
    """Try other orders until nothing sticks out above `target`, or so many neighbours have been looked at.

    `best` holds the offsets of fixed boxes, and ends as the lowest placement found. Returns its height.
    """
    count, boxes = len(order), len(size)
    lows, highs = vector(boxes + 1), vector(boxes + 1)
    position, offsets, stale = vector(boxes), vector(boxes), vector(boxes)
    wanted, moved, before = vector(boxes + 1), vector(boxes + 1), vector(boxes + 1)
    for i in range(boxes):
        position[i] = -1
        offsets[i] = best[i]
    above = 0
    for p in range(count):
        position[order[p]] = p
    for i in order:
        offsets[i] = lowest(i, position, size, align, near, first, offsets, lows, highs)
        above += max(0, offsets[i] + size[i] - target)
    for i in range(boxes):
        best[i] = offsets[i]
    height: int = top(size, best)
    state = 1
    while above and visits > 0:
        # ---- a box that sticks out, and one before it that lives at the same time
        out = 0
        for i in order:
            if offsets[i] + size[i] > target:
                wanted[out] = i
                out += 1
        state = following(state)
        box = wanted[(state >> 8) % out]
        earlier = 0
        for q in range(first[box], first[box + 1]):
            if 0 <= position[near[q]] < position[box]:
                wanted[earlier] = near[q]
                earlier += 1
        visits -= count + first[box + 1] - first[box]
        if earlier == 0:
            continue
        state = following(state)
        other = wanted[(state >> 8) % earlier]
        start, old = position[other], position[box]
        state = following(state)
        swap = (state >> 8) % 2
        if swap:
            order[old], order[start] = other, box
        else:
            for p in range(old, start, -1):
                order[p] = order[p - 1]
            order[start] = box
        for p in range(start, old + 1):
            position[order[p]] = p
        # ---- place again what sees another box before it, or one that has moved
        stale[box] = stale[other] = 1
        for q in range(first[box], first[box + 1]):
            stale[near[q]] = 1
        for q in range(first[other], first[other + 1]):
            stale[near[q]] = 1
        changes, changed = 0, above
        for p in range(start, count):
            i = order[p]
            if stale[i]:
                visits -= first[i + 1] - first[i]
                at = lowest(i, position, size, align, near, first, offsets, lows, highs)
                if at != offsets[i]:
                    changed += max(0, at + size[i] - target) - max(0, offsets[i] + size[i] - target)
                    moved[changes] = i
                    before[changes] = offsets[i]
                    changes += 1
                    offsets[i] = at
                    for q in range(first[i], first[i + 1]):
                        stale[near[q]] = 1
        for i in range(boxes):
            stale[i] = 0
        # ---- keep it, or take it back
        state = following(state)
        if changed <= above or (state >> 8) % 512 == 0:
            above = changed
            reached = top(size, offsets)
            if reached < height:
                height = reached
                for i in range(boxes):
                    best[i] = offsets[i]
            continue
        for p in range(changes):
            offsets[moved[p]] = before[p]
        if swap:
            order[old], order[start] = box, other
        else:
            for p in range(start, old):
                order[p] = order[p + 1]
            order[old] = box
        for p in range(start, old + 1):
            position[order[p]] = p
    return height
