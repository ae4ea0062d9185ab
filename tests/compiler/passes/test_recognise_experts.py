"""transformers' grouped products, its default for mixtures of experts, as graphs bring them."""

from typing import Any

import pytest
import torch
from choice import few
from families import tiny
from models import Function
from torch import Tensor

import llmchip


@pytest.mark.parametrize("tokens", few([2, 5]))
def test_grouped_products_run_on_the_chip(tokens: int) -> None:
    """Breaks when a piece of a grouped product (sort, histc, floor_divide, index_put, …) runs in PyTorch under
    torch.compile, or a token has other bits than ahead of time."""
    model = tiny("mixtral", num_hidden_layers=1)
    given = {"input_ids": torch.arange(5, 5 + tokens)[None], "use_cache": False}
    assert model.config._experts_implementation == "grouped_mm"
    compiled: Any = torch.compile(model, backend="llmchip", options={"fallback": False})
    with torch.no_grad():
        found = compiled(**given).logits
    assert torch.equal(found, llmchip.compile(model, given)(**given).logits)


def test_other_lengths_are_not_taken_for_counts() -> None:
    """Breaks when products of rows that are not sorted by expert, or whose lengths come from elsewhere, are recognised
    all the same: wrong without a word."""

    def forward(m: Any, x: Tensor, ends: Tensor) -> Tensor:
        return torch.nn.functional.grouped_mm(x.bfloat16(), m.w, offs=ends)

    model = Function(forward).eval()
    model.w = torch.nn.Parameter(torch.randn(2, 16, 16).bfloat16())
    with pytest.raises(llmchip.UnsupportedError, match="_grouped_mm"):
        llmchip.compile(model, (torch.randn(4, 16), torch.tensor([1, 4], dtype=torch.int32)))


def test_an_inverse_order_is_one() -> None:
    """Breaks when numbers that are put anywhere are taken for the inverse of an order."""

    def inverse(m: object, x: Tensor) -> Tensor:
        order = x.argsort(stable=True) if m is None else torch.sort(x, stable=True, dim=0)[1]
        places = torch.empty_like(order)
        places[order] = torch.arange(order.shape[0])
        return places

    x = torch.tensor([3.0, -1.0, 2.0, 2.0, 9.0])
    program = llmchip.compile(Function(inverse).eval(), (x,))
    assert torch.equal(program(x), inverse(None, x))

    def twice(m: object, x: Tensor) -> Tensor:
        places = torch.zeros(5, dtype=torch.int64)
        places[torch.sort(x, dim=0)[1]] = 2 * torch.arange(5)
        return places

    program = llmchip.compile(Function(twice).eval(), (x,))
    assert torch.equal(program(x), twice(None, x))
