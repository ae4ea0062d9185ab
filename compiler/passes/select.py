"""Select chip operations for what is left: softmax, norms, activation functions, reductions, clamps.

    before   %g = gelu(%x, approximate="tanh"); %m = mean(%x, [-1], True)
    after    %g = llmchip.activation(%x, "gelu_tanh")
             %t = llmchip.reduce(%x, "sum", -1, True); %m = mul(%t, 0.0026041667442768812)

A bfloat16 or float16 operation that becomes several is computed in float32 and rounded once, at its end.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx
from torch.fx.node import Target

from compiler.graph.arguments import (
    Operand,
    argument,
    first_of,
    integer,
    integers,
    number,
    optional_tensor,
    scalar,
    tensor,
)
from compiler.graph.editor import Editor, aten, dtype_of, shape_of
from compiler.graph.legal import SINGLE
from compiler.graph.manager import unsupported
from compiler.graph.ranges import INT32, interval
from compiler.graph.rules import Rule, apply_rules
from compiler.ops import library as ops
from compiler.passes import along, arithmetic, order
from compiler.passes.codes import float32
from compiler.passes.places import last


@dataclass(frozen=True)
class Select:
    name: ClassVar[str] = "select"
    changes_bits: ClassVar[bool] = True
    gone: ClassVar[frozenset[Target]] = frozenset()

    def run(self, gm: fx.GraphModule) -> fx.GraphModule:
        return apply_rules(gm, self.name, RULES, skip_static=True)


def _activation(kind: str) -> Rule:
    def rule(editor: Editor, node: fx.Node) -> fx.Node:
        return editor.emit(node, ops.activation, editor.cast(node, tensor(node, 0), dtype_of(node)), kind)

    return rule


def _gelu(editor: Editor, node: fx.Node) -> fx.Node:
    kind = "gelu_tanh" if argument(node, "approximate") == "tanh" else "gelu_erf"
    return editor.emit(node, ops.activation, tensor(node, "self"), kind)


def _softmax(editor: Editor, node: fx.Node) -> fx.Node:
    moved, back = last(editor, node, tensor(node, 0), integer(node, 1))
    out = editor.emit(node, ops.softmax, moved, False)
    return editor.cast(node, back(out), dtype_of(node))


def _layer_norm(editor: Editor, node: fx.Node) -> fx.Node:
    x, sizes = tensor(node, "input"), integers(node, "normalized_shape")
    count = math.prod(sizes)
    lead = shape_of(x)[: len(shape_of(x)) - len(sizes)]
    rows = editor.reshape(node, x, (*lead, count))
    given = (optional_tensor(node, name) for name in ("weight", "bias"))
    weight, bias = (None if v is None else editor.reshape(node, v, (count,)) for v in given)
    out = editor.emit(node, ops.layer_norm, rows, weight, bias, argument(node, "eps"))
    return editor.reshape(node, out, shape_of(x))


def _rms_norm(editor: Editor, node: fx.Node) -> fx.Node | None:
    if len(integers(node, "normalized_shape")) != 1:
        return None
    x = editor.cast(node, tensor(node, "input"), torch.float32)
    eps = torch.finfo(dtype_of(node)).eps if argument(node, "eps") is None else number(node, "eps")
    squares = editor.emit(node, ops.reduce, x, "sumsq", -1, True)
    variance = editor.emit(node, aten.mul.Tensor, squares, float32(1.0 / shape_of(x)[-1]))
    root = editor.emit(node, ops.activation, editor.emit(node, aten.add.Tensor, variance, eps), "rsqrt")
    y = editor.emit(node, aten.mul.Tensor, x, root)
    if argument(node, "weight") is not None:
        y = editor.emit(node, aten.mul.Tensor, y, tensor(node, "weight"))
    return editor.cast(node, y, dtype_of(node))


def _reduction(kind: str) -> Rule:
    """sum, mean, amax, amin over any one dimension, or over several neighbouring last ones."""

    def rule(editor: Editor, node: fx.Node) -> fx.Node | None:
        x = tensor(node, "self")
        x = x if shape_of(x) else editor.reshape(node, x, (1,))
        rank = len(shape_of(x))
        dims = [d % rank for d in _dims(node)]
        return reduction(editor, node, x, kind, dims or list(range(rank)))

    return rule


def _dims(node: fx.Node) -> list[int]:
    """The dimensions that an operation names; none where it means all of them."""
    given = first_of(node, "dim")
    if isinstance(given, int):
        return [given]
    return [] if given is None else integers(node, "dim")


def reduction(editor: Editor, node: fx.Node, x: fx.Node, kind: str, dims: list[int]) -> fx.Node | None:
    """`kind` over `dims`, in the shape and type of `node`."""
    dtype = dtype_of(node)
    if not dtype.is_floating_point:
        return None
    exact = kind in ("max", "min")
    x = editor.cast(node, x, dtype if exact else torch.float32)
    source = x.args[0] if x.target is aten.expand.default else None
    if (
        isinstance(source, fx.Node)
        and all(shape_of(source)[d] == shape_of(x)[d] for d in dims)
        and len(shape_of(source)) == len(shape_of(x))
    ):
        x = source
    rank = len(shape_of(x))
    kept = [d for d in range(rank) if d not in dims]
    count = 1
    for d in dims:
        count *= shape_of(x)[d]
    shape = [shape_of(x)[d] for d in kept]
    if dims == [rank - 2]:
        out = editor.emit(node, ops.reduce, x, "sum" if kind == "mean" else kind, -2, False)
    else:
        rows = editor.reshape(node, editor.permute(node, x, [*kept, *sorted(dims)]), (*shape, count))
        out = editor.emit(node, ops.reduce, rows, "sum" if kind == "mean" else kind, -1, False)
    if kind == "mean":
        out = editor.emit(node, aten.mul.Tensor, out, float32(1.0 / count))
    out = editor.reshape(node, out, [1 if d in dims else shape_of(x)[d] for d in range(rank)])
    out = editor.expand(node, out, [1 if d in dims else size for d, size in enumerate(_full_shape(node, dims, rank))])
    return editor.reshape(node, editor.cast(node, out, dtype), shape_of(node))


DIGITS = (
    (0x7FF, 1.0),
    (0x3FF800, 2.0**-11),
    (-(1 << 22), 2.0**-22),
)  # of an int32: which bits, and what makes them a small integer
SHIFT = 1.5 * 2.0**23  # added and taken off again: rounds a smaller number to an integer


def _counts(editor: Editor, node: fx.Node) -> fx.Node | None:
    """A sum of integers that is read as floats is summed as floats, where that is exact: the chip has no other."""
    total = tensor(node, 0)
    return _float_sum(editor, node, total) if dtype_of(node).is_floating_point and _is_integer_sum(total) else None


def _is_integer_sum(x: fx.Node) -> bool:
    return x.target in (aten.sum.dim_IntList, aten.sum.default) and not dtype_of(x).is_floating_point


def _float_sum(editor: Editor, at: fx.Node, x: fx.Node) -> fx.Node | None:
    """x as the type of `at`, rounded once; None if it is a sum of integers that may be too large for that."""
    dtype = dtype_of(at)
    if not _is_integer_sum(x):
        return editor.cast(at, x, dtype)
    source, dims, keep = tensor(x, "self"), first_of(x, "dim"), bool(first_of(x, "keepdim"))

    def total(part: fx.Node) -> fx.Node:
        summed = editor.emit(at, aten.sum.dim_IntList, editor.cast(at, part, torch.float32), dims, keep)
        out = _reduction("sum")(editor, summed)
        assert out is not None
        return out

    low, high = interval(source) or INT32
    count = math.prod(shape_of(source)) // max(1, math.prod(shape_of(x)))
    if dtype_of(x) is not torch.int64 and (
        dtype_of(x) is torch.bool or max(abs(low), abs(high)) * count > torch.iinfo(dtype_of(x)).max
    ):
        return None  # it wraps in a narrower type, which no sum of floats does
    if max(abs(low), abs(high)) * count <= SINGLE:
        return editor.cast(at, total(source), dtype)
    if dtype is not torch.float32 or count * DIGITS[0][0] > SINGLE:
        return None
    sums = []
    for bits, factor in DIGITS:
        mask = editor.emit(at, aten.full.default, [], bits, dtype=dtype_of(source))
        digit = editor.cast(at, editor.emit(at, aten.bitwise_and.Tensor, source, mask), torch.float32)
        sums.append(total(digit if factor == 1 else editor.emit(at, aten.mul.Tensor, digit, factor)))
    return _joined(editor, at, sums)


def _joined(editor: Editor, at: fx.Node, sums: list[fx.Node]) -> fx.Node:
    """low + middle * 2**11 + high * 2**22 of integers below 2**24, rounded once: carries go up first, so that all but
    the last sum is exact."""

    def carry(x: fx.Node) -> tuple[fx.Node, fx.Node]:
        """(x - c * 2**11, c), c the integer next to x / 2**11."""
        scaled = editor.emit(at, aten.mul.Tensor, x, 2.0**-11)
        c = editor.emit(at, aten.sub.Tensor, editor.emit(at, aten.add.Tensor, scaled, SHIFT), SHIFT)
        return editor.emit(at, aten.sub.Tensor, x, editor.emit(at, aten.mul.Tensor, c, 2.0**11)), c

    low, up = carry(sums[0])
    middle, up = carry(editor.emit(at, aten.add.Tensor, sums[1], up))
    small = editor.emit(at, aten.add.Tensor, editor.emit(at, aten.mul.Tensor, middle, 2.0**11), low)
    large = editor.emit(at, aten.mul.Tensor, editor.emit(at, aten.add.Tensor, sums[2], up), 2.0**22)
    return editor.emit(at, aten.add.Tensor, large, small)


def _full_shape(node: fx.Node, dims: list[int], rank: int) -> list[int]:
    """The result's sizes with the reduced dimensions kept as 1."""
    sizes = list(shape_of(node))
    if len(sizes) == rank:
        return sizes
    for d in sorted(dims):
        sizes.insert(d, 1)
    return sizes


def _variance(editor: Editor, node: fx.Node) -> fx.Node | None:
    """var and std over one dimension: the sum of squared distances from the mean, over n - correction."""
    dims = _dims(node)
    correction = 1 if argument(node, "correction") is None else number(node, "correction")
    if len(dims) != 1:
        return None
    rows, _ = last(editor, node, editor.cast(node, tensor(node, "self"), torch.float32), dims[0])
    count = shape_of(rows)[-1]
    total = editor.emit(node, ops.reduce, rows, "sum", -1, True)
    distance = editor.emit(node, aten.sub.Tensor, rows, editor.emit(node, aten.mul.Tensor, total, float32(1.0 / count)))
    squares = editor.emit(node, ops.reduce, distance, "sumsq", -1, False)
    out = editor.emit(
        node,
        aten.mul.Tensor,
        squares,
        float32(1.0 / max(count - correction, 0)) if count > correction else float("inf"),
    )
    if node.target is aten.std.correction:
        out = editor.emit(node, ops.activation, out, "sqrt")
    return editor.reshape(node, editor.cast(node, out, dtype_of(node)), shape_of(node))


def _norm(editor: Editor, node: fx.Node) -> fx.Node | None:
    """Euclidean norm over some dimensions: the root of the sum of squares."""
    x, rank = tensor(node, "self"), len(shape_of(tensor(node, "self")))
    if first_of(node, "ord", "p") not in (2, None) or not rank:
        return None
    dims = [d % rank for d in _dims(node)] or list(range(rank))
    kept = [d for d in range(rank) if d not in dims]
    count = math.prod(shape_of(x)[d] for d in dims)
    moved = editor.permute(node, editor.cast(node, x, torch.float32), [*kept, *dims])
    rows = editor.reshape(node, moved, (*(shape_of(x)[d] for d in kept), count))
    root = editor.emit(node, ops.activation, editor.emit(node, ops.reduce, rows, "sumsq", -1, False), "sqrt")
    return editor.reshape(node, editor.cast(node, root, dtype_of(node)), shape_of(node))


def _bound(node: fx.Node, *names: str) -> Operand | None:
    value = first_of(node, *names)
    assert value is None or isinstance(value, Operand)
    return value


def _clamp(editor: Editor, node: fx.Node) -> fx.Node | None:
    """Bounds that are numbers. Integers keep what zero they have, as in PyTorch; of floats a zero result is +0."""
    x, dtype = tensor(node, "self"), dtype_of(node)
    low, high = _bound(node, "min", "min_val"), _bound(node, "max", "max_val")
    if isinstance(low, fx.Node) or isinstance(high, fx.Node):
        return None
    if any(limit is not None and limit != limit for limit in (low, high)):
        return editor.broadcast(node, editor.emit(node, aten.full.default, [], math.nan, dtype=dtype), shape_of(node))
    low, high = (None if limit is None else arithmetic.filled(node, limit, dtype) for limit in (low, high))
    if not dtype_of(x).is_floating_point:
        floats = _float_sum(editor, node, x) if dtype.is_floating_point else editor.cast(node, x, dtype)
        if floats is None:
            return None
        x = floats
        return arithmetic.bounded(editor, node, x, low, high)
    return editor.emit(node, ops.clamp, editor.cast(node, x, dtype), low, high)


def _pow(editor: Editor, node: fx.Node) -> fx.Node | None:
    """Powers 2 and 3 are products, 0.5 and -0.5 are roots, all in the type of the result: an integer has become a float
    before."""
    exponent = scalar(node, 1)
    if exponent not in (1, 2, 3, 0.5, -0.5) or not dtype_of(node).is_floating_point:
        return None
    x = editor.cast(node, tensor(node, 0), dtype_of(node))
    if exponent in (0.5, -0.5):
        return editor.emit(node, ops.activation, x, "sqrt" if exponent == 0.5 else "rsqrt")
    wide = editor.cast(node, x, torch.float32) if exponent == 3 else x
    y = wide
    for _ in range(int(exponent.real) - 1):
        y = editor.emit(node, aten.mul.Tensor, y, wide)
    return editor.cast(node, y, dtype_of(node))


def _refuse_train(editor: Editor, node: fx.Node) -> None:
    raise unsupported(node, "drops out (call model.eval())")


_SIMPLE = {"reciprocal": "recip"} | {
    name: name for name in ("exp", "erf", "sqrt", "rsqrt", "tanh", "relu", "sigmoid", "silu")
}
RULES: dict[Target, Rule] = {
    **{getattr(aten, name).default: _activation(kind) for name, kind in _SIMPLE.items()},
    aten.gelu.default: _gelu,
    aten._to_copy.default: _counts,
    aten.softmax.int: _softmax,
    aten._softmax.default: _softmax,
    aten.layer_norm.default: _layer_norm,
    aten.rms_norm.default: _rms_norm,
    **dict.fromkeys((aten.sum.dim_IntList, aten.sum.default), _reduction("sum")),
    **dict.fromkeys((aten.mean.dim, aten.mean.default), _reduction("mean")),
    aten.amax.default: _reduction("max"),
    aten.amin.default: _reduction("min"),
    **dict.fromkeys((aten.linalg_vector_norm.default, aten.norm.ScalarOpt_dim), _norm),
    **dict.fromkeys(
        (aten.clamp.default, aten.clamp_min.default, aten.clamp_max.default, aten.hardtanh.default), _clamp
    ),
    aten.pow.Tensor_Scalar: _pow,
    **dict.fromkeys((aten.var.correction, aten.std.correction), _variance),
    aten.dropout.default: _refuse_train,
    **order.RULES,
    **along.RULES,
}
