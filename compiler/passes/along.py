"""Along a dimension: running sums, and elements by computed places; quotients, which are looked up, too.

before   %y = cumsum(%truths, -1)
after    %a = _to_copy(%truths, dtype=int8); %y = llmchip.matmul_i8(%a, [[1, 1], [0, 1]], False)

before   %y = gather(%x, 1, %index)                                                 x [R, n], index [R, m]
after    %row = add(%index, [[0], [n]]); %e = embedding(reshape(%x, [R * n, 1]), %row); %y = reshape(%e, [R, m])
"""

from math import prod

import torch
from torch import fx
from torch.fx.node import Target

from compiler.graph.arguments import argument, integer, operand, tensor
from compiler.graph.editor import Editor, aten, dtype_of, shape_of
from compiler.graph.ranges import INT32, interval
from compiler.graph.rules import Rule
from compiler.ops import library as ops
from compiler.passes.places import last, taken

LONGEST = 1 << 10  # elements of a row that a triangle of ones sums
INT8 = (-128, 127)
QUOTIENTS = 1 << 12  # of a table


def _cumsum(editor: Editor, node: fx.Node) -> fx.Node | None:
    """Small integers are summed by a product with a triangle; others, and floats, in steps: x_i + x_(i-1), then
    x_i + x_(i-2), x_i + x_(i-4), … (docs/numerics.md). 64-bit sums must fit in 32 bits."""
    dtype, x = dtype_of(node), tensor(node, "self")
    rows, back = last(editor, node, x, integer(node, "dim"))
    count = shape_of(rows)[-1]
    if dtype is torch.bool or 0 in shape_of(rows):
        return None
    if not dtype.is_floating_point:
        if dtype_of(x).is_floating_point:
            return None
        low, high = interval(x) or INT32
        if dtype is torch.int64 and max(-low, high) * count > INT32[1]:
            return None
        if count <= LONGEST and INT8[0] <= low and high <= INT8[1]:
            return back(editor.cast(node, _by_product(editor, node, rows), dtype))
    wide = editor.cast(node, rows, torch.float32 if dtype.is_floating_point else torch.int32)
    return back(editor.cast(node, _in_steps(editor, node, wide), dtype))


def _by_product(editor: Editor, at: fx.Node, rows: fx.Node) -> fx.Node:
    """Exact int32 sums of int8."""
    count = shape_of(rows)[-1]
    flat = editor.reshape(at, editor.cast(at, rows, torch.int8), (prod(shape_of(rows)[:-1]), count))
    ones = editor.emit(at, aten.full.default, [count, count], 1, dtype=torch.int8)
    sums = editor.emit(at, ops.matmul_i8, flat, editor.emit(at, aten.triu.default, ones), False)
    return editor.reshape(at, sums, shape_of(rows))


def _in_steps(editor: Editor, at: fx.Node, x: fx.Node) -> fx.Node:
    dim, count = len(shape_of(x)) - 1, shape_of(x)[-1]
    step = 1
    while step < count:
        begin = editor.emit(at, aten.slice.Tensor, x, dim, 0, step)
        later = editor.emit(at, aten.slice.Tensor, x, dim, step, count)
        earlier = editor.emit(at, aten.slice.Tensor, x, dim, 0, count - step)
        x = editor.emit(at, aten.cat.default, [begin, editor.emit(at, aten.add.Tensor, later, earlier)], dim)
        step *= 2
    return x


def _gather(editor: Editor, node: fx.Node) -> fx.Node | None:
    """Elements of rows, of which PyTorch takes as many as there are places."""
    x, index = tensor(node, "self"), tensor(node, "index")
    if 0 in (*shape_of(x), *shape_of(index)):
        return None
    if not shape_of(x):
        x = editor.reshape(node, x, (1,))
    dim = integer(node, "dim") % len(shape_of(x))
    for place, size in enumerate(shape_of(index)):
        if place != dim and size < shape_of(x)[place]:
            x = editor.emit(node, aten.slice.Tensor, x, place, 0, size)
    rows, _ = last(editor, node, x, dim)
    places, back = last(editor, node, index, dim)
    return editor.reshape(node, back(taken(editor, node, rows, places)), shape_of(node))


def _quotient(editor: Editor, node: fx.Node) -> fx.Node | None:
    """Small numbers, none below zero, divided by a number above it: looked up in a table of quotients."""
    x, other = tensor(node, "self"), operand(node, "other")
    known = editor.known(other)
    by = known.item() if known is not None and known.numel() == 1 else other
    floor = node.target is aten.floor_divide.default or argument(node, "rounding_mode") == "floor"
    if not floor or not isinstance(by, int) or by < 1 or dtype_of(x).is_floating_point:
        return None
    low, high = interval(x) or INT32
    if low < 0 or high >= QUOTIENTS:
        return None
    numbers = editor.emit(node, aten.arange.default, high + 1, dtype=dtype_of(node))
    table = editor.reshape(node, editor.emit(node, aten.floor_divide.default, numbers, by), (high + 1, 1))
    return editor.reshape(node, editor.emit(node, aten.embedding.default, table, x), shape_of(node))


RULES: dict[Target, Rule] = {
    aten.cumsum.default: _cumsum,
    aten.gather.default: _gather,
    **dict.fromkeys(
        (aten.floor_divide.default, aten.div.Tensor_mode, aten.div.Scalar_mode, aten.floor_divide.Scalar), _quotient
    ),
}
