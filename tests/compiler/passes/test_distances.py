"""Distances between rows: near ones come from what lies between them, not from the sizes of both."""

from typing import Any

import pytest
import torch
from models import Function
from torch import Tensor

import llmchip


@pytest.mark.parametrize("mode", ["use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist"])
def test_near_rows(mode: str) -> None:
    """Breaks when the distance of rows that are nearly equal is the rounding of their lengths."""
    far = torch.tensor([30.0, -40.0, 7.0])
    a = torch.tensor([[0.5, 0.25, 1.0], [0.0, 0.0, 0.0]]) + far
    b = torch.tensor([[0.25, 0.25, 1.0], [0.0, 3.0, 4.0], [0.0, 0.0, 0.0]]) + far
    program = llmchip.compile(Function(lambda _m, a, b: torch.cdist(a, b, 2.0, mode)).eval(), (a, b))
    assert program.verify(a, b).bit_exact
    exact = (a[:, None] - b).pow(2).sum(-1).sqrt()
    torch.testing.assert_close(program(a, b), exact, rtol=1e-6, atol=0)


def test_norms_and_batches() -> None:
    """Breaks when a batch is another's, or a norm another one."""
    a = torch.randn(2, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    b = torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(1))

    def norms(_m: Any, a: Tensor, b: Tensor) -> list[Tensor]:
        return [torch.cdist(a, b, p) for p in (0.0, 1.0, 2.0, float("inf"))]

    program = llmchip.compile(Function(norms).eval(), (a, b))
    assert program.verify(a, b).bit_exact
    for got, want in zip(program(a, b), norms(None, a, b), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def test_too_many_pairs_are_refused() -> None:
    """Breaks when a distance comes from an int8 product after all."""
    x = torch.zeros(4096, 32)
    with pytest.raises(llmchip.UnsupportedError, match="euclidean_dist"):
        llmchip.compile(Function(lambda _m, x: torch.cdist(x, x)).eval(), (x,))
