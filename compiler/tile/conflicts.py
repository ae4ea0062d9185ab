"""Conflicts: which ops of a tile program must keep their order."""

from collections.abc import Sequence

from compiler.tile.ir import Buffer, Op, span
from isa.architecture import GIVEN_REGIONS, Space
from isa.fields import Access

_Touch = tuple[int, int, int]  # op, first byte, one past the last


def predecessors(ops: Sequence[Op]) -> list[list[int]]:
    """For each op the earlier ops it must follow: those that touch the same bytes, one of the two writing."""
    wrote: dict[Buffer, list[_Touch]] = {}
    read: dict[Buffer, list[_Touch]] = {}
    result: list[list[int]] = []
    for index, op in enumerate(ops):
        before: set[int] = set()
        mine = []
        for _, ref, extents, access in op.accesses:
            buffer = ref.buffer
            if buffer.space is Space.DRAM and buffer.region in GIVEN_REGIONS:
                continue
            low, high = span(ref, extents)
            before.update(other for other, a, b in wrote.get(buffer, ()) if a < high and low < b)
            if access is not Access.R:
                before.update(other for other, a, b in read.get(buffer, ()) if a < high and low < b)
            mine.append((read if access is Access.R else wrote, buffer, (index, low, high)))
        for touches, buffer, touch in mine:
            touches.setdefault(buffer, []).append(touch)
        result.append(sorted(before))
    return result
