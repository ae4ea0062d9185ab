"""PyTorch's types and the chip's: the table of `isa.architecture`, by torch.dtype."""

from collections.abc import Mapping

import torch

from isa.architecture import USER_TYPES, Dtype

ACCEPTED: frozenset[torch.dtype] = frozenset(getattr(torch, name) for name in USER_TYPES)  # of inputs and weights
STORAGE: Mapping[torch.dtype, Dtype] = {
    getattr(torch, name): row.storage for name, row in USER_TYPES.items() if row.computes
}
