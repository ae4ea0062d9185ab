"""What the chip computes: the operations that may remain in a frozen graph."""

import operator

import torch
from torch import Tensor, fx

from compiler import ops
from compiler.frontend.checks import SUPPORTED
from compiler.passes.editor import aten

VIEWS = frozenset(
    {
        aten.reshape.default, aten.view.default, aten.permute.default, aten.expand.default, aten.slice.Tensor,
        aten.select.int, aten.clone.default, aten.cat.default, operator.getitem,
    }
)  # fmt: skip
CHIP = frozenset(
    {
        ops.quantize_rows, ops.matmul_i8, ops.dequantize, ops.softmax, ops.layer_norm, ops.activation, ops.reduce, ops.clamp,
    }
)  # fmt: skip
ELEMENTWISE = frozenset(
    {
        *(getattr(aten, name).Tensor for name in ("add", "sub", "mul", "div")),
        *(getattr(getattr(aten, name), kind) for name in ("eq", "ne", "lt", "le", "gt", "ge") for kind in ("Tensor", "Scalar")),
        aten.neg.default, aten.abs.default, aten.where.self, aten.where.Scalar, aten.where.ScalarSelf, aten.where.ScalarOther,
        aten.bitwise_and.Tensor, aten.bitwise_or.Tensor, aten.logical_not.default, aten._to_copy.default,
    }
)  # fmt: skip
WRAPPING = frozenset({*(getattr(aten, name).Tensor for name in ("add", "sub", "mul")), aten.neg.default, aten.abs.default})
FROZEN = VIEWS | CHIP | ELEMENTWISE | {aten.embedding.default}


def frozen(node: fx.Node) -> str | None:
    """Why `node` may not stay in the graph that the chip computes."""
    if node.target not in FROZEN:
        return "is not something the chip can do"
    if node.target is aten.slice.Tensor and len(node.args) > 4 and node.args[4] != 1:
        return "takes every n-th element, which the chip cannot"
    values = node.meta["val"] if isinstance(node.meta["val"], (tuple, list)) else (node.meta["val"],)
    for value in values:
        if isinstance(value, Tensor) and value.dtype not in SUPPORTED:
            return f"gives {str(value.dtype).removeprefix('torch.')}, which the chip does not have"
    if node.target is aten._to_copy.default and not node.meta["val"].dtype.is_floating_point:
        source = node.args[0].meta["val"].dtype  # type: ignore[union-attr]
        if source.is_floating_point:
            return "converts a float to an integer, which the chip cannot"
    if node.target in WRAPPING and isinstance(node.meta["val"], Tensor) and node.meta["val"].dtype is torch.int64:
        return "computes with 64-bit integers, which the chip keeps in 32 bits"
    return None


def random(node: fx.Node) -> bool:
    """Whether `node` draws random numbers: it may neither be folded nor repeated."""
    return node.op == "call_function" and torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())

