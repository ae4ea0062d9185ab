"""Storage: where every value of the graph lives between kernels, and what views of it look like.

A value that only its own kernel reads has no storage. Others live in SRAM or DRAM, in the dimension order that their
readers want: keys permuted to (batch, head, token) are stored that way, so that no copy is ever made.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from compiler.tile.access import follow
from compiler.tile.kernel_op import KernelOp
from compiler.tile.layout import Layout
from compiler.tile.loops import Repeat


@dataclass
class Storage:
    """Storage of values by their base node."""

    layouts: dict[KernelOp, Layout] = field(default_factory=dict)

    def resolve(self, node: KernelOp) -> Layout:
        """The layout of a value or of any view of one. Raises RuntimeError if the view has no strides."""
        return follow(self.layouts[node.base], node)


def stored_order(node: KernelOp) -> tuple[int, ...]:
    """Dimensions of a value, outermost first, in the order its readers want it stored."""
    rank = len(node.shape)
    orders = set()
    for user in node.users:
        if user.kind == "permute":
            orders.add(tuple(d % rank for d in user.integers("dims")))
        else:
            return tuple(range(rank))
    return orders.pop() if len(orders) == 1 else tuple(range(rank))


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
