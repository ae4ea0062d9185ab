"""Resizing of images and signals: each dimension by itself, as sums of rows of a table.

    before   %y = upsample_bilinear2d(%x, [8, 8], False)
    after    %w = upsample_bilinear2d(eye, …)                           [in, out], what each element counts for; packed
             %y = embedding(%x, first) * %w[first] + embedding(%x, second) * %w[second]        first, second: where in a
                                                                                               column %w is not zero

So the places and their weights are PyTorch's own. Elements that PyTorch reads for nothing are terms too: an infinite
one is NaN there. What takes one element for each, whole times, is a view.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, prod
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
        y = _along(editor, node, y, dim - 1, _single(editor, node, dim, 1.0), _single(editor, node, dim, inf))
    return channels_first(editor, node, editor.cast(node, y, dtype))


def _single(editor: Editor, node: fx.Node, dim: int, value: float) -> fx.Node:
    """[in, out]: what PyTorch makes of a dimension where all is zero but one element, of this value.

    It is asked about the last dimension: torch 2.13 resizes an image of width one by "antialias" wrongly. What has no
    kind for one dimension is asked about the middle one of three rows: a single one is read again for nothing, which
    shows where it is infinite. Never about more than [in, out] at once, which is all that is evaluated while compiling.
    """
    count, out = shape_of(tensor(node, "input"))[dim], shape_of(node)[dim]
    kind, others = (_OF_ONE[node.target], 0) if node.target in _OF_ONE else (node.target, 1)
    given = by_name(node)
    if given["output_size"] is not None:
        given["output_size"] = [*[3] * others, out]
    if (factors := argument(node, "scale_factors")) is not None:
        assert isinstance(factors, (list, tuple))
        given["scale_factors"] = [*[1.0] * others, factors[dim - 2]]
    eye = editor.emit(node, aten.eye.default, count, dtype=torch.float32)
    eye = editor.emit(node, aten.masked_fill.Scalar, eye, editor.emit(node, aten.ne.Scalar, eye, 0), value)
    answers, step = [], -(-count // 3**others)
    for first in range(0, count, step):
        last = min(first + step, count)
        asked = editor.emit(node, aten.slice.Tensor, eye, 0, first, last)
        asked = editor.reshape(node, asked, (last - first, 1, *[1] * others, count))
        if others:
            asked = editor.emit(node, aten.constant_pad_nd.default, asked, [0, 0, 1, 1], 0.0)
        given["input"] = asked
        answer = editor.emit(node, kind, *given.values())
        if others:
            answer = editor.emit(node, aten.select.int, answer, 2, 1)
        answers.append(editor.reshape(node, answer, (last - first, out)))
    return editor.emit(node, aten.cat.default, answers)


def _along(editor: Editor, at: fx.Node, x: fx.Node, dim: int, shares: fx.Node, infinite: fx.Node) -> fx.Node:
    """The sum of elements times their `shares` [in, out], and of those times zero of which an infinite one makes NaN:
    PyTorch reads them too, but for nothing."""
    lost = editor.emit(at, aten.isnan.default, infinite)
    known, known_lost = editor.known(shares), editor.known(lost)
    if known is None or known_lost is None:
        raise unsupported(at, f"resizes {shape_of(shares)[0]} elements, which are too many")
    (count, out), rank = known.shape, len(shape_of(x))
    counting = (known != 0).sum(0)
    if (most := int(counting.max())) > MOST:
        raise unsupported(at, f"makes an element of {most} others, of which {MOST} are possible")
    taps = counting + known_lost.sum(0)
    if int(taps.max()) == 1 and bool((known.sum(0) == 1).all()):  # nearest: elements as they are
        return _taken(editor, at, x, dim, editor.emit(at, aten.argmax.default, shares, 0))
    x = editor.cast(at, x, torch.float32)
    there = editor.emit(at, aten.cat.default, [editor.emit(at, aten.ne.Scalar, shares, 0), lost])
    factors = editor.emit(at, aten.cat.default, [shares, editor.emit(at, aten.zeros_like.default, shares)])
    order = editor.emit(at, aten._to_copy.default, there, dtype=torch.int8)
    order = editor.emit(at, aten.argsort.stable, order, stable=True, dim=0, descending=True)
    places = editor.emit(at, aten.remainder.Scalar, order, count)
    there, factors = (editor.emit(at, aten.gather.default, given, 0, order) for given in (there, factors))
    total = None
    for tap in range(int(taps.max())):
        place, factor, counts = (editor.emit(at, aten.select.int, of, 0, tap) for of in (places, factors, there))
        factor, counts = (editor.reshape(at, of, (out, *[1] * (rank - dim - 1))) for of in (factor, counts))
        term = editor.emit(at, aten.mul.Tensor, _taken(editor, at, x, dim, place), factor)
        if tap >= int(taps.min()):  # where others have one more, none: 0.0 would make 0.0 of -0.0
            term = editor.emit(at, aten.where.ScalarOther, counts, term, -0.0)
        total = term if total is None else editor.emit(at, aten.add.Tensor, total, term)
    assert total is not None
    return total


def _repeated(editor: Editor, at: fx.Node, x: fx.Node, dim: int, times: int) -> fx.Node:
    sizes = shape_of(x)
    apart = editor.reshape(at, x, (*sizes[: dim + 1], 1, *sizes[dim + 1 :]))
    wide = editor.expand(at, apart, (*sizes[: dim + 1], times, *sizes[dim + 1 :]))
    return editor.reshape(at, wide, (*sizes[:dim], sizes[dim] * times, *sizes[dim + 1 :]))


def _taken(editor: Editor, at: fx.Node, x: fx.Node, dim: int, places: fx.Node) -> fx.Node:
    """What is at `places` along a dimension: a view, or rows of a table, of which every index before has its own
    stretch."""
    sizes, (out,), known = shape_of(x), shape_of(places), editor.known(places)
    times = out // sizes[dim]
    if known is not None and times and torch.equal(known, torch.arange(out) // times):
        return x if times == 1 else _repeated(editor, at, x, dim, times)
    lead, rest = prod(sizes[:dim]), prod(sizes[dim + 1 :])
    firsts = editor.emit(at, aten.arange.start_step, 0, lead * sizes[dim], sizes[dim], dtype=torch.int64)
    rows = editor.emit(at, aten.add.Tensor, editor.reshape(at, firsts, (lead, 1)), places)
    table = editor.reshape(at, x, (lead * sizes[dim], rest))
    found = editor.emit(at, aten.embedding.default, table, editor.reshape(at, rows, (lead * out,)))
    return editor.reshape(at, found, (*sizes[:dim], out, *sizes[dim + 1 :]))


_OF_ONE: Mapping[Target, OpOverload] = {  # the kind that resizes one dimension in the same way
    aten.upsample_nearest1d.vec: aten.upsample_nearest1d.vec,
    aten.upsample_nearest2d.vec: aten.upsample_nearest1d.vec,
    aten.upsample_nearest3d.vec: aten.upsample_nearest1d.vec,
    aten._upsample_nearest_exact1d.vec: aten._upsample_nearest_exact1d.vec,
    aten._upsample_nearest_exact2d.vec: aten._upsample_nearest_exact1d.vec,
    aten._upsample_nearest_exact3d.vec: aten._upsample_nearest_exact1d.vec,
    aten.upsample_linear1d.vec: aten.upsample_linear1d.vec,
    aten.upsample_bilinear2d.vec: aten.upsample_linear1d.vec,
    aten.upsample_trilinear3d.vec: aten.upsample_linear1d.vec,
}
_OF_TWO = (aten.upsample_bicubic2d.vec, aten._upsample_bilinear2d_aa.vec, aten._upsample_bicubic2d_aa.vec)
RULES: Mapping[Target, Rule] = dict.fromkeys((*_OF_ONE, *_OF_TWO), _resize)
