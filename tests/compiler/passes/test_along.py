"""Running sums and elements by computed places: PyTorch's own answers, through the whole stack."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import Function
from torch import Tensor

import llmchip


def check(function: Callable[..., Any], *args: Tensor, exact: bool = True) -> llmchip.Program:
    program = llmchip.compile(Function(function).eval(), args)
    assert program.verify(*args).bit_exact
    for found, wanted in zip(program(*args), function(None, *args), strict=True):
        assert found.dtype is wanted.dtype and found.shape == wanted.shape
        assert torch.equal(found, wanted) if exact else torch.allclose(found, wanted, atol=1e-5)
    return program


def test_running_sums() -> None:
    """Breaks when a sum of integers is rounded or wraps, one begins behind its row, or positions that are counted from
    a mask are not known to be small."""
    x = torch.randint(-9, 9, (3, 37), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    check(lambda m, x: ((x > 0).cumsum(-1) - 1, (x > 0).cumsum(0)), x)
    check(lambda m, x: (x.cumsum(1, dtype=torch.int32), (x * 200000000).cumsum(1, dtype=torch.int32)), x)
    check(lambda m, x: (x.float().cumsum(-1), (x * 0.37).cumsum(0)), x, exact=False)
    with pytest.raises(llmchip.UnsupportedError, match="cumsum adds up integers that may need more than 32 bits"):
        llmchip.compile(Function(lambda m, x: x.cumsum(-1)).eval(), (x,))


def test_quotients_of_places() -> None:
    """Breaks when small numbers are divided otherwise than floor division does, or large ones are looked up beyond the
    table."""
    x = torch.randn(3, 11, generator=torch.Generator().manual_seed(1))
    check(lambda m, x: (x.argsort(stable=True) // 3, x.argmax(-1) // 2), x)
    with pytest.raises(llmchip.UnsupportedError, match="floor_divide"):
        llmchip.compile(Function(lambda m, i: i // 3).eval(), (torch.tensor([5]),))


def test_elements_by_computed_places() -> None:
    """Breaks when an element is another row's, a zero loses its sign, or a place outside is read."""
    x, index = torch.randn(2, 3, 5), torch.tensor([[[0, 4, 4], [1, 2, 0]]])
    x[0, 0, 0] = -0.0
    program = check(lambda m, x, i: (torch.gather(x, 2, i), torch.gather(x, 1, i)), x, index % 3)
    assert torch.signbit(program(x, index % 3)[0][0, 0, 0])
    check(lambda m, x, i: (torch.gather(x, -1, x.argsort(stable=True)),), x, index)
    with pytest.raises(llmchip.Error):
        program(x, index + 1)


def test_elements_put_at_computed_places() -> None:
    """Breaks when another element is replaced, a later one does not win, or a place outside is taken."""
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(3))
    check(lambda m, x: (torch.zeros_like(x).scatter(1, x.argmax(1, keepdim=True), 1.5) - x,), x)
    check(lambda m, x: (x.scatter(-1, x.topk(2)[1], -1.5), x.scatter(-1, x.topk(2)[1], x[..., 4:6] * 2)), x)
    places = torch.zeros(2, 3, 1, dtype=torch.int64)
    program = llmchip.compile(Function(lambda m, x, i: x.scatter(-1, i, 1.0)).eval(), (x, places))
    with pytest.raises(llmchip.Trap):
        program(x, places + 8)
