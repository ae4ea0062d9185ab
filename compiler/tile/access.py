"""Access: which elements of a value an operand is, through its views, and which of them a block of its reader reads.

    y [64, 2048]     y[:, :1] read by a multiplication of [64, 2048], rows 8..16      → rows 8..16 of y, and no block of
    its columns
    k [2, 5, 5]      a [5, 5] expanded to it, read by an addition of [2, 5, 5]        → all of a, whatever the block

Fusing, cutting by columns, parts of a batch, and values that take each other's place in memory all depend on the
answer, and ask here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import fx

from compiler.ops.record import Role
from compiler.tile.ir import Buffer
from compiler.tile.layout import Layout, contiguous, dense
from compiler.tile.nodes import base, op_name, role, shape, tensors
from isa.architecture import Dtype, Space

_NOWHERE = Buffer("nowhere", Space.DRAM, 0)


@dataclass(frozen=True, slots=True)
class Read:
    """One operand of a node: its dimension i is the node's row dimension i + `lead`, for i < `follows`; all of the
    others is read.

    `home`: read where it lives between kernels, not from the block that its own kernel has just computed.
    """

    operand: fx.Node
    lead: int
    follows: int
    home: bool = False

    def own_block(self, domain: Sequence[int]) -> bool:
        """Whether a block of the node, cut along leading sizes `domain`, reads exactly this block of the value behind
        the operand."""
        return (self.lead == 0 or not domain) and self.follows >= len(domain) and keeps(self.operand, domain)


def reads(node: fx.Node) -> Iterator[Read]:
    """The operands of a node, by position: one value may be read in two ways."""
    for position, given in enumerate(node.args):
        for operand in given if isinstance(given, tuple | list) else (given,):
            if isinstance(operand, fx.Node):
                yield _read(node, position, operand)
    yield from (_read(node, -1, given) for given in node.kwargs.values() if isinstance(given, fx.Node))


def _read(node: fx.Node, position: int, operand: fx.Node) -> Read:
    rank, first = len(shape(operand)), node.args[0]
    match role(node), position:
        case Role.MATMUL, 1:
            return Read(operand, len(shape(node)) - rank if rank > 2 else 0, rank - 2, home=True)
        case Role.GATHER, 0:
            return Read(operand, 0, 0, home=True)
        case (Role.MATMUL, _) | (Role.GATHER, _):
            return Read(operand, 0, rank)
        case Role.DEQUANTIZE, 1:
            return Read(operand, len(shape(node)) - 1 - rank, rank)
        case (Role.ROWS, _) | (Role.DOWN, _):
            assert isinstance(first, fx.Node)
            return Read(operand, len(shape(first)) - rank, rank)
        case _:
            return Read(operand, len(shape(node)) - rank, rank)


def keeps(node: fx.Node, domain: Sequence[int]) -> bool:
    """Whether `node` at an index of the leading sizes `domain` is made of the elements of its base at the same
    index."""
    origin, depth, sizes = base(node), len(domain), tuple(domain)
    if shape(origin)[:depth] != sizes or shape(node)[:depth] != sizes:
        return False
    if node is origin:
        return True
    found = view_of(node)
    if found is None:
        return False
    steps = contiguous(shape(origin))
    same = all(n == 1 or a == b for n, a, b in zip(sizes, found.strides, steps, strict=False))
    last = found.offset + sum((n - 1) * s for n, s in zip(found.shape[depth:], found.strides[depth:], strict=True))
    return same and last < prod(shape(origin)[depth:])


def view_of(node: fx.Node) -> Layout | None:
    """`node` as strides over its base in row-major order; None if that is not possible without a copy."""
    try:
        return follow(dense(_NOWHERE, Dtype.I8, shape(base(node))), node)
    except RuntimeError:
        return None


def reads_of(nodes: Sequence[fx.Node], origin: fx.Node) -> Iterator[tuple[fx.Node, Read]]:
    """Which of `nodes` read the value `origin`, and how."""
    for node in nodes:
        if any(base(n) is origin for n in tensors(node)):
            yield from ((node, read) for read in reads(node) if base(read.operand) is origin)


def follow(layout: Layout, node: fx.Node) -> Layout:
    """The layout of `node`, when that of its base is `layout`. Raises RuntimeError where a view on the way has no
    strides."""
    chain, origin = [], base(node)
    while node is not origin:
        chain.append(node)
        node = source(node)
    for view in reversed(chain):
        layout = _apply_view(layout, view)
    return layout


def source(node: fx.Node) -> fx.Node:
    """What a view is a view of."""
    found = node.args[0]
    assert isinstance(found, fx.Node)
    return found


def straight(node: fx.Node) -> bool:
    """Whether no view between `node` and its base changes the order of the elements."""
    origin = base(node)
    while node is not origin:
        if op_name(node) in ("permute", "clone"):
            return False
        node = source(node)
    return True


def _apply_view(layout: Layout, node: fx.Node) -> Layout:
    """What view `node` makes of `layout`. PyTorch itself answers, on a meta tensor with these strides."""
    out: Any
    meta = torch.empty_strided(layout.shape, layout.strides, dtype=torch.int8, device="meta")
    match op_name(node):
        case "clone":
            return layout
        case "view" | "reshape":
            out = meta.view(shape(node))
        case _:
            out = node.target(meta, *node.args[1:], **node.kwargs)  # type: ignore[operator]
    return replace(
        layout, shape=tuple(out.shape), strides=tuple(out.stride()), offset=layout.offset + int(out.storage_offset())
    )
