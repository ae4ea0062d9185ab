"""argmax, topk, sort: PyTorch's own answers, through the whole stack."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import Function
from torch import Tensor

import llmchip

NAN, INF = float("nan"), float("inf")
HARD = torch.tensor(
    [
        [1.0, 3.0, 3.0, 2.0, -INF, NAN, 0.0, -0.0],
        [NAN, NAN, INF, INF, -INF, -INF, 5.0, 5.0],
        [0.0] * 8,
        [-3.4e38, -INF, -3.4e38, -INF, NAN, 1.0, 2.0, 3.0],
    ]
)
WIDE = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(2))


def check(function: Callable[..., Any], x: Tensor, signs: bool = True) -> None:
    """Zero differing bits, and what eager PyTorch says; of zeros too, unless it promises no order of equal elements."""
    program = llmchip.compile(Function(function).eval(), (x,))
    assert program.verify(x).bit_exact
    for found, wanted in zip(program(x), function(None, x), strict=True):
        assert found.dtype is wanted.dtype and found.shape == wanted.shape
        assert torch.equal(torch.isnan(found), torch.isnan(wanted))
        assert torch.equal(found[~torch.isnan(found)], wanted[~torch.isnan(wanted)])
        assert not signs or torch.equal(found.nan_to_num(1.0).signbit(), wanted.nan_to_num(1.0).signbit())


@pytest.mark.parametrize("x", [HARD, WIDE.bfloat16()], ids=["special", "bf16"])
def test_sorted_values_and_places(x: Tensor) -> None:
    """Breaks when equal elements change places, NaN is not the largest, or an order is taken along another dimension."""
    check(lambda m, x: (*torch.sort(x, dim=-1, stable=True), *torch.sort(x, dim=-1, stable=True, descending=True)), x)
    check(lambda m, x: (*torch.sort(x, dim=0, stable=True), x.argsort(dim=-2, descending=True, stable=True)), x)


def test_the_first_of_a_sort() -> None:
    """Breaks when topk is not what a stable sort begins with, of which PyTorch itself promises the values alone."""
    check(lambda m, x: (torch.topk(x, 3)[0], torch.topk(x, 2, largest=False)[0]), HARD, signs=False)
    check(lambda m, x: (*torch.topk(x, 8), *torch.topk(x, 2, 1)), WIDE)


def test_places_of_the_largest() -> None:
    """Breaks when argmax is not the first of equals, or NaN does not win."""
    check(lambda m, x: (x.argmax(-1), x.argmax(0, keepdim=True), x.argmax()), HARD)


def test_integers_in_order() -> None:
    """Breaks when integers are ordered as floats that cannot hold them, or sorted ones come back rounded."""
    x = torch.tensor([[1 << 30, (1 << 30) + 1, -5, 7, 7]], dtype=torch.int32)
    check(lambda m, x: (x.argsort(stable=True), *torch.sort(x, dim=-1, stable=True, descending=True)), x)


@pytest.mark.parametrize("x", [HARD, WIDE], ids=["special", "wide"])
def test_extremes_of_rows_and_their_places(x: Tensor) -> None:
    """Breaks when not the first of equal ones is named, NaN loses, or the least is the largest."""
    check(lambda m, x: (*x.max(-1), *x.min(-1), *x.max(0, keepdim=True), *x.min(-2)), x, signs=False)
    check(lambda m, x: (x.max(1).values * 2, x.min(1).indices), x, signs=False)
