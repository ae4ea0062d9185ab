"""Ranges of integers: where a 64-bit result certainly fits in the 32 bits in which the chip keeps it.

Every value that the chip holds is known to fit: inputs and constants are checked when they are bound. So a range is
only narrower where an operation says so.
"""

from collections.abc import Callable
from math import prod
from operator import getitem
from typing import TypeGuard

import torch
from torch import fx
from torch.fx.node import Argument, Target

from compiler.graph.arguments import argument, tensor
from compiler.graph.editor import aten, dtype_of, evaluate, is_static, shape_of
from compiler.ops import library as ops

Interval = tuple[int, int]
INT32: Interval = (-(1 << 31), (1 << 31) - 1)
DEPTH = 16  # operations to look back
SMALL = 1 << 12  # elements of a constant that is worth looking at


def interval(node: fx.Node) -> Interval | None:
    """The least and the largest value that an integer `node` can have; None if that may be more than 32 bits hold."""
    return _fitting(_result(node, DEPTH), dtype_of(node))


def _fitting(found: Interval, dtype: torch.dtype) -> Interval | None:
    low, high = _type_range(dtype)
    return found if low <= found[0] and found[1] <= high else None


def _of(value: fx.Node | float, depth: int) -> Interval:
    """The range of an operand: what the chip holds fits, and narrower types wrap."""
    if not isinstance(value, fx.Node):
        return int(value), int(value)
    found = _fitting(_result(value, depth - 1), dtype_of(value)) if depth else None
    return found or _type_range(dtype_of(value))


def _type_range(dtype: torch.dtype) -> Interval:
    if dtype is torch.bool:
        return 0, 1
    info = torch.iinfo(dtype)
    return max(info.min, INT32[0]), min(info.max, INT32[1])


def _result(node: fx.Node, depth: int) -> Interval:
    """The range of what `node` computes, before it has to fit."""
    if is_static(node):
        value = evaluate(node) if node.meta["val"].numel() <= SMALL else None
        return (
            _type_range(dtype_of(node)) if value is None or not value.numel() else (int(value.min()), int(value.max()))
        )
    if (longest := _counted(node)) is not None:
        return 0, max(longest - 1, 0)
    if node.op == "placeholder":
        limits: Interval = node.meta.get("limits", _type_range(dtype_of(node)))
        return limits
    if node.target is ops.matmul_i8:
        low, high = _mul(*(_of(tensor(node, name), depth) for name in ("a", "b")))
        count = shape_of(tensor(node, "a"))[-1]
        return min(low * count, 0), max(high * count, 0)
    rule = _RULES.get(node.target)
    given = node.args if rule is not _same else node.args[:1]
    operands = [arg for arg in given if isinstance(arg, (int, float)) or _is_integer(arg)]
    if rule is None or len(operands) < len(given):
        return _type_range(dtype_of(node))
    return rule(*(_of(arg, depth) for arg in operands))


def _counted(node: fx.Node) -> int | None:
    """The elements among which `node` says a place; None if it says something else."""
    if node.target is getitem and argument(node, "index") == 1:
        node = tensor(node, "of")
    if node.target not in _PLACES:
        return None
    dim, sizes = argument(node, "dim"), shape_of(tensor(node, "self"))
    return sizes[dim] if isinstance(dim, int) and sizes else prod(sizes)


def _is_integer(value: Argument) -> TypeGuard[fx.Node]:
    return (
        isinstance(value, fx.Node)
        and isinstance(value.meta["val"], torch.Tensor)
        and not dtype_of(value).is_floating_point
    )


def _same(a: Interval) -> Interval:
    return a


def _add(a: Interval, b: Interval) -> Interval:
    return a[0] + b[0], a[1] + b[1]


def _neg(a: Interval) -> Interval:
    return -a[1], -a[0]


def _mul(a: Interval, b: Interval) -> Interval:
    ends = [x * y for x in a for y in b]
    return min(ends), max(ends)


def _abs(a: Interval) -> Interval:
    return (0 if a[0] <= 0 <= a[1] else min(map(abs, a))), max(map(abs, a))


def _either(_condition: Interval, a: Interval, b: Interval) -> Interval:
    return min(a[0], b[0]), max(a[1], b[1])


_PLACES = (aten.argmax.default, aten.topk.default, aten.sort.default, aten.sort.stable)
_VIEWS = (aten.reshape, aten.view, aten.permute, aten.expand, aten.clone)
_RULES: dict[Target, Callable[..., Interval]] = {
    **dict.fromkeys(
        (*(view.default for view in _VIEWS), aten.slice.Tensor, aten.select.int, aten._to_copy.default), _same
    ),
    aten.add.Tensor: _add,
    aten.sub.Tensor: lambda a, b: _add(a, _neg(b)),
    aten.mul.Tensor: _mul,
    aten.floor_divide.default: lambda a, b: (a[0] // b[0], a[1] // b[0]) if 0 < b[0] == b[1] else INT32,
    aten.neg.default: _neg,
    aten.abs.default: _abs,
    **dict.fromkeys((aten.where.self, aten.where.Scalar, aten.where.ScalarSelf, aten.where.ScalarOther), _either),
}
