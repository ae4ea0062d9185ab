"""Rows of caches on their way back to the chip."""

import pytest
import torch

from compiler.reference.functions import quantize_rows
from runtime.pytorch.mirror import codes_of


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_that_the_chip_has_made_become_what_they_were(dtype: torch.dtype) -> None:
    """Breaks when a copied or reordered cache is rounded a second time: other codes, or a scale that is one bit off."""
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(2000, 24, generator=generator) * torch.rand(2000, 1, generator=generator)).to(dtype)
    x[0] = 0
    codes, scales = quantize_rows(x)
    found = codes_of((codes * scales.to(torch.float32)[:, None]).to(dtype))
    assert torch.equal(found[0], codes) and torch.equal(found[1], scales)


def test_other_rows_are_rounded_as_new_ones() -> None:
    """Breaks when values that PyTorch has written become something else than the chip would have made of them."""
    x = torch.randn(500, 24, generator=torch.Generator().manual_seed(1))
    for found, expected in zip(codes_of(x), quantize_rows(x), strict=True):
        assert torch.equal(found, expected)
