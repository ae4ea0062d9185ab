"""Order: argmax, topk and sort, of what the chip has: comparisons, counts, and where the largest of a row is.

    before   %t = topk(%x, 2); %values = getitem(%t, 0); %indices = getitem(%t, 1)
    after    %before = where(%earlier, %x_i <= %x_j, not %x_j <= %x_i); %rank = llmchip.reduce(%before, "sum", -1, False)
             %hit = %rank == [[0], [1]]; %indices = argmax(%hit, -1)
             %values = llmchip.reduce(where(%hit, %x, 0), "sum", -1, False)        of weights; else looked up at %indices

An element's rank is how many stand before it, so equal ones stay in their order, as `sort(stable=True)` has them, and
NaN is the largest. That compares every pair of a row: right for the experts of a router, slow for a vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import fx
from torch.fx.node import Target

from compiler.graph.arguments import argument, integer, tensor
from compiler.graph.editor import Editor, aten, dtype_of, shape_of
from compiler.graph.rules import Rule
from compiler.ops import library as ops
from compiler.passes.places import Back, last, taken

LONGEST = 1 << 11  # elements of a row: its pairs are that many squared


def _argmax(editor: Editor, node: fx.Node) -> fx.Node | None:
    """Over the last dimension, which goes."""
    x, dim = tensor(node, "self"), argument(node, "dim")
    if node.args[1:] == (-1,) and not node.kwargs:
        return None
    if dim is None:
        rows = editor.reshape(node, x, (x.meta["val"].numel(),))
    else:
        rows, _ = last(editor, node, x, integer(node, "dim"))
    return editor.reshape(node, editor.emit(node, aten.argmax.default, rows, -1), shape_of(node))


def _topk(editor: Editor, node: fx.Node) -> None:
    """In order, whether that is asked for or not."""
    _ordered(editor, node, integer(node, "k"), bool(argument(node, "largest")))


def _argsort(editor: Editor, node: fx.Node) -> fx.Node | None:
    x = tensor(node, "self")
    count = shape_of(x)[integer(node, "dim")] if shape_of(x) else 1
    found = _front(editor, node, count, bool(argument(node, "descending")))
    return None if found is None else found.places(editor, node)


def _sort(editor: Editor, node: fx.Node) -> None:
    x, dim = tensor(node, "self"), integer(node, "dim")
    _ordered(editor, node, shape_of(x)[dim] if shape_of(x) else 1, bool(argument(node, "descending")))


def _ordered(editor: Editor, node: fx.Node, count: int, descending: bool) -> None:
    """Let the readers of both results read the first `count` elements of each row, and their places."""
    readers = [(integer(user, 1), user) for user in node.users]
    if (found := _front(editor, node, count, descending)) is None:
        return
    for number, user in readers:
        editor.replace(user, (found.places if number else found.values)(editor, node))


@dataclass(frozen=True, slots=True)
class _Front:
    """The first elements of each of `rows` in order: `hit` [..., count, n] says which it is."""

    rows: fx.Node
    hit: fx.Node
    back: Back

    def values(self, editor: Editor, at: fx.Node) -> fx.Node:
        """A sum with nothing but zeros keeps neither integers nor the sign of a zero."""
        if not _weights(self.rows):
            return self.back(taken(editor, at, self.rows, self._places(editor, at)))
        only = editor.emit(at, aten.where.ScalarOther, self.hit, _row(editor, at, self.rows), 0.0)
        return self.back(editor.emit(at, ops.reduce, only, "sum", -1, False))

    def places(self, editor: Editor, at: fx.Node) -> fx.Node:
        return self.back(self._places(editor, at))

    def _places(self, editor: Editor, at: fx.Node) -> fx.Node:
        return editor.emit(at, aten.argmax.default, editor.cast(at, self.hit, torch.float32), -1)


def _weights(x: fx.Node) -> bool:
    """Whether x is a softmax, seen in any shape: floats of which none is -0. A router's are."""
    while x.target in (aten.reshape.default, aten.permute.default):
        x = tensor(x, 0)
    return x.target is ops.softmax


def _front(editor: Editor, at: fx.Node, count: int, descending: bool) -> _Front | None:
    """The first `count` elements along the dimension of `at`; None for none, and for rows that are too long."""
    rows, back = last(editor, at, tensor(at, "self"), integer(at, "dim"))
    if shape_of(rows)[-1] > LONGEST or 0 in shape_of(rows) or not count:
        return None
    rank = _rank(editor, at, rows, descending)
    places = editor.emit(at, aten.arange.default, count, dtype=torch.float32)
    hit = editor.emit(at, aten.eq.Tensor, _row(editor, at, rank), editor.reshape(at, places, (count, 1)))
    return _Front(rows, hit, back)


def _row(editor: Editor, at: fx.Node, x: fx.Node) -> fx.Node:
    """[..., n] as [..., 1, n]."""
    return editor.reshape(at, x, (*shape_of(x)[:-1], 1, shape_of(x)[-1]))


def _rank(editor: Editor, at: fx.Node, rows: fx.Node, descending: bool) -> fx.Node:
    """How many elements of a row stand before each. Of two, i and an earlier or later j, that is j if

    descending   earlier: x_i <= x_j or j is NaN         later: not (x_j <= x_i or i is NaN)
    ascending    earlier: x_j <= x_i or i is NaN         later: not (x_i <= x_j or j is NaN)
    """
    count = shape_of(rows)[-1]
    i, j = editor.reshape(at, rows, (*shape_of(rows), 1)), _row(editor, at, rows)

    def least(a: fx.Node, b: fx.Node) -> fx.Node:
        """a <= b, where NaN is the largest."""
        found = editor.emit(at, aten.le.Tensor, a, b)
        if not dtype_of(rows).is_floating_point:
            return found
        return editor.emit(at, aten.bitwise_or.Tensor, found, editor.emit(at, aten.ne.Tensor, b, b))

    ones = editor.emit(at, aten.full.default, [count, count], True, dtype=torch.bool)
    earlier = editor.emit(at, aten.tril.default, ones, -1)
    first, second = (least(i, j), least(j, i)) if descending else (least(j, i), least(i, j))
    before = editor.emit(at, aten.where.self, earlier, first, editor.emit(at, aten.logical_not.default, second))
    return editor.emit(at, ops.reduce, editor.cast(at, before, torch.float32), "sum", -1, False)


RULES: dict[Target, Rule] = {
    aten.argmax.default: _argmax,
    aten.topk.default: _topk,
    **dict.fromkeys((aten.argsort.default, aten.argsort.stable), _argsort),
    **dict.fromkeys((aten.sort.default, aten.sort.stable), _sort),
}
