"""Legal operations in mixes that no BERT has: every operand where it is, every result where it belongs, bit for bit."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import llmchip
from isa.chip import Sram, load_chip

Function = Callable[..., Any]


class Mix(nn.Module):
    """A function of two linears and its inputs."""

    def __init__(self, function: Function, inputs: int, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function, self.l, self.k = function, nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)
        self.c = nn.Parameter(torch.randn(1, 1, outputs))

    def forward(self, *x: torch.Tensor) -> Any:
        return self.function(self, *x)


class Layers(nn.Module):
    """Equal layers, which become a loop."""

    def __init__(self, step: Function, n: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.step, self.n = step, n
        self.first, self.layers = nn.Linear(n, n), nn.ModuleList(nn.Linear(n, n) for _ in range(4))

    def forward(self, x: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
        h = F.layer_norm(self.first(x), (self.n,))
        for layer in self.layers:
            h = self.step(layer, h, *more)
        return h


def check(model: nn.Module, *inputs: torch.Tensor, **options: Any) -> Any:
    """The chip's results, after comparing them with the reference."""
    program = llmchip.compile(model.eval(), inputs, **options)
    got, want = program(*inputs), program.reference(*inputs)
    for a, b in zip(*(t if isinstance(t, tuple | list) else (t,) for t in (got, want)), strict=True):
        assert a.shape == b.shape and torch.equal(a, b)
    return got


def sample(*sizes: int) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(sizes)


COLUMNS = {
    "first column": lambda s, x: (lambda y: y * y[:, :1])(s.l(x)),
    "function of the first column": lambda s, x: (lambda y: y + torch.tanh(y)[:, :1])(s.l(x)),
    "half of the columns": lambda s, x: (lambda y: y.view(64, 2, 1024)[:, 1] - y[:, :1024])(s.l(x)),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_wide_product_reads_a_part_of_itself(name: str) -> None:
    """Breaks if a block of columns reads its own first column where the model reads that of the row."""
    check(Mix(COLUMNS[name], 512, 2048), sample(64, 512))


def test_layers_that_read_a_vector_by_columns() -> None:
    """Breaks if what later blocks still read is overwritten by the carried value, or a scale."""
    check(Layers(lambda layer, h, y: layer((h + y).sum(-1)), 16), sample(16, 16), sample(16, 16, 16))
    check(Layers(lambda layer, h: torch.tanh(layer(h + h.sum(-1))), 64), sample(64, 64))


JOINED = {
    "two products": lambda s, x: torch.cat([s.l(x), s.k(x)], 1),
    "a parameter, expanded": lambda s, x: torch.cat([s.c.expand(2, -1, -1), s.l(x)], 1),
    "rotated halves": lambda s, x: (lambda q: torch.cat([-q[..., 2:], q[..., :2]], -1))(s.l(x)),
    "a stack": lambda s, x: torch.stack([s.l(x), s.l(x) * 2], 1),
    "views and inputs": lambda s, x: torch.cat([s.l(x).permute(0, 2, 1), x[:, :3, :4], x[:, :2, :4] * 2], 1),
    "one value twice": lambda s, x: (
        lambda y: (torch.cat([y, y], -1), y.sum(-1), torch.softmax(torch.cat([y, y], 0), -1))
    )(s.l(x)),
}


@pytest.mark.parametrize("name", JOINED)
def test_cat_of_what_is_computed(name: str) -> None:
    """Breaks if a part of a cat is not where the cat looks for it."""
    check(Mix(JOINED[name], 6, 5), sample(2, 4, 6))


PERMUTED = {
    "softmax both ways": lambda s, x: (lambda y: torch.softmax(y, -1) + torch.softmax(y, -2))(s.l(x)),
    "normalized by columns": lambda s, x: F.layer_norm(s.l(x).transpose(1, 2), (5,)) * s.l(x).sum(),
    "products both ways": lambda s, x: (
        lambda y: y @ y.transpose(1, 2) @ y + (y.transpose(1, 2) @ y).sum(-1).unsqueeze(1)
    )(s.l(x)),
    "columns one by one": lambda s, x: tuple(v.squeeze(-1).softmax(-1) for v in s.l(x).split(1, -1)),
}


@pytest.mark.parametrize("name", PERMUTED)
def test_a_value_read_straight_and_permuted(name: str) -> None:
    """Breaks if rows are read along a dimension that no word can walk."""
    check(Mix(PERMUTED[name], 6, 5), sample(2, 5, 6))


def test_a_query_that_is_a_part_of_a_projection() -> None:
    """Breaks if a product is cut by heads although its reader takes only some columns of it."""

    def attend(s: Any, x: torch.Tensor) -> torch.Tensor:
        q, k = s.l(x)[..., :256], s.k(x)[..., 256:]
        return F.scaled_dot_product_attention(*(t.reshape(1, 32, 2, 128).transpose(1, 2) for t in (q, k, k)))

    check(Mix(attend, 64, 512), sample(1, 32, 64))
    check(Mix(lambda s, x: (lambda y: F.layer_norm(y, (64,), y.mean(-1)))(torch.relu(s.l(x))), 16, 64), sample(64, 16))


def test_empty_tensors() -> None:
    """Breaks if a dimension of size zero has no blocks, no home, or no sum."""
    empty = torch.zeros(0, 3)
    got = check(
        Mix(lambda s, z, o: (z.sum(0), z * 2, o.sum(-1), torch.cat([z, s.c[0]]), torch.softmax(o, -1), s.l(z)), 3, 3),
        empty,
        torch.ones(2, 0),
    )
    assert got[0].tolist() == [0.0] * 3 and got[1].shape == (0, 3) and got[2].tolist() == [0.0] * 2
    assert torch.equal(check(Mix(lambda s, a, b: a @ b, 1, 1), torch.zeros(3, 0), torch.zeros(0, 4)), torch.zeros(3, 4))


def test_long_columns() -> None:
    """Breaks if a column is longer than a word reaches, or a map that does not fit is not cut by columns."""
    x = torch.arange(60_000.0).reshape(20_000, 3) % 17
    assert torch.equal(check(Mix(lambda s, x: x.sum(0), 1, 1), x), x.sum(0))
    small = msgspec.structs.replace(load_chip("edge"), name="small", sram=Sram(1 << 20))
    check(Mix(lambda s, x: x.amax(1), 1, 1), sample(1, 1024, 320), chip=small)


def test_results_in_any_form() -> None:
    """Breaks if a result that is a view, a duplicate, an input, a constant or a single number gets no place."""
    check(
        Mix(
            lambda s, x: (lambda y: (y, y, y[0], y.transpose(0, 1), y.sum(), y.sum().view(1, 1) + 1, x, s.c))(s.l(x)),
            4,
            5,
        ),
        sample(3, 4),
    )
    check(
        Mix(
            lambda s, x: (lambda y: (y.sum(-1), torch.softmax(y, 1), y.expand(1, 3, 1), torch.cat([y, y], 1)))(s.l(x)),
            1,
            1,
        ),
        sample(1, 1, 1),
    )
