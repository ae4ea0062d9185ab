"""The exact search: is there a placement of a part within a capacity? Written for numba, runs without it (see `jit`).

Boxes are placed in order of (offset, rank), each at its *floor*: the lowest aligned offset above the boxes below it.
Every problem that has a plan has one of this form (push all boxes down until none can fall). A node is cut off when
- the boxes that live at one time no longer fit between their floors and the capacity,
- a box was left behind: its floor is below the last offset, so that it waits for a box beneath it, and none is left,
- a box would be placed above the top that another box would have if it came now: that one could fall below it,
- two boxes commute or are alike, and this is the other order of the two.
Where nothing lives between two groups of remaining boxes, they are solved separately.

State: `floor` and `place` per box; `count` = [nodes so far, limit]. Result: 1 found, 0 there is none, -1 limit reached.
Arguments are bare vectors and `descend` is one long loop because that is what numba compiles well.
"""

from compiler.plan.jit import Vector, argsort, compiled, vector


@compiled("int64(V, V, V)")
def splits(ids: Vector, lower: Vector, upper: Vector) -> int:
    """1 if nothing lives between two groups of `ids`, which are sorted by start."""
    end = upper[ids[0]]
    for i in ids:
        if lower[i] >= end:
            return 1
        end = max(end, upper[i])
    return 0


@compiled("int64(V, V, V, V, V)")
def cuts(ids: Vector, lower: Vector, upper: Vector, starts: Vector, order: Vector) -> int:
    """Where, in `ids` sorted by start, groups begin, into `starts`, and the smallest groups first, into `order`;
    returns how many."""
    groups = 1
    end = upper[ids[0]]
    for a in range(1, len(ids)):
        if lower[ids[a]] >= end:
            starts[groups] = a
            groups += 1
        end = max(end, upper[ids[a]])
    starts[groups] = len(ids)
    sizes = vector(groups)
    for g in range(groups):
        sizes[g] = starts[g + 1] - starts[g]
    smallest = argsort(sizes, groups)
    for g in range(groups):
        order[g] = smallest[g]
    return groups


@compiled("int64(V, int64, int64, V, V, V, V, V, V, V)")
def reach(
    ids: Vector,
    last: int,
    capacity: int,
    lower: Vector,
    upper: Vector,
    size: Vector,
    align: Vector,
    fixed: Vector,
    floor: Vector,
    low: Vector,
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
    ids: Vector,
    last: int,
    last_rank: int,
    lower: Vector,
    upper: Vector,
    size: Vector,
    align: Vector,
    fixed: Vector,
    rank: Vector,
    floor: Vector,
    found: Vector,
) -> int:
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
            if (
                lower[k] == lower[i]
                and upper[k] == upper[i]
                and size[k] == size[i]
                and align[k] == align[i]
                and rank[k] < rank[i]
            ):
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
    ids: Vector,
    a: int,
    capacity: int,
    lower: Vector,
    upper: Vector,
    size: Vector,
    align: Vector,
    fixed: Vector,
    floor: Vector,
    rest: Vector,
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


@compiled("int64(V, int64, V, V, V, V, V, V, V, V, V)")
def descend(  # noqa: C901  (one loop with its own stack: numba cannot cache recursive functions)
    ids: Vector, capacity: int, lower: Vector, upper: Vector, size: Vector, align: Vector, fixed: Vector, rank: Vector,
    floor: Vector, place: Vector, count: Vector,
) -> int:  # fmt: skip
    """Place the boxes `ids`, sorted by start. A loop with its own stack instead of recursion.

    A frame either branches (one child must succeed) or holds groups (all must). `result` is that of the last child.
    """
    OPEN, BRANCH, GROUPS, WHOLE = 2, 0, 1, 2  # WHOLE: a frame not yet opened of which we know that it does not split
    stack, children, saved = [ids], [ids], [ids]
    kinds, nexts, ends, lasts, ranks = [BRANCH], [0], [0], [0], [-1]
    result = OPEN
    while len(stack) > 0:
        top = len(stack) - 1
        ids, last, last_rank = stack[top], lasts[top], ranks[top]
        if result == OPEN:
            count[0] += 1
            if count[0] > count[1]:
                return -1
            m = len(ids)
            children[top] = vector(m + 1)
            saved[top] = vector(m + 1)
            if m == 0:
                result = 1
            elif kinds[top] != WHOLE and splits(ids, lower, upper) == 1:
                kinds[top] = GROUPS
                ends[top] = cuts(ids, lower, upper, children[top], saved[top])
            elif (
                reach(ids, last, capacity, lower, upper, size, align, fixed, floor, saved[top]) == 0
                or fits(ids, capacity, lower, upper, size, saved[top]) == 0
            ):
                result = 0
            else:
                kinds[top] = BRANCH
                ends[top] = candidates(
                    ids, last, last_rank, lower, upper, size, align, fixed, rank, floor, children[top]
                )
                for a in range(m):
                    saved[top][a] = floor[ids[a]]
        elif kinds[top] == BRANCH and result == 0:
            for a in range(len(ids)):
                floor[ids[a]] = saved[top][a]
            result = OPEN
        elif kinds[top] == GROUPS and result == 1:
            result = OPEN
        if result == OPEN and nexts[top] == ends[top]:
            result = kinds[top]  # no child left: a branch failed, groups succeeded
        if result != OPEN:
            stack.pop(), children.pop(), saved.pop(), kinds.pop(), nexts.pop(), ends.pop(), lasts.pop(), ranks.pop()
            continue
        x = nexts[top]
        nexts[top] += 1
        child, kind = children[top], WHOLE
        if kinds[top] == GROUPS:
            ids = ids[child[saved[top][x]] : child[saved[top][x] + 1]]
        else:
            i, kind, rest = ids[child[x]], BRANCH, vector(len(ids) - 1)
            place[i], last, last_rank = floor[i], floor[i], rank[i]
            result = 0 if put(ids, child[x], capacity, lower, upper, size, align, fixed, floor, rest) == 0 else OPEN
            ids = rest
        if result == OPEN:
            stack.append(ids)
            children.append(ids)
            saved.append(ids)
            kinds.append(kind)
            nexts.append(0)
            ends.append(0)
            lasts.append(last)
            ranks.append(last_rank)
    return result
