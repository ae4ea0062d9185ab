"""PyTorch's types and the chip's: the table of `isa.architecture`, by torch.dtype."""

from collections.abc import Mapping

import torch
from torch import Tensor

from isa.architecture import USER_TYPES, Dtype

ACCEPTED: frozenset[torch.dtype] = frozenset(getattr(torch, name) for name in USER_TYPES)  # of inputs and weights
STORAGE: Mapping[torch.dtype, Dtype] = {
    getattr(torch, name): row.storage for name, row in USER_TYPES.items() if row.computes
}


def flat_bytes(value: Tensor) -> Tensor:
    """The bytes of a tensor, row-major, uint8 [bytes], not copied if it is contiguous: a single element is, whatever
    stride it says."""
    dense = value.detach().contiguous()
    return dense.as_strided((dense.numel(),), (1,)).view(torch.uint8)
