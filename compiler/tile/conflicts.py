"""Conflicts: which ops of a tile program must keep their order."""

from collections.abc import Sequence

from compiler.plan.jit import Vector, compiled, frozen, vector
from compiler.tile.ir import Op, span
from isa.architecture import GIVEN_REGIONS, Space
from isa.fields import Access


def predecessors(ops: Sequence[Op]) -> list[list[int]]:
    """For each op the earlier ops it must follow: those that touch the same bytes, one of the two writing."""
    latest: dict[str, int] = {}  # of each buffer, by its name, the last access so far
    accesses: list[tuple[int, int, int, int, int]] = []
    for index, op in enumerate(ops):
        for _, ref, extents, access in op.accesses:
            buffer = ref.buffer
            if buffer.space is Space.DRAM and buffer.region in GIVEN_REGIONS:
                continue
            accesses.append((index, *span(ref, extents), access is not Access.R, latest.get(buffer.name, -1)))
            latest[buffer.name] = len(accesses) - 1
    of, low, high, writes, earlier = (frozen([access[column] for access in accesses]) for column in range(5))
    counts = frozen([0] * len(ops))
    conflicts(of, low, high, writes, earlier, counts, frozen([]))
    found = frozen([0] * int(sum(counts)))
    conflicts(of, low, high, writes, earlier, counts, found)
    flat, result, end = list(map(int, found)), [], 0
    for count in counts:
        result.append(sorted(flat[end : end + count]))
        end += count
    return result


@compiled("void(V, V, V, V, V, V, V)")
def conflicts(
    ops: Vector, low: Vector, high: Vector, writes: Vector, earlier: Vector, counts: Vector, found: Vector
) -> None:
    """How many ops each op must follow, and which, one op's behind the other's, if there is room in `found`.

    Access i of op ops[i] touches bytes low[i] .. high[i] of a buffer, which access earlier[i] touched last before it.
    """
    seen = vector(len(counts))  # of each op, the last that was found to follow it, and 1
    end = start = 0
    for access in range(len(ops)):
        op = ops[access]
        if access == 0 or ops[access - 1] != op:
            start = end
        other = earlier[access]
        while other >= 0:
            meets = low[other] < high[access] and low[access] < high[other]
            if meets and (writes[access] or writes[other]) and ops[other] != op and seen[ops[other]] != op + 1:
                seen[ops[other]] = op + 1
                if len(found):
                    found[end] = ops[other]
                end += 1
            other = earlier[other]
        counts[op] = end - start
