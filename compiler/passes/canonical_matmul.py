"""CanonicalMatmul: every matrix product becomes `linear` (weights on the right) or `matmul` (two activations).

before   %y = addmm(%bias, %x, %w)            after    %t = permute(%w, [1, 0]); %y = linear(%x, %t, %bias)
before   %y = bmm(%q, %k)                     after    %y = matmul(%q, %k)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import fx
from torch.fx.node import Target

from compiler.graph.arguments import argument, optional_tensor, tensor
from compiler.graph.editor import Editor, aten, is_static, shape_of
from compiler.graph.rules import Rule, apply_rules


@dataclass(frozen=True)
class CanonicalMatmul:
    name: ClassVar[str] = "canonical-matmul"
    changes_bits: ClassVar[bool] = True
    gone: ClassVar[frozenset[Target]] = frozenset(
        {aten.mm.default, aten.bmm.default, aten.addmm.default, aten.mv.default, aten.dot.default}
    )

    def run(self, gm: fx.GraphModule) -> fx.GraphModule:
        return apply_rules(gm, self.name, RULES, skip_static=True)


def product(editor: Editor, at: fx.Node, a: fx.Node, b: fx.Node, bias: fx.Node | None = None) -> fx.Node:
    """a @ b (+ bias): a linear where b is a weight matrix."""
    if (
        is_static(b)
        and len(shape_of(b)) == 2
        and len(shape_of(a)) >= 2
        and (bias is None or _is_row(bias, shape_of(b)[1]))
    ):
        weight = editor.permute(at, b, [1, 0])
        return editor.emit(at, aten.linear.default, a, weight, *([] if bias is None else [bias]))
    out = editor.emit(at, aten.matmul.default, *_with_rows(editor, at, a, b))
    out = editor.reshape(
        at, out, (*_batch(a, b), *shape_of(a)[-2:-1][: len(shape_of(a)) - 1], *shape_of(b)[-1:][: len(shape_of(b)) - 1])
    )
    return out if bias is None else editor.emit(at, aten.add.Tensor, out, bias)


def _is_row(bias: fx.Node, size: int) -> bool:
    return is_static(bias) and shape_of(bias) == (size,)


def _batch(a: fx.Node, b: fx.Node) -> tuple[int, ...]:
    longest = max((shape_of(x)[:-2] for x in (a, b)), key=len)
    other = min((shape_of(x)[:-2] for x in (a, b)), key=len)
    padded = (1,) * (len(longest) - len(other)) + other
    return tuple(q if p == 1 else p for p, q in zip(longest, padded, strict=True))


def _with_rows(editor: Editor, at: fx.Node, a: fx.Node, b: fx.Node) -> tuple[fx.Node, fx.Node]:
    """Vectors as matrices of one row or column."""
    if len(shape_of(a)) == 1:
        a = editor.reshape(at, a, (1, *shape_of(a)))
    if len(shape_of(b)) == 1:
        b = editor.reshape(at, b, (*shape_of(b), 1))
    return a, b


def _matmul(editor: Editor, node: fx.Node) -> fx.Node | None:
    a, b = tensor(node, 0), tensor(node, 1)
    plain = min(len(shape_of(a)), len(shape_of(b))) >= 2 and not (is_static(b) and len(shape_of(b)) == 2)
    return None if node.target is aten.matmul.default and plain else product(editor, node, a, b)


def _addmm(editor: Editor, node: fx.Node) -> fx.Node | None:
    if (argument(node, "beta"), argument(node, "alpha")) != (1, 1):
        return None
    left, right = ("mat1", "mat2") if node.target is aten.addmm.default else ("batch1", "batch2")
    return product(editor, node, tensor(node, left), tensor(node, right), tensor(node, "self"))


def _linear(editor: Editor, node: fx.Node) -> fx.Node | None:
    x, weight, bias = tensor(node, "input"), tensor(node, "weight"), optional_tensor(node, "bias")
    if is_static(weight) and (bias is None or is_static(bias)) and len(shape_of(x)) > 1 and len(shape_of(weight)) == 2:
        return None
    row = editor.reshape(node, x, (1, *shape_of(x))) if len(shape_of(x)) == 1 else x
    out = product(editor, node, row, weight if len(shape_of(weight)) == 1 else editor.swap_last(node, weight), bias)
    return editor.reshape(node, out, shape_of(node))


RULES: Mapping[Target, Rule] = {
    **dict.fromkeys(
        (aten.mm.default, aten.bmm.default, aten.mv.default, aten.dot.default, aten.vdot.default, aten.matmul.default),
        _matmul,
    ),
    **dict.fromkeys((aten.addmm.default, aten.baddbmm.default), _addmm),
    aten.linear.default: _linear,
}
