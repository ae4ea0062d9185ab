"""Access: which elements of a value an operand is, through its views, and which of them a block of its reader reads.

    y [64, 2048]     y[:, :1] read by a multiplication of [64, 2048], rows 8..16      → rows 8..16 of y, and no block of
    its columns
    k [2, 5, 5]      a [5, 5] expanded to it, read by an addition of [2, 5, 5]        → all of a, whatever the block

Fusing, cutting by columns, parts of a batch, and values that take each other's place in memory all depend on the
answer, and ask here.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch

from compiler.ops.record import Role
from compiler.tile.ir import Buffer
from compiler.tile.kernel_op import CHOSEN, KernelOp
from compiler.tile.layout import Layout, contiguous, dense
from isa.architecture import Dtype, Space

_NOWHERE = Buffer("nowhere", Space.DRAM, 0)


@dataclass(frozen=True, slots=True)
class Read:
    """One operand of a node: its dimension i is the node's row dimension i + `lead`, for i < `follows`; all of the
    others is read.

    `stored`: read where it lives between kernels, not from the block that its own kernel has just computed.
    """

    operand: KernelOp
    lead: int
    follows: int
    stored: bool = False

    def own_block(self, domain: Sequence[int]) -> bool:
        """Whether a block of the node, cut along leading sizes `domain`, reads exactly this block of the value behind
        the operand."""
        return (self.lead == 0 or not domain) and self.follows >= len(domain) and keeps(self.operand, domain)


def reads(node: KernelOp) -> Iterator[Read]:
    """The operands of a node, by position: one value may be read in two ways."""
    for position, given in enumerate(node.args.values()):
        for operand in given if isinstance(given, tuple) else (given,):
            if isinstance(operand, KernelOp):
                yield _read(node, position, operand)


def _read(node: KernelOp, position: int, operand: KernelOp) -> Read:
    rank = len(operand.shape)
    match node.role, position:
        case Role.MATMUL, 1 if node.kind == CHOSEN:  # blocks of a table
            return Read(operand, 0, 0, stored=True)
        case Role.MATMUL, 1:
            return Read(operand, len(node.shape) - rank if rank > 2 else 0, rank - 2, stored=True)
        case (Role.GATHER, 0) | (Role.MATMUL, 3 | 4 | 5 | 6):  # a table; what belongs to the weights of a product
            return Read(operand, 0, 0, stored=True)
        case Role.WINDOW, _:  # places beside its own; all of what belongs to the channels
            return Read(operand, 0, 1 if position == 0 else 0, stored=True)
        case (Role.MATMUL, _) | (Role.GATHER, _):
            return Read(operand, 0, rank)
        case Role.ATTENTION, _:
            return Read(operand, 0, min(rank, 2), stored=True)
        case Role.DEQUANTIZE, 1:
            return Read(operand, len(node.shape) - 1 - rank, rank)
        case Role.ROWS, 2 if node.kind == "quantize_rows":  # one number for each row
            return Read(operand, len(node.first.shape) - 1 - rank, rank)
        case (Role.ROWS, _) | (Role.DOWN, _):
            return Read(operand, len(node.first.shape) - rank, rank)
        case _:
            return Read(operand, len(node.shape) - rank, rank)


def keeps(node: KernelOp, domain: Sequence[int]) -> bool:
    """Whether `node` at an index of the leading sizes `domain` is made of the elements of its base at the same
    index."""
    origin, depth, sizes = node.base, len(domain), tuple(domain)
    if origin.shape[:depth] != sizes or node.shape[:depth] != sizes:
        return False
    if node is origin:
        return True
    found = view_of(node)
    if found is None:
        return False
    steps = contiguous(origin.shape)
    same = all(n == 1 or a == b for n, a, b in zip(sizes, found.strides, steps, strict=False))
    last = found.offset + sum((n - 1) * s for n, s in zip(found.shape[depth:], found.strides[depth:], strict=True))
    return same and last < prod(origin.shape[depth:])


def view_of(node: KernelOp) -> Layout | None:
    """`node` as strides over its base in row-major order; None if that is not possible without a copy."""
    try:
        return follow(dense(_NOWHERE, Dtype.I8, node.base.shape), node)
    except RuntimeError:
        return None


def reads_of(nodes: Sequence[KernelOp], origin: KernelOp) -> Iterator[tuple[KernelOp, Read]]:
    """Which of `nodes` read the value `origin`, and how."""
    for node in nodes:
        if any(n.base is origin for n in node.operands):
            yield from ((node, read) for read in reads(node) if read.operand.base is origin)


def follow(layout: Layout, node: KernelOp) -> Layout:
    """The layout of `node`, when that of its base is `layout`. Raises RuntimeError where a view on the way has no
    strides."""
    chain, origin = [], node.base
    while node is not origin:
        chain.append(node)
        node = node.first
    for view in reversed(chain):
        layout = apply_view(layout, view)
    return layout


def straight(node: KernelOp) -> bool:
    """Whether no view between `node` and its base changes the order of the elements."""
    origin = node.base
    while node is not origin:
        if node.kind in ("permute", "clone"):
            return False
        node = node.first
    return True


def apply_view(layout: Layout, node: KernelOp) -> Layout:
    """What view `node` makes of `layout`, its source's.

    Raises RuntimeError where that is not possible without a copy.
    """
    if node.kind == "clone":
        return layout
    assert node.target is not None
    _, *arguments = node.args.items()
    found = _seen(node.kind, node.target, tuple(arguments), node.shape, layout.shape, layout.strides)
    if found is None:
        raise RuntimeError(f"{node} takes a copy")
    offset, shape, strides = found
    return layout.seen(layout.offset + offset, shape, strides)


Sizes = tuple[int, ...]


@lru_cache(maxsize=1 << 14)  # a search asks the same of every tiling that it tries
def _seen(
    kind: str,
    target: Callable[..., object],
    arguments: tuple[tuple[str, Any], ...],
    result: Sizes,
    shape: Sizes,
    strides: Sizes,
) -> tuple[int, Sizes, Sizes] | None:
    """Offset, shape and strides of a view of elements with `shape` and `strides`; None where that takes a copy. PyTorch
    itself answers, on a meta tensor. A reshape is asked as a view, which does not copy in silence."""
    whole = torch.empty_strided(shape, strides, dtype=torch.int8, device="meta")
    try:
        found = whole.view(result) if kind in ("view", "reshape") else target(whole, **dict(arguments))
    except RuntimeError:
        return None
    assert isinstance(found, torch.Tensor)
    return int(found.storage_offset()), tuple(found.shape), tuple(found.stride())
