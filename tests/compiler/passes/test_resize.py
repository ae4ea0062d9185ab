"""Resized images and signals: PyTorch's own answers, through the whole stack."""

from math import inf
from typing import Any

import pytest
import torch
from models import Function
from torch import Tensor
from torch.nn.functional import interpolate

import llmchip
from compiler.passes import resize

NEAREST: list[dict[str, Any]] = [
    {"scale_factor": 2}, {"size": (7, 3)}, {"scale_factor": (0.5, 3)}, {"scale_factor": 1.7},
    {"size": (5, 9), "mode": "nearest-exact"},
]  # fmt: skip
OTHERS: list[dict[str, Any]] = [
    {"scale_factor": 2, "mode": "bilinear"}, {"size": (7, 3), "mode": "bilinear", "align_corners": True},
    {"scale_factor": (1.7, 0.6), "mode": "bilinear"}, {"scale_factor": 2, "mode": "bicubic"},
    {"size": (3, 9), "mode": "bicubic", "antialias": True}, {"size": (2, 3), "mode": "bilinear", "antialias": True},
]  # fmt: skip
PARTS = {"linear": (2, 3, 5), "trilinear": (1, 2, 3, 2, 4)}


def _run(x: Tensor, **how: Any) -> tuple[Tensor, Tensor]:
    """The chip's answer, its bits verified, and PyTorch's."""
    program = llmchip.compile(Function(lambda m, x: interpolate(x, **how)).eval(), (x,))
    assert program.verify(x).bit_exact
    return program(x), interpolate(x, **how)


@pytest.mark.parametrize("how", NEAREST, ids=str)
def test_nearest_are_the_elements_themselves(how: dict[str, Any]) -> None:
    """Breaks when another element is taken."""
    found, wanted = _run(torch.randn(2, 3, 5, 6), **how)
    assert torch.equal(found, wanted)
    found, wanted = _run(torch.randn(1, 2, 5, 6).bfloat16(), **how)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("how", OTHERS, ids=str)
def test_between_elements(how: dict[str, Any]) -> None:
    """Breaks when an element counts for another part, or a dimension is mistaken for another."""
    found, wanted = _run(torch.randn(2, 3, 5, 6), **how)
    assert torch.allclose(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", PARTS)
def test_other_ranks(mode: str) -> None:
    """Breaks when only images are resized."""
    found, wanted = _run(torch.randn(PARTS[mode]), scale_factor=2, mode=mode)
    assert torch.allclose(found, wanted, atol=1e-5, rtol=1e-5)


def test_an_infinity_stays_where_it_is() -> None:
    """Breaks when an element that counts for nothing is read, and is infinite: 0 * inf is NaN."""
    x = torch.ones(1, 1, 5)
    x[..., 0] = inf
    found, wanted = _run(x, size=9, mode="linear", align_corners=True)
    assert torch.equal(found[..., 3:], wanted[..., 3:])


def test_an_element_of_too_many_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a program grows with the factor by which an image shrinks."""
    monkeypatch.setattr(resize, "MOST", 3)
    with pytest.raises(llmchip.UnsupportedError, match="of 4 others"):
        _run(torch.randn(1, 1, 6, 6), size=12, mode="bicubic")
