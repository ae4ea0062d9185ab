"""Memory that nobody has written: the same each time, in the reference and on the chip."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import llmchip

X = torch.randn(3, 4)


def written_in_part(x: Tensor) -> Tensor:
    out = torch.empty(3, 8)
    out[:, :4] = x
    return out[:, :4] * 2


def like(x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    out[1:] = x[1:]
    return out[1:] + 1


def strided(x: Tensor) -> Tensor:
    out = torch.empty_strided((4, 3), (1, 4)).t()
    out[:, 1:] = x[:, 1:]
    return out[:, 1:] - 1


def new(x: Tensor) -> Tensor:
    out = x.new_empty(5, 4)
    out[:3] = x
    return out[:3].relu()


@pytest.mark.parametrize("fn", [written_in_part, like, strided, new])
def test_what_nobody_has_written_is_the_same_in_reference_and_on_the_chip(fn: Callable[[Tensor], Tensor]) -> None:
    """Breaks if constants are packed from whatever memory holds: hy_v4, dots3_note_text (transformers) prepare keys so."""

    class Model(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return fn(x)

    program = llmchip.compile(Model().eval(), (X,))
    rubbish = [torch.full((n,), float("nan")) for n in (12, 20, 24)]  # what is freed is what the next one gets
    del rubbish
    assert program.verify(X).bit_exact
    assert torch.equal(program(X), fn(X))


def test_unwritten_memory_is_zero() -> None:
    """Breaks if two programs of one model differ in what they pack."""

    class Model(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.empty(3, 4) * 0 + x

    assert torch.equal(llmchip.compile(Model().eval(), (X,))(X), X)
