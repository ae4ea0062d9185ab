"""Models of images and of sound, whole: the chip's bits are the reference's, and the reference is near the model."""

from typing import Any

import pytest
import torch
from pictures import FAMILIES, tiny
from torch import Tensor

import llmchip

CLOSE = 0.999  # cosine to the float model


def tier(name: str) -> Any:
    """`make test` takes two of those that CI runs."""
    if name in ("vit", "siglip"):
        return ()
    return pytest.mark.wide if FAMILIES[name].quick else pytest.mark.slow


@pytest.mark.parametrize("family", [pytest.param(name, marks=tier(name)) for name in FAMILIES])
def test_families(family: str) -> None:
    """Breaks when a model of the family is refused, a bit differs, or what it computes is another function."""
    model, inputs = tiny(family)
    verified = llmchip.compile(model, inputs).verify(**inputs)
    assert verified.bit_exact and verified.float is not None
    assert verified.float["cosine"] > CLOSE


@pytest.mark.parametrize(
    "family",
    ["vit", *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet", "clip-whole", "whisper", "detr"))],
)
def test_under_torch_compile(family: str) -> None:
    """Breaks when a piece of an image model goes back to PyTorch: strict, and one graph."""
    model, inputs = tiny(family)
    with torch.no_grad():
        found = _result(torch.compile(model, backend="llmchip", fullgraph=True)(**inputs))
        wanted = _result(model(**inputs))
    assert torch.nn.functional.cosine_similarity(found.flatten(), wanted.flatten(), 0) > CLOSE


def _result(output: Any) -> Tensor:
    """What the model is for."""
    found: Tensor = output.logits if hasattr(output, "logits") else output.logits_per_image
    return found
