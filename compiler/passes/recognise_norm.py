"""Recognise the root mean square norm, which models write out, as a layer norm that is not centered.

before   %s = reduce(mul(%x, %x), sum, -1); %r = activation(add(reshape(mul(%s, 1/n)), eps), rsqrt)
         %y = mul(mul(%x, %r), %weight)
after    %y = llmchip.layer_norm(%x, %weight, None, eps, False)

float32 only: of other types the steps round, each to its own.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx
from torch.fx.node import Target

from compiler.graph.arguments import argument, integer, number, tensor
from compiler.graph.editor import Editor, aten, dtype_of, is_static, shape_of
from compiler.graph.rules import Rule, apply_rules
from compiler.ops import library as ops
from compiler.passes.codes import float32


@dataclass(frozen=True)
class RecogniseNorm:
    name: ClassVar[str] = "recognise-norm"
    changes_bits: ClassVar[bool] = False
    gone: ClassVar[frozenset[Target]] = frozenset()

    def run(self, gm: fx.GraphModule) -> fx.GraphModule:
        return apply_rules(gm, self.name, RULES, skip_static=True)


def _product(editor: Editor, node: fx.Node) -> fx.Node | None:
    a, b = node.args[0], node.args[1]
    if not isinstance(a, fx.Node) or not isinstance(b, fx.Node) or dtype_of(node) is not torch.float32:
        return None
    for x, other in ((a, b), (b, a)):
        eps = _root(x, other)
        if eps is not None:
            return editor.emit(node, ops.layer_norm, x, None, None, eps, False)
        if _bare(x) and is_static(other) and shape_of(other) == shape_of(x)[-1:] and dtype_of(other) is torch.float32:
            return editor.emit(node, ops.layer_norm, tensor(x, 0), other, None, number(x, "eps"), False)
    return None


def _bare(node: fx.Node) -> bool:
    """Whether this is a norm that is not scaled yet, and read by nobody else."""
    return (
        node.target is ops.layer_norm
        and len(node.users) == 1
        and argument(node, "weight") is None
        and argument(node, "center") is False
    )


def _root(x: fx.Node, factor: fx.Node) -> float | None:
    """The eps of 1 / sqrt(mean(x * x) + eps), if that is what `factor` is."""
    if factor.target is not ops.activation or argument(factor, "kind") != "rsqrt":
        return None
    total = tensor(factor, 0)
    if (
        total.target is not aten.add.Tensor
        or not isinstance(eps := total.args[1], float)
        or dtype_of(x) != dtype_of(total)
    ):
        return None
    if shape_of(total) != (*shape_of(x)[:-1], 1):
        return None
    mean = _unshaped(total.args[0])
    if mean is None or mean.target is not aten.mul.Tensor or mean.args[1] != float32(1.0 / shape_of(x)[-1]):
        return None
    sums = _unshaped(mean.args[0])
    if sums is None or sums.target is not ops.reduce or integer(sums, "dim") != -1:
        return None
    inner = tensor(sums, 0)
    if argument(sums, "kind") == "sumsq":
        return eps if inner is x else None
    squared = inner.target is aten.mul.Tensor and inner.args[0] is x and inner.args[1] is x
    return eps if argument(sums, "kind") == "sum" and squared else None


def _unshaped(node: object) -> fx.Node | None:
    while isinstance(node, fx.Node) and node.target in (aten.reshape.default, aten.view.default):
        node = node.args[0]
    return node if isinstance(node, fx.Node) else None


RULES: dict[Target, Rule] = {aten.mul.Tensor: _product}
