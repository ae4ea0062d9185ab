"""Recognise activation functions that a model spells out.

before   %a = pow(%x, 3.0); %b = mul(%a, 0.044715); %c = add(%x, %b); %d = mul(%c, 0.7978845608028654)
         %e = tanh(%d); %f = add(%e, 1.0); %g = mul(%x, 0.5); %y = mul(%g, %f)
after    %y = gelu(%x, approximate="tanh")
"""

import math
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from torch import fx
from torch._ops import OpOverload
from torch.fx.node import Argument, Target

from compiler.graph.editor import Editor, aten
from compiler.graph.rules import apply_rules

X = "x"  # stands for the operand in a pattern
# X, a number, or (operation, operand, ...); add and mul match either order
Pattern: TypeAlias = "str | float | tuple[OpOverload, *tuple[Pattern, ...]]"

_CUBE_FORMS: tuple[Pattern, ...] = (
    (aten.pow.Tensor_Scalar, X, 3),
    (aten.mul.Tensor, (aten.mul.Tensor, X, X), X),
)
_INNER: tuple[Pattern, ...] = tuple(
    (aten.mul.Tensor, (aten.add.Tensor, X, (aten.mul.Tensor, cube, 0.044715)), math.sqrt(2 / math.pi))
    for cube in _CUBE_FORMS
) + (
    (
        aten.mul.Tensor,
        (aten.mul.Tensor, X, 0.7978845608),
        (aten.add.Tensor, (aten.mul.Tensor, (aten.mul.Tensor, X, 0.044715), X), 1),
    ),
)
_GATES: tuple[tuple[Pattern, str], ...] = (
    *(((aten.add.Tensor, (aten.tanh.default, inner), 1), "tanh") for inner in _INNER),
    ((aten.add.Tensor, (aten.erf.default, (aten.div.Tensor, X, math.sqrt(2))), 1), "none"),
    ((aten.add.Tensor, (aten.erf.default, (aten.mul.Tensor, X, math.sqrt(0.5))), 1), "none"),
)
GELUS: tuple[tuple[Pattern, str], ...] = tuple(
    (pattern, approximate)
    for gate, approximate in _GATES
    for pattern in (
        (aten.mul.Tensor, (aten.mul.Tensor, X, 0.5), gate),
        (aten.mul.Tensor, X, (aten.mul.Tensor, gate, 0.5)),
        (aten.mul.Tensor, (aten.mul.Tensor, X, gate), 0.5),
    )
)
SILU: Pattern = (aten.mul.Tensor, X, (aten.sigmoid.default, X))


@dataclass(frozen=True)
class RecogniseActivations:
    name: ClassVar[str] = "recognise-activations"
    changes_bits: ClassVar[bool] = True
    gone: ClassVar[frozenset[Target]] = frozenset()

    def run(self, gm: fx.GraphModule) -> fx.GraphModule:
        return apply_rules(gm, self.name, {aten.mul.Tensor: _activation}, skip_static=True)


def _activation(editor: Editor, node: fx.Node) -> fx.Node | None:
    for pattern, approximate in GELUS:
        found: dict[str, fx.Node] = {}
        if match(pattern, node, found):
            return editor.emit(node, aten.gelu.default, found[X], approximate=approximate)
    found = {}
    return editor.emit(node, aten.silu.default, found[X]) if match(SILU, node, found) else None


def match(pattern: Pattern, value: Argument, found: dict[str, fx.Node]) -> bool:
    """Whether `value` has the form of `pattern`; binds X on the way."""
    if isinstance(pattern, str):
        return isinstance(value, fx.Node) and found.setdefault(X, value) is value
    if not isinstance(pattern, tuple):
        return isinstance(value, (int, float)) and math.isclose(value, pattern, rel_tol=1e-6)
    if (
        not isinstance(value, fx.Node)
        or value.target is not pattern[0]
        or len(value.args) != len(pattern) - 1
        or value.kwargs
    ):
        return False
    orders = [pattern[1:], pattern[:0:-1]] if pattern[0] in (aten.add.Tensor, aten.mul.Tensor) else [pattern[1:]]
    for operands in orders:
        attempt = dict(found)
        if all(match(part, arg, attempt) for part, arg in zip(operands, value.args, strict=True)):
            found.update(attempt)
            return True
    return False
