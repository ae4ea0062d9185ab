"""Resized images and signals: PyTorch's own answers, through the whole stack."""

from math import inf, nan
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
ROWS: list[dict[str, Any]] = [
    {"scale_factor": 2, "mode": "linear"}, {"scale_factor": 3, "mode": "linear"}, {"size": 5, "mode": "linear"},
    {"size": 9, "mode": "linear", "align_corners": True}, {"scale_factor": 0.6, "mode": "linear"},
]  # fmt: skip
IMAGES: list[dict[str, Any]] = [
    *({"size": size, "mode": mode} for mode in ("bilinear", "bicubic") for size in ((10, 12), (5, 9), (2, 18))),
    {"size": (9, 9), "mode": "bilinear", "align_corners": True},
    {"size": (9, 9), "mode": "bicubic", "align_corners": True},
    {"scale_factor": (1.7, 0.6), "mode": "bilinear", "antialias": True},
    {"size": (9, 6), "mode": "bicubic", "antialias": True},
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


@pytest.mark.parametrize("how", ROWS + IMAGES, ids=str)
def test_infinities_are_where_pytorch_has_them(how: dict[str, Any]) -> None:
    """Breaks when an element that only others count is read, or one that PyTorch reads for nothing is not: 0 * inf is
    NaN. Also when -0.0 becomes 0.0, which has no bits of its own in bicubic's terms of either sign."""
    shape = (1, 2, 5) if how["mode"] == "linear" else (1, 2, 5, 6)
    program = llmchip.compile(Function(lambda m, x: interpolate(x, **how)).eval(), (torch.zeros(shape),))
    among = torch.tensor([inf, -inf, nan, -0.0])
    for rare in (0.02, 0.02, 0.1, 0.1, 0.3, 0.3):
        strange = among[torch.randint(len(among), shape)]
        x = torch.where(torch.rand(shape) < rare, strange, torch.randn(shape))
        x[0, 0, 0].view(-1)[0] = strange.view(-1)[0]  # one at least, on the edge
        found, wanted = program(x), interpolate(x, **how)
        assert torch.allclose(found, wanted, atol=1e-5, rtol=1e-5, equal_nan=True), x
    if how["mode"] != "bicubic":
        assert program(torch.full(shape, -0.0)).signbit().all()


def test_a_mask_keeps_its_infinities() -> None:
    """Breaks when what is nowhere but inf or 0 becomes NaN at the edge."""
    x = torch.zeros(1, 1, 2, 2)
    x[..., 0, 0] = -inf
    found, wanted = _run(x, scale_factor=2, mode="bilinear")
    assert not wanted.isnan().any() and torch.equal(found, wanted)


def test_an_element_of_too_many_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a program grows with the factor by which an image shrinks."""
    monkeypatch.setattr(resize, "MOST", 3)
    with pytest.raises(llmchip.UnsupportedError, match="of 4 others"):
        _run(torch.randn(1, 1, 6, 6), size=12, mode="bicubic")
