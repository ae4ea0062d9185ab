"""Models that torchao has quantized already: their linears become the chip's operations on the very same integers.

torchao's `Int8DynamicActivationInt8WeightConfig` is the arithmetic of docs/numerics.md, so a model quantized by it
gives its own eager bits on the chip. Other configurations are refused by name.
"""

import copy
from typing import TypeGuard

import torch
from torch import Tensor, nn

from compiler.ops import library as ops
from isa.errors import UnsupportedError


class QuantizedLinear(nn.Module):
    """y = dequantize(quantize(x) · qᵀ): int8 weights q of shape (N, K), a scale for each of the N channels."""

    def __init__(self, q: Tensor, s: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("q", q.contiguous())
        self.register_buffer("s", s.reshape(-1).contiguous())
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        q, s, bias = (self.get_buffer("q"), self.get_buffer("s"), self.bias)
        return quantized_linear(x, q, s, bias if isinstance(bias, Tensor) else None)


def quantized_linear(x: Tensor, q: Tensor, s: Tensor, bias: Tensor | None = None) -> Tensor:
    qx, sx = ops.quantize_rows(x, None)
    y: Tensor = ops.dequantize(ops.matmul_i8(qx, q, True), sx, s.reshape(-1), bias, x.dtype)
    return y


def is_quantized(tensor: object) -> TypeGuard[Tensor]:
    """Whether a weight is one of torchao's int8 tensors. Does not import torchao."""
    return type(tensor).__module__.startswith("torchao.") and isinstance(tensor, Tensor)


def adopt(module: nn.Module) -> nn.Module:
    """`module`, or a copy that shares its tensors, with every linear that torchao quantized replaced. Raises
    UnsupportedError."""
    found = {name: m for name, m in module.named_modules() if isinstance(m, nn.Linear) and is_quantized(m.weight)}
    if not found:
        return module
    shared = {id(t): t for t in (*module.parameters(), *module.buffers())}
    adopted: nn.Module = copy.deepcopy(module, shared)
    for name, linear in found.items():
        replacement = _replace(name, linear)
        if not name:
            return replacement
        parent, _, leaf = name.rpartition(".")
        setattr(adopted.get_submodule(parent), leaf, replacement)
    return adopted


FIELDS = ("qdata", "scale")  # what torchao calls q and s


def _replace(name: str, linear: nn.Linear) -> QuantizedLinear:
    check_quantized(f"{name}.weight", linear.weight)
    q, s = (getattr(linear.weight, field) for field in FIELDS)
    return QuantizedLinear(q, s, linear.bias).eval()


def check_quantized(name: str, weight: Tensor) -> None:
    """Raises UnsupportedError for a weight that torchao computes with in another way than the chip."""
    kwargs, q, s = (getattr(weight, field, None) for field in ("act_quant_kwargs", *FIELDS))
    row = type(getattr(kwargs, "granularity", None)).__name__ == "PerRow"
    symmetric = getattr(getattr(kwargs, "mapping_type", None), "name", "") == "SYMMETRIC" and not getattr(
        kwargs, "reduce_range", False
    )
    ours = isinstance(q, Tensor) and isinstance(s, Tensor) and q.dtype is torch.int8 and s.numel() == q.shape[0]
    if (
        not (ours and row and symmetric)
        or getattr(weight, "act_quant_scale", None) is not None
        or _has_zero_point(weight)
    ):
        raise UnsupportedError(
            f"weight '{name}' is a torchao {type(weight).__name__} in a configuration that the chip does not compute",
            hint="quantize with Int8DynamicActivationInt8WeightConfig(), or compile the float model",
        )


def _has_zero_point(weight: Tensor) -> bool:
    zero = getattr(weight, "zero_point", None)
    return isinstance(zero, Tensor) and bool((zero != 0).any())
