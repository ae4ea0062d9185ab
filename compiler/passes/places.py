"""Dimensions moved to the end, and elements of rows by their places there."""

from collections.abc import Callable
from math import prod

import torch
from torch import fx

from compiler.graph.editor import Editor, aten, shape_of
from compiler.graph.ranges import INT32, interval

Back = Callable[[fx.Node], fx.Node]


def last(editor: Editor, at: fx.Node, x: fx.Node, dim: int) -> tuple[fx.Node, Back]:
    """x with `dim` moved to the end, and the way back. A single number is a row of one."""
    if not shape_of(x):
        return editor.reshape(at, x, (1,)), lambda y: editor.reshape(at, y, ())
    rank = len(shape_of(x))
    order = [d for d in range(rank) if d != dim % rank] + [dim % rank]
    inverse = [order.index(d) for d in range(rank)]
    return editor.permute(at, x, order), lambda y: editor.permute(at, y, inverse)


def taken(editor: Editor, at: fx.Node, rows: fx.Node, places: fx.Node) -> fx.Node:
    """Of each row of `rows` [..., n] the elements at `places` [..., m], looked up as rows of one element of a table. A
    place outside the row becomes none of any: it traps."""
    lead, count = shape_of(rows)[:-1], shape_of(rows)[-1]
    low, high = interval(places) or INT32
    places = editor.cast(at, places, torch.int32)
    number = places
    if lead:
        numbers = editor.emit(at, aten.arange.default, prod(lead), dtype=torch.int32)
        firsts = editor.reshape(at, editor.emit(at, aten.mul.Tensor, numbers, count), (*lead, 1))
        number = editor.emit(at, aten.add.Tensor, places, firsts)
    for target, bound, outside in ((aten.lt.Scalar, 0, low < 0), (aten.ge.Scalar, count, high >= count)):
        if outside:
            bad = editor.emit(at, target, places, bound)
            number = editor.emit(at, aten.where.ScalarSelf, bad, -1, number)
    table = editor.reshape(at, rows, (prod(lead) * count, 1))
    return editor.reshape(at, editor.emit(at, aten.embedding.default, table, number), shape_of(places))
