"""Models that torchao has quantized already: their linears become the chip's operations on the very same integers.

torchao's `Int8DynamicActivationInt8WeightConfig` is the arithmetic of docs/numerics.md, so a model quantized by it gives its own
eager bits on the chip. Other configurations are refused by name.
"""

import copy

import torch
from torch import Tensor, nn

from compiler import ops
from isa.errors import UnsupportedError


class QuantizedLinear(nn.Module):
    """y = dequantize(quantize(x) · qᵀ): int8 weights q of shape (N, K), a scale for each of the N channels."""

    def __init__(self, q: Tensor, s: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("q", q.contiguous())
        self.register_buffer("s", s.reshape(-1).contiguous())
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        qx, sx = ops.quantize_rows(x, None)
        product = ops.matmul_i8(qx, self.q, True)
        y: Tensor = ops.dequantize(product, sx, self.s, self.bias, x.dtype)
        return y


def is_quantized(tensor: object) -> bool:
    """Whether a weight is one of torchao's int8 tensors. Does not import torchao."""
    return type(tensor).__module__.startswith("torchao.") and isinstance(tensor, Tensor)


def adopt(module: nn.Module) -> nn.Module:
    """`module`, or a copy that shares its tensors, with every linear that torchao quantized replaced. Raises UnsupportedError."""
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


def _replace(name: str, linear: nn.Linear) -> QuantizedLinear:
    weight = linear.weight
    kwargs, q, s = (getattr(weight, field, None) for field in ("act_quant_kwargs", "qdata", "scale"))
    row = type(getattr(kwargs, "granularity", None)).__name__ == "PerRow"
    symmetric = getattr(getattr(kwargs, "mapping_type", None), "name", "") == "SYMMETRIC" and not getattr(kwargs, "reduce_range", False)
    ours = isinstance(q, Tensor) and isinstance(s, Tensor) and q.dtype is torch.int8 and s.numel() == q.shape[0]
    if not (ours and row and symmetric) or getattr(weight, "act_quant_scale", None) is not None or _has_zero_point(weight):
        raise UnsupportedError(
            f"weight '{name}.weight' is a torchao {type(weight).__name__} in a configuration that the chip does not compute",
            hint="quantize with Int8DynamicActivationInt8WeightConfig(), or compile the float model",
        )
    assert isinstance(q, Tensor)
    assert isinstance(s, Tensor)
    return QuantizedLinear(q, s, linear.bias).eval()


def _has_zero_point(weight: Tensor) -> bool:
    zero = getattr(weight, "zero_point", None)
    return isinstance(zero, Tensor) and bool((zero != 0).any())
