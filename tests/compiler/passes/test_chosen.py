"""Rows of tables and weights that are chosen by computed numbers: the bits of the reference."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import Function
from torch import Tensor, nn

import llmchip
from compiler.passes import chosen

IDS = torch.tensor([[2, 0], [1, 1], [2, 2]])
X = torch.randn(6, 12, generator=torch.Generator().manual_seed(4))


def compiled(function: Callable[..., Any], *args: Tensor, **weights: Tensor) -> llmchip.Program:
    """With parameters of these names. Raises AssertionError for a bit that is not the reference's."""
    model = Function(function).eval()
    for name, value in weights.items():
        setattr(model, name, nn.Parameter(value))
    program = llmchip.compile(model, args)
    assert program.verify(*args).bit_exact
    return program


FORMS: dict[str, tuple[tuple[int, int], Callable[[Tensor, Tensor], Tensor]]] = {
    "left": ((10, 12), lambda w, x: torch.bmm(w, x.unsqueeze(2))),
    "left, transposed": ((12, 10), lambda w, x: torch.bmm(w.transpose(1, 2), x.unsqueeze(2))),
    "right": ((12, 10), lambda w, x: torch.bmm(x.unsqueeze(1), w)),
    "right, transposed": ((10, 12), lambda w, x: torch.matmul(x.unsqueeze(1), w.mT)),
}


@pytest.mark.parametrize("block", [1 << 20, 60])
@pytest.mark.parametrize("form", FORMS)
def test_a_product_with_chosen_weights(form: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a row is multiplied by another's weights, a matrix is cut into blocks that are not its own, or all
    weights are read for the sake of a few."""
    monkeypatch.setattr(chosen, "MOST_BLOCK", block)
    sizes, multiply = FORMS[form]
    weight = torch.randn(5, *sizes, generator=torch.Generator().manual_seed(5))
    program = compiled(lambda m, x, ids: multiply(m.w[ids.reshape(-1)], x).reshape(6, 10), X, IDS, w=weight)
    wanted = multiply(weight[IDS.reshape(-1)], X).reshape(6, 10)
    assert (program(X, IDS) - wanted).abs().max() < 0.05 * wanted.abs().max()
    assert "matmul_chosen" in str(program.compiled.lowered.main.graph)


def test_rows_of_a_computed_table() -> None:
    """Breaks when a table that the program computes lies where no row of it can be fetched, or is read before it is
    written."""
    compiled(lambda m, x, ids: torch.tanh(x)[ids], X, IDS)
    compiled(lambda m, x, ids: torch.tanh(x @ m.w)[:, ids], X, IDS, w=torch.eye(12))


def test_numbers_from_the_end() -> None:
    """Breaks when a negative number is taken for a row, or index_select for something else than indexing."""
    ids, places = torch.tensor([-1, 0, 5, -6]), torch.tensor([11, 0, 11])
    program = compiled(lambda m, x, i, j: (x[i], torch.index_select(x, 1, j)), X, ids, places)
    found, columns = program(X, ids, places)
    assert torch.equal(found, X[ids]) and torch.equal(columns, X[:, places])


def test_a_number_outside_stops_the_program() -> None:
    """Breaks when memory behind a table is read for a number that names no row."""
    program = compiled(lambda m, x, ids: x[ids], X, torch.tensor([1]))
    with pytest.raises(llmchip.Error):
        program(X, torch.tensor([6]))
