"""The exact search: is there a placement of a part within a capacity? Written for numba, runs without it (see `jit`).

Boxes are placed in order of (offset, rank), each at its *floor*: the lowest aligned offset above the boxes below it.
Every problem that has a plan has one of this form (push all boxes down until none can fall). A node is cut off when
- the boxes that live at one time no longer fit between their floors and the capacity,
- a box was left behind: its floor is below the last offset, so that it waits for a box beneath it, and none is left,
- a box would be placed above the top that another box would have if it came now: that one could fall below it,
- two boxes commute or are alike, and this is the other order of the two.
Where nothing lives between two groups of remaining boxes, they are solved separately.

State: `floor` and `place` per box; `count` = [nodes so far, limit]. Result: 1 found, 0 there is none, -1 limit reached.
"""

from compiler.plan.jit import Vector, argsort, compiled, vector

FOUND, NONE, LIMIT = 1, 0, -1


@compiled("int64(V, V, V, V, V)")
def cuts(ids: Vector, lower: Vector, upper: Vector, starts: Vector, unused: Vector) -> int:
    """Where, in `ids` sorted by start, a new group begins: fills `starts`, returns the number of groups."""
    groups = 1
    end = upper[ids[0]]
    for a in range(1, len(ids)):
        if lower[ids[a]] >= end:
            starts[groups] = a
            groups += 1
        end = max(end, upper[ids[a]])
    starts[groups] = len(ids)
    return groups


@compiled("int64(V, int64, int64, V, V, V, V, V, V, V)")
def reach(
    ids: Vector, last: int, capacity: int, lower: Vector, upper: Vector, size: Vector, align: Vector, fixed: Vector, floor: Vector, low: Vector
) -> int:
    """The lowest offset each remaining box can still get, into `low`; 0 if one has none left."""
    for a in range(len(ids)):
        i = ids[a]
        low[a] = floor[i]
        if floor[i] < last:
            if fixed[i] >= 0:
                return 0
            best = capacity + 1
            for k in ids:
                if k != i and lower[k] < upper[i] and lower[i] < upper[k]:
                    best = min(best, max(floor[k], last) + size[k])
            low[a] = -(-best // align[i]) * align[i]
        if low[a] + size[i] > capacity:
            return 0
    return 1


@compiled("int64(V, int64, V, V, V, V)")
def fits(ids: Vector, capacity: int, lower: Vector, upper: Vector, size: Vector, low: Vector) -> int:
    """Whether in every section the boxes from each `low` upwards fit below the capacity."""
    first = lower[ids[0]]
    end = first
    for i in ids:
        end = max(end, upper[i])
    total = vector(end - first)
    by_low = argsort(low, len(ids))
    for x in range(len(ids) - 1, -1, -1):
        i = ids[by_low[x]]
        room = capacity - low[by_low[x]]
        for s in range(lower[i] - first, upper[i] - first):
            total[s] += size[i]
            if total[s] > room:
                return 0
    return 1


@compiled("int64(V, int64, int64, V, V, V, V, V, V, V, V)")
def candidates(
    ids: Vector, last: int, last_rank: int, lower: Vector, upper: Vector, size: Vector, align: Vector, fixed: Vector, rank: Vector,
    floor: Vector, found: Vector,
) -> int:  # fmt: skip
    """Which positions of `ids` may come next, in the order to try them, into `found`; returns how many."""
    ceiling = floor[ids[0]] + size[ids[0]]
    for i in ids:
        ceiling = min(ceiling, floor[i] + size[i])
    keys = vector(len(ids))
    chosen = vector(len(ids))
    n = 0
    for a in range(len(ids)):
        i = ids[a]
        if floor[i] < last or floor[i] >= ceiling or (floor[i] == last and rank[i] < last_rank):
            continue
        twin = False
        for k in ids:
            if lower[k] == lower[i] and upper[k] == upper[i] and size[k] == size[i] and align[k] == align[i] and rank[k] < rank[i]:
                twin = twin or (fixed[i] < 0 and fixed[k] < 0)
        if not twin:
            keys[n] = floor[i] * len(rank) + rank[i]
            chosen[n] = a
            n += 1
    order = argsort(keys, n)
    for x in range(n):
        found[x] = chosen[order[x]]
    return n


@compiled("int64(V, int64, int64, V, V, V, V, V, V, V)")
def put(
    ids: Vector, a: int, capacity: int, lower: Vector, upper: Vector, size: Vector, align: Vector, fixed: Vector, floor: Vector, rest: Vector
) -> int:
    """Place box ids[a] at its floor: fills `rest` with the others and raises their floors; 0 if one has no room."""
    i = ids[a]
    top = floor[i] + size[i]
    n = 0
    for b in range(len(ids)):
        if b == a:
            continue
        k = ids[b]
        rest[n] = k
        n += 1
        if lower[k] < upper[i] and lower[i] < upper[k] and floor[k] < top:
            if fixed[k] >= 0:
                return 0
            floor[k] = -(-top // align[k]) * align[k]
            if floor[k] + size[k] > capacity:
                return 0
    return 1


@compiled("int64(V, int64, int64, int64, int64, V, V, V, V, V, V, V, V, V)")
def descend(
    ids: Vector, last: int, last_rank: int, whole: int, capacity: int, lower: Vector, upper: Vector, size: Vector, align: Vector,
    fixed: Vector, rank: Vector, floor: Vector, place: Vector, count: Vector,
) -> int:  # fmt: skip
    """Place the boxes `ids` (sorted by start), which all come after (last, last_rank); `whole`: known not to split."""
    count[0] += 1
    if count[0] > count[1]:
        return -1
    if len(ids) == 0:
        return 1
    if whole == 0:
        starts = vector(len(ids) + 1)
        groups = cuts(ids, lower, upper, starts, starts)
        if groups > 1:
            sizes = vector(groups)
            for g in range(groups):
                sizes[g] = starts[g + 1] - starts[g]
            for g in argsort(sizes, groups):
                group = ids[starts[g] : starts[g + 1]]
                result = descend(group, last, last_rank, 1, capacity, lower, upper, size, align, fixed, rank, floor, place, count)
                if result != 1:
                    return result
            return 1
    low = vector(len(ids))
    if not reach(ids, last, capacity, lower, upper, size, align, fixed, floor, low) or not fits(ids, capacity, lower, upper, size, low):
        return 0
    found = vector(len(ids))
    n = candidates(ids, last, last_rank, lower, upper, size, align, fixed, rank, floor, found)
    saved = vector(len(ids))
    for a in range(len(ids)):
        saved[a] = floor[ids[a]]
    rest = vector(len(ids) - 1)
    for x in range(n):
        i = ids[found[x]]
        place[i] = floor[i]
        if put(ids, found[x], capacity, lower, upper, size, align, fixed, floor, rest):
            result = descend(rest, place[i], rank[i], 0, capacity, lower, upper, size, align, fixed, rank, floor, place, count)
            if result != 0:
                return result
        for a in range(len(ids)):
            floor[ids[a]] = saved[a]
    return 0
