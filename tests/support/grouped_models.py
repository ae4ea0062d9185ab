"""Linears of GGUF's block formats as PyTorch modules: rows quantized group by group, grouped products."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compiler.frontend.gguf.blocks import WeightType, pack_i4
from compiler.ops import library as ops


class GroupedLinear(nn.Module):
    """x [..., K] times weight rows of block bytes, uint8 [N, bytes]."""

    def __init__(self, kind: WeightType, rows: NDArray[np.uint8]) -> None:
        super().__init__()
        self.kind, w = kind, kind.decode(rows)
        codes = w.codes if kind.product.storage == "i8" else pack_i4(w.codes).view(np.int8)
        parts: dict[str, NDArray[Any] | None] = {"w": codes, "sw": w.scales, "zw": w.minima}
        for name, part in (parts | {"ss": w.sub_scales, "sm": w.sub_minima}).items():
            self.register_buffer(name, None if part is None else torch.from_numpy(np.ascontiguousarray(part)))

    def forward(self, x: Tensor) -> Tensor:
        rule, p = self.kind.activations, self.kind.product
        scale = getattr(torch, rule.scale)
        q, s = ops.quantize_groups(x, rule.group, rule.norm, rule.ties, scale)
        parts = (getattr(self, name) for name in ("sw", "zw", "ss", "sm"))
        y: Tensor = ops.matmul_groups(q, self.w, s, *parts, p.group, p.sub, p.storage, p.pre, p.half)
        return y


def random_rows(kind: WeightType, n: int, k: int, seed: int) -> NDArray[np.uint8]:
    """Block bytes of n rows of k weights: any code and sub-scale, scales that are numbers of an ordinary size."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 256, (n, k // kind.elements, kind.nbytes), np.uint8)
    scale = rng.uniform(-1, 1, (n, k // kind.elements, 2)).astype("<f2").view(np.uint8)
    if kind.name == "MXFP4":
        rows[..., 0] = rng.integers(118, 134, rows.shape[:2])
    elif kind.name == "Q6_K":
        rows[..., 208:] = scale[..., :2]
    else:
        fields = 4 if kind.name in ("Q4_1", "Q5_1", "Q4_K", "Q5_K") else 2
        rows[..., :fields] = scale[..., :fields]
    return rows.reshape(n, -1)
