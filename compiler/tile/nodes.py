"""What the tile passes need to know of a lowered FX node: its role, shape, type and row domain.

The *row domain* of an operation is the leading part of its shape over which it can be cut into blocks
without changing a bit: everything for elementwise work, all but the last dimension for rows that are
reduced, normalised or quantized.
"""

from collections.abc import Iterator
from operator import getitem
from typing import Any

import torch
from torch import fx

from compiler.ops.record import Role
from compiler.ops.table import BY_TARGET
from compiler.types import STORAGE
from isa.architecture import Dtype
from isa.errors import UnsupportedError


def op_name(node: fx.Node) -> str:
    """Base name of the operation: `add` for aten.add.Tensor; "" for what is none."""
    op = BY_TARGET.get(node.target)
    return op.name if op else ""


def role(node: fx.Node) -> Role:
    """How the tile passes treat a call_function node."""
    op = BY_TARGET[node.target]
    if op.moves and node.meta.get("copy"):
        return Role.ELEMENTWISE
    if op.role is Role.DOWN:
        rank, dim = value(node.args[0]).ndim, node.args[2]
        assert isinstance(dim, int)
        return Role.DOWN if rank > 1 and dim % rank == rank - 2 else Role.ROWS
    return op.role


def value(node: Any) -> torch.Tensor:
    """The fake tensor a node stands for (the first of several)."""
    val = node.meta["val"]
    return val[0] if isinstance(val, tuple | list) else val  # type: ignore[no-any-return]


def is_empty(node: fx.Node) -> bool:
    """Whether a node has no element at all, so that there is nothing to compute, to store or to read."""
    val = node.meta["val"]
    return all(v.numel() == 0 for v in (val if isinstance(val, tuple | list) else (val,)))


def shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(value(node).shape)


def dtype(node: fx.Node) -> Dtype:
    """How the chip stores the value. Raises UnsupportedError for a type that it does not have."""
    kind = value(node).dtype
    if kind not in STORAGE:
        raise UnsupportedError(f"type {kind} does not exist on the chip", node.name)
    return STORAGE[kind]


def row_domain(node: fx.Node) -> tuple[int, ...]:
    """The leading sizes over which the node can be cut into blocks."""
    match role(node):
        case Role.ROWS:
            return shape(node.args[0])[:-1]  # type: ignore[arg-type]
        case Role.DOWN:
            return shape(node.args[0])[:-2]  # type: ignore[arg-type]
        case Role.MATMUL | Role.DEQUANTIZE | Role.GATHER:
            return shape(node)[:-1]
        case Role.CAT:
            return shape(node)[: axis(node)]
        case _:
            return shape(node)


def axis(node: fx.Node) -> int:
    """The dimension along which a `cat` joins."""
    given: Any = node.args[1] if len(node.args) > 1 else 0
    return int(given) % len(shape(node))


def base(node: fx.Node) -> fx.Node:
    """The node whose value this one is a view of (itself, unless it is a view).

    A getitem of an operation with several results is a value of its own.
    """
    while node.op == "call_function" and role(node) is Role.VIEW:
        if node.target is getitem:
            return node
        node = node.args[0]  # type: ignore[assignment]
    return node


def computing(node: fx.Node) -> fx.Node:
    """The operation that computes a value: the tuple behind a getitem, else the node itself."""
    return node.args[0] if node.target is getitem else node  # type: ignore[return-value]


def tensors(node: fx.Node) -> Iterator[fx.Node]:
    """The tensor operands of a node."""
    yield from (n for n in node.all_input_nodes if n.op != "get_attr")
