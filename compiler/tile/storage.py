"""Storage: where every value of the graph lives between kernels, and what views of it look like.

A value that only its own kernel reads has no storage. Others live in SRAM or DRAM, in the dimension order that their
readers want: keys permuted to (batch, head, token) are stored that way, so that no copy is ever made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from compiler.tile.access import follow
from compiler.tile.kernel_op import KernelOp
from compiler.tile.layout import Layout

ALIGN = 64  # bytes: a DRAM burst


@dataclass
class Storage:
    """Storage of values by their base node. Where a value is made in parts, each elsewhere, `parts` has those that are
    there."""

    layouts: dict[KernelOp, Layout] = field(default_factory=dict)
    parts: Mapping[KernelOp, Sequence[Layout]] = field(default_factory=dict)

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


def size_of(node: KernelOp) -> int:
    """Bytes of a value in its storage."""
    return -(-prod(node.shape) * node.dtype.bits // 8 // ALIGN) * ALIGN
