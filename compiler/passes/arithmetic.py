"""Canonical arithmetic: numbers as numbers, one type for both operands, no operand broadcast by hand.

    before   %e = expand(%m, [2, 12, 7, 7]); %y = add(%x, %e, alpha=1); %z = div(%i64, %f32)
    after    %y = add(%x, %m); %c = _to_copy(%i64, dtype=float32); %z = div(%c, %f32)
"""

import math
from typing import Any

import torch
from torch import fx

from compiler.passes.editor import Editor, aten, dtype_of, is_half, shape_of
from compiler.passes.rules import Rule, arguments


def _cast(editor: Editor, node: fx.Node) -> fx.Node:
    """Casts say only the type; to bool is a comparison with zero; to the same type is nothing."""
    x: Any = node.args[0]
    dtype = dtype_of(node)
    if dtype is torch.bool and dtype_of(x) is not torch.bool:
        return editor.emit(node, aten.ne.Scalar, x, 0)
    return editor.cast(node, x, dtype)


def _number(editor: Editor, operand: Any, dtype: torch.dtype) -> Any:
    """A known 0-d tensor as a Python number, rounded to the type in which it takes part."""
    if not isinstance(operand, fx.Node) or shape_of(operand) != ():
        return operand
    value = editor.known(operand)
    if value is None:
        return operand
    return value.to(dtype).item() if value.dtype.is_floating_point and dtype.is_floating_point else value.item()


def _arithmetic(editor: Editor, node: fx.Node) -> fx.Node | None:
    """add, sub, mul, div: known 0-d operands become numbers, both tensors get the result's type, alpha is written out."""
    values = arguments(node)
    dtype = dtype_of(node)
    a, b = _number(editor, values["self"], dtype), _number(editor, values["other"], dtype)
    alpha = values.get("alpha", 1)
    if alpha != 1:
        b = editor.emit(node, aten.mul.Tensor, b, alpha) if isinstance(b, fx.Node) else b * alpha
    target = _ARITHMETIC[node.target]
    if not isinstance(a, fx.Node):
        commutes = target in (aten.add.Tensor, aten.mul.Tensor) and isinstance(b, fx.Node)
        a, b = (b, a) if commutes else (values["self"], b)
    a, b = (editor.cast(node, v, dtype) if isinstance(v, fx.Node) else v for v in (a, b))
    if not isinstance(b, fx.Node) and shape_of(a) == shape_of(node) and _is_identity(target, b, dtype):
        return a
    return _unless_same(editor, node, target, a, b)


def _is_identity(target: Any, number: float, dtype: torch.dtype) -> bool:
    """x * 1, x / 1, x - 0, and x + 0 for integers (for floats it turns -0 into +0)."""
    if target in (aten.mul.Tensor, aten.div.Tensor):
        return number == 1
    exact = not dtype.is_floating_point or (target is aten.sub.Tensor and math.copysign(1, number) == 1)
    return number == 0 and exact


def _unless_same(editor: Editor, node: fx.Node, target: Any, *args: Any) -> fx.Node | None:
    """`target(*args)`, or None if that is what `node` is already."""
    same = node.target is target and not node.kwargs and len(args) == len(node.args)
    if same and all(new is old or (not isinstance(new, fx.Node) and new == old) for new, old in zip(args, node.args, strict=True)):
        return None
    return editor.emit(node, target, *args)


def _compare(editor: Editor, node: fx.Node) -> fx.Node | None:
    """Comparisons: both tensors in their common type; a known 0-d operand is a number."""
    a, b = node.args
    types = [dtype_of(v) for v in (a, b) if isinstance(v, fx.Node)]
    common = torch.promote_types(types[0], types[-1])
    if isinstance(b, float) and not common.is_floating_point:
        common = torch.float32
    b = _number(editor, b, common)
    a, b = (editor.cast(node, v, common) if isinstance(v, fx.Node) else v for v in (a, b))
    return _unless_same(editor, node, _COMPARE[node.target][isinstance(b, fx.Node)], a, b)


def _rsub(editor: Editor, node: fx.Node) -> fx.Node | None:
    """number - x is (-x) + number, which rounds alike."""
    values = arguments(node)
    x, number = values["self"], values["other"]
    if values["alpha"] != 1:
        return None
    if isinstance(number, fx.Node):
        return editor.emit(node, aten.sub.Tensor, editor.cast(node, number, dtype_of(node)), editor.cast(node, x, dtype_of(node)))
    return editor.emit(node, aten.add.Tensor, editor.emit(node, aten.neg.default, editor.cast(node, x, dtype_of(node))), number)


def _and(editor: Editor, node: fx.Node) -> fx.Node | None:
    """bool and bool: an operand that is known to be all true goes."""
    a, b = node.args[0], node.args[1]
    if dtype_of(node) is not torch.bool:
        return None
    for one, other in ((a, b), (b, a)):
        value = editor.known(one)
        if value is not None and bool(value.all()) and isinstance(other, fx.Node):
            return editor.broadcast(node, other, shape_of(node))
    return _unless_same(editor, node, aten.bitwise_and.Tensor, a, b)


def _or(editor: Editor, node: fx.Node) -> fx.Node | None:
    return _unless_same(editor, node, aten.bitwise_or.Tensor, *node.args) if dtype_of(node) is torch.bool else None


def _not(editor: Editor, node: fx.Node) -> fx.Node | None:
    return _unless_same(editor, node, aten.logical_not.default, *node.args) if dtype_of(node) is torch.bool else None


def _where(editor: Editor, node: fx.Node) -> fx.Node | None:
    """where: known 0-d operands become numbers, tensors get the result's type."""
    values = arguments(node)
    return _choose(editor, node, values["condition"], values["self"], values["other"])


def _masked_fill(editor: Editor, node: fx.Node) -> fx.Node | None:
    x, mask, value = node.args
    return _choose(editor, node, mask, value, x)


def _choose(editor: Editor, node: fx.Node, condition: Any, a: Any, b: Any) -> fx.Node | None:
    dtype = dtype_of(node)
    a, b = (_rounded(_number(editor, v, dtype), dtype) for v in (a, b))
    known = editor.known(condition)
    if known is not None and isinstance(a, fx.Node) and bool(known.all()):
        return editor.broadcast(node, editor.cast(node, a, dtype), shape_of(node))
    if known is not None and isinstance(b, fx.Node) and not bool(known.any()):
        return editor.broadcast(node, editor.cast(node, b, dtype), shape_of(node))
    a, b = (editor.cast(node, v, dtype) if isinstance(v, fx.Node) else v for v in (a, b))
    target = _WHERE[isinstance(a, fx.Node), isinstance(b, fx.Node)]
    if target is aten.where.Scalar and is_half(dtype):
        return editor.emit(node, aten._to_copy.default, editor.emit(node, target, condition, float(a), float(b)), dtype=dtype)
    return _unless_same(editor, node, target, condition, a, b)


def _rounded(number: Any, dtype: torch.dtype) -> Any:
    """A number as the type of the result holds it."""
    if isinstance(number, fx.Node) or not dtype.is_floating_point:
        return number
    return torch.tensor(number, dtype=torch.float64).to(dtype).item()


def _unexpanded(editor: Editor, node: fx.Node) -> fx.Node:
    """The same operation on operands before they were expanded: elementwise operations broadcast by themselves.

    Where the result is then too small, it is expanded instead, so that less is computed and the next operation can profit.
    """
    sources = {n: n.args[0] for n in node.all_input_nodes if n.target is aten.expand.default}
    if not sources:
        return node
    args = [sources.get(arg, arg) if isinstance(arg, fx.Node) else arg for arg in node.args]
    new = editor.emit(node, node.target, *args, **node.kwargs)  # type: ignore[arg-type]
    return editor.broadcast(node, new, shape_of(node))


def elementwise(rule: Rule) -> Rule:
    """The rule, then without operands that are broadcast by hand."""

    def both(editor: Editor, node: fx.Node) -> fx.Node | None:
        new = rule(editor, node) or node
        if new.op == "call_function" and new.target not in VIEWS:
            new = _unexpanded(editor, new)
        return None if new is node else new

    return both


def _keep(editor: Editor, node: fx.Node) -> None:
    """Nothing to change but the operands."""


VIEWS = (aten.expand.default, aten.reshape.default)
_WHERE = {
    (True, True): aten.where.self,
    (True, False): aten.where.ScalarOther,
    (False, True): aten.where.ScalarSelf,
    (False, False): aten.where.Scalar,
}
_ARITHMETIC = {
    getattr(getattr(aten, name), overload): getattr(aten, name).Tensor
    for name in ("add", "sub", "mul", "div")
    for overload in ("Tensor", "Scalar")
}
_COMPARE = {
    getattr(getattr(aten, name), overload): (getattr(aten, name).Scalar, getattr(aten, name).Tensor)
    for name in ("eq", "ne", "lt", "le", "gt", "ge")
    for overload in ("Tensor", "Scalar")
}
RULES: dict[Any, Rule] = {
    **dict.fromkeys((aten._to_copy.default, aten.to.dtype, aten.to.dtype_layout, aten.type_as.default), elementwise(_cast)),
    **dict.fromkeys(_ARITHMETIC, elementwise(_arithmetic)),
    **dict.fromkeys(_COMPARE, elementwise(_compare)),
    **dict.fromkeys((aten.rsub.Scalar, aten.rsub.Tensor), _rsub),
    **dict.fromkeys((aten.bitwise_and.Tensor, aten.logical_and.default, aten.__and__.Tensor), elementwise(_and)),
    **dict.fromkeys((aten.bitwise_or.Tensor, aten.logical_or.default, aten.__or__.Tensor), elementwise(_or)),
    **dict.fromkeys((aten.bitwise_not.default, aten.logical_not.default), elementwise(_not)),
    **dict.fromkeys((aten.neg.default, aten.abs.default, aten.tanh.default, aten.exp.default, aten.clamp.default, aten.clamp_min.default), elementwise(_keep)),
    **dict.fromkeys(_WHERE.values(), elementwise(_where)),
    **dict.fromkeys((aten.masked_fill.Scalar, aten.masked_fill.Tensor), elementwise(_masked_fill)),
}
