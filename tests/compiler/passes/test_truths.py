"""Products of masks of 64 bits: only whether they are zero is asked, and that the factors know."""

import pytest
import torch
from models import Function

import llmchip

MASK = torch.tensor([[1, 0, 65536, -3], [0, 65536, 1 << 31 - 1, 2]])


def test_whether_a_product_of_masks_is_zero() -> None:
    """Breaks when a product that is no zero in 64 bits is one in 32, a zero factor is lost, or a mask of a model
    (DeBERTa's) is refused for what it could be."""
    module = Function(lambda m, a: ((a[:, None] * a[:, :, None]).bool(), (a * a[:1]) != 0)).eval()
    program = llmchip.compile(module, (MASK,))
    assert program.verify(MASK).bit_exact
    for found, wanted in zip(program(MASK), module(MASK), strict=True):
        assert found.dtype is torch.bool and torch.equal(found, wanted)


def test_a_product_that_is_wanted_itself_is_refused() -> None:
    """Breaks when 64-bit values that nobody has proved to fit come out, or three factors are asked, whose product can be
    zero in 64 bits though none of them is."""
    for function in (lambda m, a: a * a, lambda m, a: (a * a * a).bool()):
        with pytest.raises(llmchip.UnsupportedError, match="64-bit"):
            llmchip.compile(Function(function).eval(), (MASK,))
