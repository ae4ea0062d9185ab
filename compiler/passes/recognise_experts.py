"""Recognise transformers' grouped products: rows that are sorted by their experts, and how many each expert has.

    before   %ids, %order = sort(%chosen); %x = index(%tokens, [floor_divide(%order, 2)])
             %ends = cumsum(histc(%ids, 8, 0, 7), 0); %y = grouped_mm(%x, %w, %ends)                    w [E, K, N]
             %back = index_put(%anything, [%order], arange(16))
    after    %m = embedding(reshape(%w, [8, K * N]), %ids); %y = matmul(%x, reshape(%m, [16, K, N]))
             %back = argsort(%order)

Row i belongs to expert %ids[i]: what is counted and summed up says nothing more. Where rows are more than experts, every
expert is computed for every row, and a row's own is looked up, as in `compiler.frontend.experts`.
"""

from dataclasses import dataclass
from math import prod
from operator import getitem
from typing import ClassVar

import torch
from torch import fx
from torch.fx.node import Target

from compiler.graph.arguments import argument, integer, number, optional_tensor, tensor
from compiler.graph.editor import Editor, aten, dtype_of, is_static, shape_of
from compiler.graph.rules import Rule, apply_rules

GROUPED = "transformers::grouped_mm_fallback", "aten::_grouped_mm"
_SORTS = (aten.sort.default, aten.sort.stable)


@dataclass(frozen=True)
class RecogniseExperts:
    name: ClassVar[str] = "recognise-experts"
    changes_bits: ClassVar[bool] = True
    gone: ClassVar[frozenset[Target]] = frozenset()

    def run(self, gm: fx.GraphModule) -> fx.GraphModule:
        found = {node.target for node in gm.graph.nodes if node.op == "call_function" and _name(node) in GROUPED}
        rules: dict[Target, Rule] = {**dict.fromkeys(found, _grouped), **RULES}
        return apply_rules(gm, self.name, rules, skip_static=True)


def _name(node: fx.Node) -> str:
    schema = getattr(node.target, "_schema", None)
    return "" if schema is None else str(schema.name)


def _grouped(editor: Editor, node: fx.Node) -> fx.Node | None:
    x, w, ends = tensor(node, 0), tensor(node, 1), optional_tensor(node, "offs")
    if ends is None or len(shape_of(x)) != 2 or len(shape_of(w)) != 3 or not is_static(w):
        return None
    count, k, n = shape_of(w)
    rows, ids = shape_of(x)[0], _sorted_ids(ends, count)
    if ids is None or shape_of(ids) != (rows,) or 0 in (count, k, n):
        return None
    if rows <= count:
        found = editor.emit(node, aten.embedding.default, editor.reshape(node, w, (count, k * n)), ids)
        matrices = editor.reshape(node, found, (rows, k, n))
        product = editor.emit(node, aten.matmul.default, editor.reshape(node, x, (rows, 1, k)), matrices)
        return editor.reshape(node, product, (rows, n))
    every = editor.emit(node, aten.matmul.default, editor.expand(node, _alone(editor, node, x), (count, rows, k)), w)
    first = editor.emit(node, aten.mul.Tensor, editor.cast(node, ids, torch.int32), rows)
    places = editor.emit(node, aten.arange.default, rows, dtype=torch.int32)
    places = editor.emit(node, aten.add.Tensor, first, places)
    return editor.emit(node, aten.embedding.default, editor.reshape(node, every, (count * rows, n)), places)


def _alone(editor: Editor, at: fx.Node, x: fx.Node) -> fx.Node:
    return editor.reshape(at, x, (1, *shape_of(x)))


def _sorted_ids(ends: fx.Node, experts: int) -> fx.Node | None:
    """The sorted numbers of experts, each of which is counted in `ends`, up to its own; None for any other lengths."""
    if ends.target is not aten.cumsum.default:
        return None
    counts = tensor(ends, 0)
    if counts.target is not aten.histc.default or integer(counts, "bins") != experts:
        return None
    ids = tensor(counts, 0)
    ids = tensor(ids, 0) if ids.target is aten._to_copy.default else ids
    each = (number(counts, "min"), number(counts, "max")) == (0, experts - 1)
    ascending = _part(ids, 0) and not argument(tensor(ids, "of"), "descending")
    return ids if each and ascending and not dtype_of(ids).is_floating_point else None


def _part(node: fx.Node, which: int) -> bool:
    """Whether it is the values (0) or the places (1) of a sort."""
    return node.target is getitem and integer(node, "index") == which and tensor(node, "of").target in _SORTS


def _index_put(editor: Editor, node: fx.Node) -> fx.Node | None:
    """0, 1, 2, … put at every place of an order is its inverse, whatever was there before."""
    indices, values = argument(node, "indices"), editor.known(argument(node, "values"))
    if not isinstance(indices, (list, tuple)) or len(indices) != 1 or argument(node, "accumulate"):
        return None
    (order,) = indices
    if not isinstance(order, fx.Node) or not _part(order, 1) or len(shape_of(order)) != 1:
        return None
    size = prod(shape_of(order))
    counted = values is not None and shape_of(node) == (size,) and torch.equal(values, torch.arange(size))
    return editor.emit(node, aten.argsort.default, order) if counted else None


RULES: dict[Target, Rule] = {aten.index_put.default: _index_put}
