"""Live ranges: which values lie between kernels, and from which to which."""

from collections.abc import Iterable, Mapping, Sequence

from compiler.tile.kernel_graph import Repeat
from compiler.tile.kernel_op import KernelOp


def live_ranges(
    kernels: Sequence[Sequence[KernelOp]],
    outputs: Iterable[KernelOp],
    owner: Mapping[KernelOp, int],
    repeat: Repeat | None,
) -> dict[KernelOp, tuple[int, int]]:
    """First and last kernel index of every value that another kernel (or the caller) reads.

    With a loop, values of later iterations count as those of the first, and what the loop carries or shares with the
    kernels around it lives through all of the body.
    """
    ranges: dict[KernelOp, tuple[int, int]] = {}

    def touch(value: KernelOp, index: int) -> None:
        origin = value.base
        producer = (repeat.canonical.get(origin, origin) if repeat else origin).maker
        if producer not in owner or (
            owner[producer] == index and value.base not in (repeat.canonical if repeat else ())
        ):
            return
        holder = repeat.storage_of(origin) if repeat else origin
        first, last = ranges.get(holder, (owner[producer], owner[producer]))
        ranges[holder] = (min(first, owner[producer]), max(last, index))

    for index, nodes in enumerate(kernels):
        for node in nodes:
            for operand in node.operands:
                touch(operand, index)
    for node in outputs:
        touch(node, len(kernels))
    if repeat is not None:
        body = range(repeat.start, repeat.start + repeat.period)
        for value, (first, last) in ranges.items():
            inside = first in body and last in body
            if value in repeat.carried.values() or (last >= body.start and first < body.stop and not inside):
                ranges[value] = (min(first, body.start), max(last, body.stop - 1))
    return ranges
