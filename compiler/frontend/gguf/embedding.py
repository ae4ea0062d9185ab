"""An embedding whose rows stay as a GGUF file has them, codes and scales: those that are looked up are dequantized."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from compiler.frontend.gguf.blocks import Weights, WeightType
from compiler.frontend.gguf.linear import GroupedLinear


class GroupedEmbedding(nn.Module):
    """Rows of block bytes, uint8 [N, bytes], by their numbers: float32 [..., K], the values of the file exactly.

    With a `head` of the same rows, both have one set of codes and scales.
    """

    codes: Tensor
    scales: Tensor
    minima: Tensor | None
    sub_scales: Tensor | None
    sub_minima: Tensor | None

    def __init__(self, kind: WeightType, rows: NDArray[np.uint8], head: GroupedLinear | None = None) -> None:
        super().__init__()
        if head is not None and kind.product.storage == "i8":
            parts = {name: getattr(head, name) for name in _PARTS}
        else:  # nibbles cannot be looked up
            parts = {name: _tensor(getattr(kind.decode(rows), name)) for name in _PARTS}
        for name, part in parts.items():
            self.register_buffer(name, part)

    def forward(self, ids: Tensor) -> Tensor:
        """Float32 [..., K] of numbers of rows [...]."""
        found = _scaled(self._rows(ids, self.codes), self._factors(ids, self.scales, self.sub_scales))
        if self.minima is None:
            return found.flatten(-2)
        return (found + self._factors(ids, self.minima, self.sub_minima).unsqueeze(-1)).flatten(-2)

    def values(self) -> Tensor:
        """All rows, float32 [N, K]."""
        parts = (None if p is None else p.numpy() for p in (getattr(self, name) for name in _PARTS))
        return torch.from_numpy(Weights(*parts).values())  # type: ignore[arg-type]

    def _rows(self, ids: Tensor, table: Tensor) -> Tensor:
        return functional.embedding(ids, table).to(torch.float32)

    def _factors(self, ids: Tensor, scales: Tensor, subs: Tensor | None) -> Tensor:
        scale = self._rows(ids, scales)
        return scale if subs is None else _scaled(self._rows(ids, subs), scale).flatten(-2)


_PARTS = ("codes", "scales", "minima", "sub_scales", "sub_minima")


def _scaled(x: Tensor, scales: Tensor) -> Tensor:
    """[..., K] times [..., G]: [..., G, K / G]."""
    found: Tensor = x.unflatten(-1, (scales.shape[-1], -1)) * scales.unsqueeze(-1)
    return found


def _tensor(x: NDArray[Any] | None) -> Tensor | None:
    return None if x is None else torch.from_numpy(np.ascontiguousarray(x))
