"""Resizing of images and signals: each dimension by itself, as sums of rows of a table.

    before   %y = upsample_bilinear2d(%x, [8, 8], False)
    after    %w = upsample_bilinear2d(eye, …)                           [in, out], what each element counts for; packed
             %y = embedding(%x, first) * %w[first] + embedding(%x, second) * %w[second]        first, second: where in a
                                                                                               column %w is not zero

So the places and their weights are PyTorch's own. What takes one element for each, whole times, is a view.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import fx
from torch._ops import OpOverload
from torch.fx.node import Target

from compiler.graph.arguments import argument, by_name, tensor
from compiler.graph.editor import Editor, aten, dtype_of, shape_of
from compiler.graph.manager import unsupported
from compiler.graph.rules import Rule, apply_rules
from compiler.passes.windows import channels_first, channels_last

MOST = 16  # elements that one of the result may be made of, along a dimension


@dataclass(frozen=True)
class Resize:
    name: ClassVar[str] = "resize"
    changes_bits: ClassVar[bool] = True
    gone: ClassVar[frozenset[Target]] = frozenset()

    def run(self, gm: fx.GraphModule) -> fx.GraphModule:
        return apply_rules(gm, self.name, RULES, skip_static=True)


def _resize(editor: Editor, node: fx.Node) -> fx.Node | None:
    """[N, C, …]: with the channels last, from the first dimension on, whose rows are the widest. In float32, rounded
    once; where elements are only taken, in their own type."""
    x = tensor(node, "input")
    dtype, sizes = dtype_of(x), shape_of(x)
    if not dtype.is_floating_point or 0 in (*sizes, *shape_of(node)):
        return None
    y = channels_last(editor, node, x)
    for dim in range(2, len(sizes)):
        y = _along(editor, node, y, dim - 1, _shares(editor, node, dim))
    return channels_first(editor, node, editor.cast(node, y, dtype))


def _shares(editor: Editor, node: fx.Node, dim: int) -> fx.Node:
    """[in, out]: what each element of a dimension counts for in each of the result, which PyTorch makes of single ones.
    It is asked about the last dimension, the others being of size one: torch 2.13 resizes an image of width one by
    "antialias" wrongly."""
    count, out, others = shape_of(tensor(node, "input"))[dim], shape_of(node)[dim], [1] * (len(shape_of(node)) - 3)
    given = by_name(node)
    eye = editor.emit(node, aten.eye.default, count, dtype=torch.float32)
    given["input"] = editor.reshape(node, eye, (count, 1, *others, count))
    if given["output_size"] is not None:
        given["output_size"] = [*others, out]
    if (factors := argument(node, "scale_factors")) is not None:
        assert isinstance(factors, (list, tuple))
        given["scale_factors"] = [*map(float, others), factors[dim - 2]]
    return editor.reshape(node, editor.emit(node, node.target, *given.values()), (count, out))


def _along(editor: Editor, at: fx.Node, x: fx.Node, dim: int, shares: fx.Node) -> fx.Node:
    known = editor.known(shares)
    if known is None:
        raise unsupported(at, f"resizes {shape_of(shares)[0]} elements, which are too many")
    count, out = known.shape
    taps = int((known != 0).sum(0).max())
    if taps > MOST:
        raise unsupported(at, f"makes an element of {taps} others, of which {MOST} are possible")
    if taps == 1 and bool((known.sum(0) == 1).all()):  # nearest: elements as they are
        if count == out and bool((known.diagonal() == 1).all()):
            return x
        if out % count == 0 and torch.equal(known.argmax(0), torch.arange(out) // (out // count)):
            return _repeated(editor, at, x, dim, out // count)
        return _taken(editor, at, x, dim, editor.emit(at, aten.argmax.default, shares, 0))
    x = editor.cast(at, x, torch.float32)
    there = editor.emit(at, aten._to_copy.default, editor.emit(at, aten.ne.Scalar, shares, 0), dtype=torch.int8)
    places = editor.emit(at, aten.argsort.stable, there, stable=True, dim=0, descending=True)
    factors = editor.emit(at, aten.gather.default, shares, 0, places)
    # what counts for nothing is an element that counts, lest a far infinity times zero shows
    first = editor.emit(at, aten.slice.Tensor, places, 0, 0, 1)
    places = editor.emit(at, aten.where.self, editor.emit(at, aten.ne.Scalar, factors, 0), places, first)
    total = None
    for tap in range(taps):
        place, factor = (editor.emit(at, aten.select.int, given, 0, tap) for given in (places, factors))
        factor = editor.reshape(at, factor, (out, *[1] * (len(shape_of(x)) - dim - 1)))
        term = editor.emit(at, aten.mul.Tensor, _taken(editor, at, x, dim, place), factor)
        total = term if total is None else editor.emit(at, aten.add.Tensor, total, term)
    assert total is not None
    return total


def _repeated(editor: Editor, at: fx.Node, x: fx.Node, dim: int, times: int) -> fx.Node:
    sizes = shape_of(x)
    apart = editor.reshape(at, x, (*sizes[: dim + 1], 1, *sizes[dim + 1 :]))
    wide = editor.expand(at, apart, (*sizes[: dim + 1], times, *sizes[dim + 1 :]))
    return editor.reshape(at, wide, (*sizes[:dim], sizes[dim] * times, *sizes[dim + 1 :]))


def _taken(editor: Editor, at: fx.Node, x: fx.Node, dim: int, places: fx.Node) -> fx.Node:
    """What is at known `places` along a dimension: rows of a table, of which every index before has its own stretch."""
    sizes, (out,) = shape_of(x), shape_of(places)
    lead, rest = prod(sizes[:dim]), prod(sizes[dim + 1 :])
    firsts = editor.emit(at, aten.arange.start_step, 0, lead * sizes[dim], sizes[dim], dtype=torch.int64)
    rows = editor.emit(at, aten.add.Tensor, editor.reshape(at, firsts, (lead, 1)), places)
    table = editor.reshape(at, x, (lead * sizes[dim], rest))
    found = editor.emit(at, aten.embedding.default, table, editor.reshape(at, rows, (lead * out,)))
    return editor.reshape(at, found, (*sizes[:dim], out, *sizes[dim + 1 :]))


_KINDS: tuple[OpOverload, ...] = (
    aten.upsample_nearest1d.vec, aten.upsample_nearest2d.vec, aten.upsample_nearest3d.vec,
    aten._upsample_nearest_exact1d.vec, aten._upsample_nearest_exact2d.vec, aten._upsample_nearest_exact3d.vec,
    aten.upsample_linear1d.vec, aten.upsample_bilinear2d.vec, aten.upsample_trilinear3d.vec,
    aten.upsample_bicubic2d.vec, aten._upsample_bilinear2d_aa.vec, aten._upsample_bicubic2d_aa.vec,
)  # fmt: skip
RULES: Mapping[Target, Rule] = dict.fromkeys(_KINDS, _resize)
