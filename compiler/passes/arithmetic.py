"""Canonical arithmetic: numbers as numbers, every operand in the type in which PyTorch computes, no operand broadcast
by hand.

    before   %e = expand(%m, [2, 12, 7, 7]); %y = add(%x, %e, alpha=1); %z = div(%i64, %f32)
    after    %y = add(%x, %m); %c = _to_copy(%i64, dtype=float32); %z = div(%c, %f32)

The type is always PyTorch's answer (`torch.result_type`, or the fake result), and numbers become that type in PyTorch,
too: an int8 tensor is compared with 200 as with -56. What is left is arithmetic on one type, which the chip does as
PyTorch does (`compiler.graph.legal` sees to it).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, fx
from torch.fx.node import Argument, Target

from compiler.graph.arguments import Number, Operand, first_of, operand, scalar, tensor
from compiler.graph.editor import Editor, aten, common_type, dtype_of, is_half, shape_of
from compiler.graph.manager import unsupported
from compiler.graph.ranges import interval
from compiler.graph.rules import Rule


def _cast(editor: Editor, node: fx.Node) -> fx.Node:
    """Casts say only the type; to the same type is nothing."""
    return _as(editor, node, tensor(node, 0), dtype_of(node))


def _as(editor: Editor, at: fx.Node, x: fx.Node, dtype: torch.dtype) -> fx.Node:
    """`x` in another type; to bool is a comparison with zero."""
    if dtype is torch.bool and dtype_of(x) is not torch.bool:
        return _of_factors(editor, at, x) or editor.emit(at, aten.ne.Scalar, x, 0)
    return editor.cast(at, x, dtype)


def _of_factors(editor: Editor, at: fx.Node, x: fx.Node) -> fx.Node | None:
    """Whether a product of 64-bit integers (of masks, mostly) is zero, asked of its factors: these fit in 32 bits,
    where it may not; in 64 it does, so that it is zero only if one of them is."""
    if x.target is not aten.mul.Tensor or dtype_of(x) is not torch.int64 or interval(x) is not None:
        return None
    factors = [operand(x, name) for name in ("self", "other")]
    if not all(isinstance(f, fx.Node) and dtype_of(f) is torch.int64 and interval(f) is not None for f in factors):
        return None
    truths = [editor.emit(at, aten.ne.Scalar, factor, 0) for factor in factors]
    return editor.emit(at, aten.bitwise_and.Tensor, *truths)


def convert(number: Number, dtype: torch.dtype) -> Number:
    """A number as `dtype` holds it: integers wrap and floats become infinite, as operands of PyTorch's arithmetic do.

    What merely rounds stays as the model wrote it, since its type may be float32 or narrower, depending on the
    operation.
    """
    kind = torch.float64 if isinstance(number, float) else None
    held = torch.tensor(number, dtype=kind).to(torch.float32 if dtype.is_floating_point else dtype).item()
    limit = EXACT if isinstance(number, int) else ROUNDING
    rounds = dtype.is_floating_point and math.isclose(held, number.real, rel_tol=limit, abs_tol=TINY)
    return number if rounds or held == number else held


def _held(number: Number, dtype: torch.dtype) -> Number:
    """A number rounded to a type."""
    return torch.tensor(number, dtype=torch.float64 if isinstance(number, float) else None).to(dtype).item()


def _known(editor: Editor, value: Operand) -> Operand:
    """A known 0-d tensor as the Python number that it holds."""
    known = editor.known(value) if isinstance(value, fx.Node) and shape_of(value) == () else None
    return value if known is None else known.item()


def _operand(editor: Editor, at: fx.Node, value: Operand, dtype: torch.dtype) -> Operand:
    """A tensor or number as `dtype`."""
    return _as(editor, at, value, dtype) if isinstance(value, fx.Node) else convert(value, dtype)


def _arithmetic(editor: Editor, node: fx.Node) -> fx.Node | None:
    """add, sub, mul, div in the result's type: known 0-d operands become numbers, alpha is written out."""
    target, dtype, alpha = _ARITHMETIC[node.target], dtype_of(node), _alpha(node)
    if dtype is torch.bool:
        return _bool_arithmetic(editor, node, target)
    half = is_half(dtype)
    a, b = (_known(editor, operand(node, name)) for name in ("self", "other"))
    if alpha != 1:
        if half and alpha != -1:
            return None  # PyTorch rounds the product with alpha or not, depending on an element's place in memory
        b = _scaled(editor, node, b, alpha, dtype)
    wide = torch.float32 if half and target in _PRODUCTS else dtype
    # Of a number, or one element of another type, as a factor PyTorch rounds the first to the half type and takes the
    # second as it is.
    if wide is not dtype:
        a = _as(editor, node, a, dtype) if isinstance(a, fx.Node) else _held(a, dtype)
        if isinstance(b, fx.Node) and dtype_of(b) is not dtype and b.meta["val"].numel() == 1:
            return _rounded_once(editor, node, target, a, b)
    if not isinstance(a, fx.Node):
        if target in (aten.add.Tensor, aten.mul.Tensor) and isinstance(b, fx.Node):
            a, b = b, a
        elif wide is not dtype:
            return _rounded_once(editor, node, target, a, b)
        else:
            a = _as_tensor(editor, node, operand(node, "self"), dtype)
    a = _as(editor, node, a, dtype)
    b = _as(editor, node, b, dtype) if isinstance(b, fx.Node) else convert(b, wide)
    if not isinstance(b, fx.Node) and shape_of(a) == shape_of(node) and _is_identity(target, b, dtype):
        return a
    return _unless_same(editor, node, target, a, b)


def _alpha(node: fx.Node) -> Number:
    """The factor of the second operand, where the operation has one."""
    return 1 if first_of(node, "alpha") is None else scalar(node, "alpha")


def _scaled(editor: Editor, node: fx.Node, b: Operand, alpha: Number, dtype: torch.dtype) -> Operand:
    """b * alpha in `dtype`."""
    alpha = convert(alpha, dtype)
    return (
        editor.emit(node, aten.mul.Tensor, _as(editor, node, b, dtype), alpha)
        if isinstance(b, fx.Node)
        else convert(convert(b, dtype) * alpha, dtype)
    )


def _rounded_once(editor: Editor, node: fx.Node, target: Target, a: Operand, b: Operand) -> fx.Node:
    """The operation in float32, then in the type of `node`."""
    a, b = (_operand(editor, node, v, torch.float32) for v in (a, b))
    a = _as_tensor(editor, node, a, torch.float32)
    return editor.cast(node, editor.emit(node, target, a, b), dtype_of(node))


def _as_tensor(editor: Editor, at: fx.Node, value: Operand, dtype: torch.dtype) -> fx.Node:
    """A number as a tensor without dimensions: the first operand of what does not commute."""
    if isinstance(value, fx.Node):
        return value
    return editor.emit(at, aten.full.default, [], convert(value, dtype), dtype=dtype)


def _bool_arithmetic(editor: Editor, node: fx.Node, target: Target) -> fx.Node | None:
    """The sum of truths is `or`, their product `and`; PyTorch has no other arithmetic on bool."""
    if target not in _LOGIC or not _alpha(node):
        return None
    return _logic(editor, node, _LOGIC[target], operand(node, "self"), operand(node, "other"))


def _is_identity(target: Target, number: Number, dtype: torch.dtype) -> bool:
    """x * 1, x / 1, x - 0, and x + 0 for integers (for floats it turns -0 into +0)."""
    if target in _PRODUCTS:
        return number == 1
    exact = not dtype.is_floating_point or (target is aten.sub.Tensor and math.copysign(1, number.real) == 1)
    return number == 0 and exact


def _unless_same(editor: Editor, node: fx.Node, target: Target, *args: Argument) -> fx.Node | None:
    """`target(*args)`, or None if that is what `node` is already."""
    same = node.target is target and not node.kwargs and len(args) == len(node.args)
    if same and all(
        new is old or (not isinstance(new, fx.Node) and repr(new) == repr(old))
        for new, old in zip(args, node.args, strict=True)
    ):
        return None
    return editor.emit(node, target, *args)


def _compare(editor: Editor, node: fx.Node) -> fx.Node | None:
    """Comparisons in the common type of both operands; a known 0-d operand is a number."""
    a, b = operand(node, 0), operand(node, 1)
    common = common_type(a, b)
    a, b = _operand(editor, node, a, common), _operand(editor, node, _known(editor, b), common)
    of_number, of_tensor = _COMPARE[node.target]
    if not isinstance(b, fx.Node) and common is torch.int64 and convert(b, torch.int32) != b:
        truth = bool(
            of_number(torch.zeros(1, dtype=torch.int64), b)
        )  # the chip keeps these in 32 bits: all lie on one side
        return editor.broadcast(node, editor.emit(node, aten.full.default, [], truth), shape_of(node))
    if of_number is aten.ne.Scalar and isinstance(a, fx.Node) and not isinstance(b, fx.Node) and b == 0:
        return _of_factors(editor, node, a) or _unless_same(editor, node, of_number, a, b)
    return _unless_same(editor, node, of_tensor if isinstance(b, fx.Node) else of_number, a, b)


def _rsub(editor: Editor, node: fx.Node) -> fx.Node | None:
    """number - x is (-x) + number, which rounds alike."""
    x, other, alpha, dtype = tensor(node, "self"), operand(node, "other"), _alpha(node), dtype_of(node)
    if isinstance(other, fx.Node):
        return _arithmetic_of(editor, node, aten.sub.Tensor, other, x, alpha)
    if is_half(dtype) and alpha != 1:
        return None
    scaled = _scaled(editor, node, x, alpha, dtype) if alpha != 1 else _as(editor, node, x, dtype)
    return editor.emit(node, aten.add.Tensor, editor.emit(node, aten.neg.default, scaled), convert(other, dtype))


def _arithmetic_of(editor: Editor, node: fx.Node, target: Target, a: fx.Node, b: fx.Node, alpha: Number) -> fx.Node:
    """`target(a, b, alpha=alpha)` in canonical form, in place of `node`."""
    plain = editor.emit(node, target, a, b, alpha=alpha)
    return _arithmetic(editor, plain) or plain


def _bitwise(target: Target) -> Rule:
    """and, or, xor in the type of the result: of integers, or of truths, whatever the operands are."""
    return lambda editor, node: _logic(editor, node, target, operand(node, 0), operand(node, 1))


def _truths(target: Target) -> Rule:
    """logical_and, or, xor: operands become their common type first, in which one that is 0-d may wrap or round to
    zero."""

    def rule(editor: Editor, node: fx.Node) -> fx.Node | None:
        a, b = operand(node, 0), operand(node, 1)
        common = common_type(a, b)
        return _logic(editor, node, target, _operand(editor, node, a, common), _operand(editor, node, b, common))

    return rule


def _logic(editor: Editor, node: fx.Node, target: Target, a: Operand, b: Operand) -> fx.Node | None:
    """`target` in the type of the result. A known operand that decides nothing goes."""
    dtype = dtype_of(node)
    if not isinstance(a, fx.Node):
        a, b = b, a
    a, b = _operand(editor, node, a, dtype), _operand(editor, node, b, dtype)
    if target is aten.bitwise_and.Tensor and dtype is torch.bool:
        for one, other in ((a, b), (b, a)):
            value = editor.known(one) if isinstance(one, fx.Node) else torch.tensor(one)
            if value is not None and bool(value.all()) and isinstance(other, fx.Node):
                return editor.broadcast(node, other, shape_of(node))
    if not isinstance(b, fx.Node):
        b = editor.emit(node, aten.full.default, [], b, dtype=dtype)
    return _unless_same(editor, node, target, a, b)


def _not(editor: Editor, node: fx.Node) -> fx.Node | None:
    """not of truth; ~ of integers flips every bit."""
    x = tensor(node, 0)
    if node.target is aten.bitwise_not.default and dtype_of(x) is not torch.bool:
        return _logic(editor, node, aten.bitwise_xor.Tensor, x, -1)
    return _unless_same(editor, node, aten.logical_not.default, _as(editor, node, x, torch.bool))


def _relu(editor: Editor, node: fx.Node) -> fx.Node | None:
    """relu of integers; that of floats is a function of the chip."""
    x = tensor(node, 0)
    return None if dtype_of(x).is_floating_point else bounded(editor, node, x, 0, None)


def bounded(editor: Editor, at: fx.Node, x: fx.Node, low: Number | None, high: Number | None) -> fx.Node:
    """x between the bounds, which are numbers of its type: what clamp does with integers, zero keeps the sign that it
    has."""
    for target, limit in ((aten.lt.Scalar, low), (aten.gt.Scalar, high)):
        if limit is not None:
            x = editor.emit(at, aten.where.ScalarSelf, editor.emit(at, target, x, limit), limit, x)
    return x


def _larger(editor: Editor, node: fx.Node) -> fx.Node | None:
    """maximum, minimum: a choice. Of two zeros it is the second; floats in no order have a NaN among them, and so has
    their sum."""
    beats, misses, of_truths = _EXTREMES[node.target]
    dtype = dtype_of(node)
    if dtype is torch.bool:
        return _logic(editor, node, of_truths, operand(node, 0), operand(node, 1))
    a, b = (_operand(editor, node, operand(node, place), dtype) for place in (0, 1))
    other = b
    if dtype.is_floating_point:
        other = editor.emit(
            node, aten.where.self, editor.emit(node, misses, a, b), b, editor.emit(node, aten.add.Tensor, a, b)
        )
    return editor.emit(node, aten.where.self, editor.emit(node, beats, a, b), a, other)


def _where(editor: Editor, node: fx.Node) -> fx.Node | None:
    """where: known 0-d operands become numbers, tensors get the result's type."""
    a, b = (_picked(editor, node, operand(node, name)) for name in ("self", "other"))
    return _choose(editor, node, tensor(node, "condition"), a, b)


def _masked_fill(editor: Editor, node: fx.Node) -> fx.Node | None:
    x, mask, value = tensor(node, 0), tensor(node, 1), _known(editor, operand(node, 2))
    return _choose(editor, node, mask, value if isinstance(value, fx.Node) else filled(node, value, dtype_of(node)), x)


def _picked(editor: Editor, node: fx.Node, value: Operand) -> Operand:
    """A known operand of where as a number of the result's type: a tensor wraps, a number must be one of its values."""
    dtype, known = dtype_of(node), _known(editor, value)
    if isinstance(known, fx.Node):
        return value
    if isinstance(value, fx.Node):
        return torch.tensor(known, dtype=dtype_of(value)).to(dtype).item()
    return _asked(node, lambda: torch.where(torch.ones(1, dtype=torch.bool), value, torch.zeros(1, dtype=dtype)))


def filled(node: fx.Node, value: Number, dtype: torch.dtype) -> Number:
    """What masked_fill and clamp make of a number."""
    return _asked(node, lambda: torch.zeros(1, dtype=dtype).masked_fill_(torch.ones(1, dtype=torch.bool), value))


def _asked(node: fx.Node, compute: Callable[[], Tensor]) -> Number:
    """A number as PyTorch converts it."""
    try:
        return compute().item()
    except RuntimeError as error:
        raise unsupported(node, f"fails in PyTorch, too: {error}") from error


def _choose(editor: Editor, node: fx.Node, condition: fx.Node, a: Operand, b: Operand) -> fx.Node | None:
    dtype = dtype_of(node)
    a, b = (_as(editor, node, v, dtype) if isinstance(v, fx.Node) else v for v in (a, b))
    known = editor.known(condition)
    if known is not None and isinstance(a, fx.Node) and bool(known.all()):
        return editor.broadcast(node, a, shape_of(node))
    if known is not None and isinstance(b, fx.Node) and not bool(known.any()):
        return editor.broadcast(node, b, shape_of(node))
    target = _WHERE[isinstance(a, fx.Node), isinstance(b, fx.Node)]
    if target is aten.where.Scalar:
        chosen = _unless_same(editor, node, target, condition, a, b)
        return chosen and _as(editor, node, chosen, dtype)
    return _unless_same(editor, node, target, condition, a, b)


def _unexpanded(editor: Editor, node: fx.Node) -> fx.Node:
    """The same operation on operands before they were expanded: elementwise operations broadcast by themselves.

    Where the result is then too small, it is expanded instead, so that less is computed and the next operation can
    profit.
    """
    sources = {n: tensor(n, 0) for n in node.all_input_nodes if n.target is aten.expand.default}
    if not sources:
        return node
    args = [sources.get(arg, arg) if isinstance(arg, fx.Node) else arg for arg in node.args]
    new = editor.emit(node, node.target, *args, **node.kwargs)
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


EXACT, ROUNDING, TINY = (
    2.0**-60,
    2.0**-23,
    2.0**-149,
)  # an integer beyond 24 bits would round twice on its way through float64
VIEWS = (aten.expand.default, aten.reshape.default)
_PRODUCTS = (aten.mul.Tensor, aten.div.Tensor)
_LOGIC = {aten.add.Tensor: aten.bitwise_or.Tensor, aten.mul.Tensor: aten.bitwise_and.Tensor}
_WHERE = {
    (True, True): aten.where.self,
    (True, False): aten.where.ScalarOther,
    (False, True): aten.where.ScalarSelf,
    (False, False): aten.where.Scalar,
}
_MAXIMUM = (aten.gt.Tensor, aten.le.Tensor, aten.bitwise_or.Tensor)
_MINIMUM = (aten.lt.Tensor, aten.ge.Tensor, aten.bitwise_and.Tensor)
_EXTREMES: dict[Target, tuple[Target, Target, Target]] = {
    **dict.fromkeys((aten.maximum.default, aten.max.other), _MAXIMUM),
    **dict.fromkeys((aten.minimum.default, aten.min.other), _MINIMUM),
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
_BITS = {
    getattr(packet, overload): getattr(aten, f"bitwise_{name}").Tensor
    for name in ("and", "or", "xor")
    for packet in (getattr(aten, f"bitwise_{name}"), getattr(aten, f"__{name}__"))
    for overload in packet.overloads()
    if overload in ("Tensor", "Scalar", "Scalar_Tensor")
}
_TRUTHS = {
    getattr(aten, f"logical_{name}").default: getattr(aten, f"bitwise_{name}").Tensor for name in ("and", "or", "xor")
}
RULES: dict[Target, Rule] = {
    **dict.fromkeys(
        (aten._to_copy.default, aten.to.dtype, aten.to.dtype_layout, aten.type_as.default), elementwise(_cast)
    ),
    **dict.fromkeys(_ARITHMETIC, elementwise(_arithmetic)),
    **dict.fromkeys(_COMPARE, elementwise(_compare)),
    **dict.fromkeys((aten.rsub.Scalar, aten.rsub.Tensor), _rsub),
    **{target: elementwise(_bitwise(chosen)) for target, chosen in _BITS.items()},
    **{target: elementwise(_truths(chosen)) for target, chosen in _TRUTHS.items()},
    **dict.fromkeys((aten.bitwise_not.default, aten.logical_not.default), elementwise(_not)),
    **dict.fromkeys(
        (
            aten.neg.default,
            aten.abs.default,
            aten.tanh.default,
            aten.exp.default,
            aten.clamp.default,
            aten.clamp_min.default,
        ),
        elementwise(_keep),
    ),
    aten.relu.default: elementwise(_relu),
    **dict.fromkeys(_EXTREMES, _larger),
    **dict.fromkeys(_WHERE.values(), elementwise(_where)),
    **dict.fromkeys((aten.masked_fill.Scalar, aten.masked_fill.Tensor), elementwise(_masked_fill)),
}
