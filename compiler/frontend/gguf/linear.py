"""A linear layer whose weights stay as a GGUF file has them: rows quantized group by group, grouped products."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compiler.frontend.gguf.blocks import Weights, WeightType, pack_i4, unpack_i4
from compiler.ops import library as ops


class GroupedLinear(nn.Module):
    """x [..., K] times weight rows of block bytes, uint8 [N, bytes]: float32 [..., N], ggml's own bits. A bias, float32
    [N], is added to the product.

    `rows` are taken apart and kept as buffers, int8 and floats, so that they are constants of a compiled program.
    """

    codes: Tensor
    scales: Tensor
    minima: Tensor | None
    sub_scales: Tensor | None
    sub_minima: Tensor | None
    bias: Tensor | None

    def __init__(self, kind: WeightType, rows: NDArray[np.uint8], bias: NDArray[np.float32] | None = None) -> None:
        super().__init__()
        self.kind, w = kind, kind.decode(rows)
        codes = w.codes if kind.product.storage == "i8" else pack_i4(w.codes, kind.product.storage)
        parts: dict[str, NDArray[Any] | None] = {"codes": codes, "scales": w.scales, "minima": w.minima}
        parts |= {"sub_scales": w.sub_scales, "sub_minima": w.sub_minima, "bias": bias}
        for name, part in parts.items():
            self.register_buffer(name, None if part is None else torch.from_numpy(np.ascontiguousarray(part)))

    def forward(self, x: Tensor) -> Tensor:
        """Float32 [..., N] of x [..., K], of any float type."""
        rule, p = self.kind.activations, self.kind.product
        q, s = ops.quantize_groups(x, rule.group, rule.norm, rule.ties, getattr(torch, rule.scale))
        more = self.minima, self.sub_scales, self.sub_minima
        y: Tensor = ops.matmul_groups(q, self.codes, s, self.scales, *more, p.group, p.sub, p.storage, p.pre, p.half)
        return y if self.bias is None else y + self.bias

    def values(self) -> Tensor:
        """The dequantized weights, float32 [N, K]: those of the block format, exactly."""
        codes = self.codes.numpy()
        codes = codes if self.kind.product.storage == "i8" else unpack_i4(codes, self.kind.product.storage)
        parts = (None if p is None else p.numpy() for p in (self.minima, self.sub_scales, self.sub_minima))
        return torch.from_numpy(Weights(codes, self.scales.numpy(), *parts).values())

    def extra_repr(self) -> str:
        """What `print(model)` shows of it."""
        return f"{self.kind.name}, rows={self.scales.shape[0]}"
