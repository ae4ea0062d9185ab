"""Loops: find identical layers among the kernels, so that one body serves them all.

    k0 | q k v attention out up down | q k v attention out up down | … | q k v attention out up down'
         body, repeated `count` times, weights at a constant stride                    what follows

Iterations must be the same operations on the same shapes, connected in the same way: to their own values, to the values
of the iteration before (*carried*, which keep one place), to values from before the loop, and to constants of their
own."""

from collections.abc import Sequence

from compiler.tile.kernel_graph import Repeat
from compiler.tile.kernel_op import INPUT, KernelOp
from compiler.tile.kernels import Kernel, signature

LONGEST = 256  # kernels of a layer; with a bound, the search is linear in the number of layers


def find_loop(kernels: Sequence[Kernel]) -> Repeat | None:
    """The longest repetition that holds, or None."""
    numbers: dict[object, int] = {}  # equal signatures, equal numbers: these are compared often
    prints = [numbers.setdefault(signature(k), len(numbers)) for k in kernels]
    for start, period, count in _candidates(prints):
        if _match(kernels, start, period, 2) is None:
            continue  # nor do more of them hold; the steps of a recurrent layer are many
        for fewer in range(count, 1, -1):
            found = _match(kernels, start, period, fewer)
            if found is not None:
                return found
    return None


def _candidates(prints: Sequence[int]) -> list[tuple[int, int, int]]:
    """(start, period, count) of runs of equal signatures, most kernels saved first."""
    found = []
    for period in range(1, min(len(prints) // 2, LONGEST) + 1):
        run = 0
        for i in range(len(prints) - period, -1, -1):
            run = run + 1 if i + period < len(prints) and prints[i] == prints[i + period] else 0
            if run >= period:
                found.append((i, period, run // period + 1))
    return sorted(found, key=lambda c: (-(c[2] - 1) * c[1], c[0]))[:64]


def _match(kernels: Sequence[Kernel], start: int, period: int, count: int) -> Repeat | None:
    """Check the connections of every iteration; None if one differs."""
    bodies = [
        [node for k in kernels[start + i * period : start + (i + 1) * period] for node in k.nodes] for i in range(count)
    ]
    repeat = Repeat(start, period, count)
    for body in bodies:
        for own, other in zip(bodies[0], body, strict=True):
            for a, b in _values(own, other):
                repeat.instances.setdefault(a, []).append(b)
                if a is not b:
                    repeat.canonical[b] = a
    for i in range(1, count):
        for own, other in zip(bodies[0], bodies[i], strict=True):
            if not all(_same(repeat, i, x, y) for x, y in zip(own.operands, other.operands, strict=True)):
                return None
    return repeat if _contained(repeat, bodies) and _carried_in_place(repeat, kernels) else None


def _values(own: KernelOp, other: KernelOp) -> list[tuple[KernelOp, KernelOp]]:
    """A node and its results, paired with their counterparts."""
    parts = other.parts()
    return [(own, other), *((part, parts[number]) for number, part in own.parts().items() if number in parts)]


def _same(repeat: Repeat, i: int, x: KernelOp, y: KernelOp) -> bool:
    """Whether operand `y` of iteration `i` is to it what `x` is to the first iteration."""
    if x is y:
        return x not in repeat.instances
    if x in repeat.instances:
        return repeat.instances[x][i] is y
    if x.kind == INPUT and y.kind == INPUT:
        known = repeat.constants.setdefault(x, [x])
        if len(known) == i:
            known.append(y)
        return len(known) > i and known[i] is y and x.results == y.results and x.is_weight
    if x.is_view and y.is_view and x.base is not x:
        plain = x.target is y.target and x.static == y.static and x.results == y.results
        return plain and all(_same(repeat, i, a, b) for a, b in zip(x.operands, y.operands, strict=True))
    inside = repeat.canonical.get(y, y)
    if (
        inside in repeat.instances
        and repeat.instances[inside][i - 1] is y
        and x.is_operation
        and x.base is x
        and x.results == y.results
    ):
        return repeat.carried.setdefault(x, inside) is inside
    return False


def _contained(repeat: Repeat, bodies: Sequence[Sequence[KernelOp]]) -> bool:
    """No value of an iteration but the last is read later than by the next one."""
    where = {node: i for i, body in enumerate(bodies) for node in body}
    for copies in repeat.instances.values():
        for i, node in enumerate(copies[:-1]):
            if any(where.get(reader, -1) not in (i, i + 1) for reader in _readers(node)):
                return False
    return all(len(c) == repeat.count for c in repeat.constants.values())


def _readers(node: KernelOp) -> list[KernelOp]:
    found: list[KernelOp] = []
    for user in node.users:
        found += _readers(user) if user.is_view else [user]
    return found


def _carried_in_place(repeat: Repeat, kernels: Sequence[Kernel]) -> bool:
    """Every carried value is read for the last time in a kernel before the one that writes its successor, and nothing
    outside the loop needs the old value."""
    place = {node: j for j, k in enumerate(kernels[repeat.start : repeat.start + repeat.period]) for node in k.nodes}
    for old, new in repeat.carried.items():
        written = place[new.maker]
        for reader in _readers(old):
            index = next((j for j, k in enumerate(kernels) if reader in k.members), None)
            if (
                index is None
                or index >= repeat.start + repeat.period
                or (index >= repeat.start and place[reader] >= written)
            ):
                return False
    return len(set(repeat.carried.values())) == len(repeat.carried)
