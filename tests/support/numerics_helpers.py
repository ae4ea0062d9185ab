"""Tensors from and to bit patterns, so that tests compare integers, never with a tolerance."""

import torch
from torch import Tensor

CANONICAL = {
    torch.float32: (torch.int32, 0x7FC00000),
    torch.bfloat16: (torch.int16, 0x7FC0),
    torch.float16: (torch.int16, 0x7E00),
}


def tensor(*words: int) -> Tensor:
    """float32 tensor with these bit patterns."""
    return torch.tensor(words, dtype=torch.int64).to(torch.int32).view(torch.float32)


def bits(x: Tensor) -> list[int]:
    """Bit patterns, every NaN as the canonical one."""
    integer, nan = CANONICAL[x.dtype]
    raw = x.contiguous().view(integer).to(torch.int64) & (0xFFFFFFFF if integer == torch.int32 else 0xFFFF)
    return [int(word) for word in torch.where(torch.isnan(x), nan, raw).flatten()]
