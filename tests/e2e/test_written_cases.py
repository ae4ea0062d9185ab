"""Cases by hand in which eager PyTorch alone knows the answer: which operand is rounded first, which type a sum or a
power has."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import llmchip

A, I8, I32 = torch.tensor(0.1), torch.int8, torch.int32
FACTORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "scalar times": lambda a, x: a * x,
    "times scalar": lambda a, x: x * a,
    "scalar over": lambda a, x: a / x,
    "over scalar": lambda a, x: x / a,
    "over one element": lambda a, x: x / torch.full((1,), 100001, dtype=I32),
    "times one element": lambda a, x: x * torch.full((1,), 100001, dtype=I32) * 1e-4,
    "one element times": lambda a, x: torch.full((1,), 2049, dtype=I32) * x,
    "plus": lambda a, x: a + x,
    "minus": lambda a, x: a - x,
    "known times": lambda a, x: torch.tensor(0.1) * x,
    "known over": lambda a, x: torch.tensor(0.1) / x,
    "number over": lambda a, x: 2.1 / x,
    "the negative added": lambda a, x: torch.add(a, x, alpha=-1),
    "alpha that overflows": lambda a, x: torch.add(a * -30000, torch.full_like(x, 40000), alpha=2),
    "alpha that underflows": lambda a, x: torch.add(
        torch.full_like(x, 2.0**-24), torch.full_like(x, 2.0**-24), alpha=0.5
    ),
    "alpha the other way round": lambda a, x: torch.rsub(x, a.to(x.dtype), alpha=0.1),
    "alpha that rounds": lambda a, x: torch.add(a, x, alpha=0.1),
}
INTEGERS: dict[str, tuple[Callable[[Tensor], Any], Tensor]] = {
    "a square beyond the integers": (lambda x: x**2.0, torch.tensor([100000, -7], dtype=I32)),
    "a square of small integers": (lambda x: x**2.0, torch.tensor([96], dtype=I8)),
    "a cube": (lambda x: x**3.0, torch.tensor([4000], dtype=I32)),
    "a sum that wraps": (lambda x: x.sum(-1, dtype=I32).float(), torch.tensor([[2**30] * 4], dtype=I32)),
    "a sum that wraps early": (lambda x: x.sum(-1, dtype=I8) * 0.5, torch.tensor([[100] * 3], dtype=I32)),
    "a sum of truths that is a truth": (
        lambda x: x.sum(-1, dtype=torch.bool) * 0.5,
        torch.tensor([[True, True, False]]),
    ),
    "a count of truths": (lambda x: x.sum(-1, dtype=I32) * 0.5, torch.tensor([[True, True, False]])),
    "a wrapped sum between bounds": (
        lambda x: torch.clamp(x.sum(-1, dtype=I8), 0.5, 100.0),
        torch.tensor([[300, 1, 2]], dtype=I32),
    ),
}


def same(function: Callable[..., Tensor], *inputs: Tensor) -> None:
    torch._dynamo.reset()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got, want = torch.compile(function, backend="llmchip", options={"fallback": True})(*inputs), function(*inputs)
    assert got.dtype is want.dtype and torch.equal(got, want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", FACTORS)
def test_a_scalar_beside_half_types(name: str, dtype: torch.dtype) -> None:
    """Breaks if a first factor stays unrounded, or a second is rounded (wrong without a word: 351 of 1000 elements)."""
    same(FACTORS[name], A, (torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 3).to(dtype))


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_that_become_floats(name: str) -> None:
    """Breaks if an integer power is computed in integers, or a sum forgets the type that it was asked for."""
    same(*INTEGERS[name])


def test_most_of_these_run_on_the_chip() -> None:
    """Breaks if the cases above compare PyTorch with itself."""
    llmchip.compile(_module(lambda x: A * x), (torch.ones(4).half(),))
    llmchip.compile(_module(lambda x: x**2.0), (torch.ones(4, dtype=I32),))
    llmchip.compile(_module(lambda x: x.sum(-1, dtype=I32) * 0.5), (torch.ones(4) > 0,))


def _module(function: Callable[[Tensor], Tensor]) -> torch.nn.Module:
    class Of(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    return Of().eval()
