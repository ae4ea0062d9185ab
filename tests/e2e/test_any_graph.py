"""Graphs of every form through the whole compiler: the bits of the reference. Each was once wrong, or an error from
inside."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, scaled_dot_product_attention

import llmchip


class Model(nn.Module):
    """A function as a module; keywords become its linears and parameters."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args: Tensor) -> Any:
        return self.function(self, *args)


def check(function: Callable[..., Any], *args: Tensor, chip: str = "edge", **parts: Any) -> None:
    torch.manual_seed(0)
    model = Model(function, **parts).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) / parameter.shape[-1] ** 0.5)
    program = llmchip.compile(model, args, chip=chip)
    assert program.verify(*args).bit_exact


def x(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("read", [
    lambda y: y * y[:, :1], lambda y: y - y[..., :1], lambda y: y + torch.tanh(y)[:, :1], lambda y: y * y[:, -1:], lambda y: y.relu() + y[:1],
])  # fmt: skip
def test_a_wide_linear_read_beyond_its_own_columns(read: Callable[[Tensor], Tensor]) -> None:
    """Breaks when a kernel is cut by columns although one of its operations reads the first column of all (wrong
    without a word)."""
    check(lambda m, a: read(m.wide(a)), x(40, 512), wide=nn.Linear(512, 1088))


@pytest.mark.parametrize("body", [lambda l, h, w: l((w * h).sum(-1)), lambda l, h, w: torch.tanh(l(h + h.sum(-1)))])
def test_a_carried_value_that_later_blocks_read_by_broadcast(body: Callable[..., Tensor]) -> None:
    """Breaks when another value moves into the carried value's memory because its sizes look like the kernel's (wrong
    without a word)."""

    def forward(m: Any, a: Tensor, w: Tensor) -> Tensor:
        h = layer_norm(m.first(a), (16,))
        for layer in m.layers:
            h = body(layer, h, w)
        return h

    check(
        forward,
        x(16, 16),
        x(16, 16, 16),
        first=nn.Linear(16, 16),
        layers=nn.ModuleList(nn.Linear(16, 16) for _ in range(4)),
    )


CATS: dict[str, Callable[..., Tensor]] = {
    "two linears": lambda m, a: torch.cat([m.l(a), m.k(a)], 1),
    "a class token": lambda m, a: torch.cat([m.c.expand(2, -1, -1), m.l(a)], 1),
    "rotated halves": lambda m, a: torch.cat([-m.l(a)[..., 2:], m.l(a)[..., :2]], -1),
    "stacked": lambda m, a: torch.stack([m.l(a), m.l(a) * 2], 1),
    "permuted parts": lambda m, a: torch.cat([m.l(a).transpose(1, 2), m.k(a).transpose(1, 2) * 2], 1),
    "itself twice": lambda m, a: torch.cat([a, a, m.l(a)[..., :4]], 0),
}


@pytest.mark.parametrize("name", CATS)
def test_concatenation_of_computed_values(name: str) -> None:
    """Breaks when a pass takes an operand's list for a node."""
    check(CATS[name], x(2, 4, 4), l=nn.Linear(4, 4), k=nn.Linear(4, 4), c=nn.Parameter(torch.zeros(1, 1, 4)))


PERMUTED: dict[str, Callable[..., Any]] = {
    "softmax both ways": lambda m, a: torch.softmax(m.l(a), -1) + torch.softmax(m.l(a), -2),
    "softmax over channels": lambda m, a: torch.softmax(m.l(a), 1),
    "sums both ways": lambda m, a: (a.sum(-1), a.sum(1), a.sum(0)),
    "norm transposed": lambda m, a: layer_norm(m.l(a), (8,)).transpose(-1, -2) * 2,
    "product of a transpose": lambda m, a: (
        m.l(m.l(a).transpose(-1, -2).contiguous().transpose(-1, -2)) @ m.l(a).transpose(-1, -2)
    ),
    "columns apart": lambda m, a: tuple(v.squeeze(-1).softmax(-1) for v in m.l(a).split(1, -1)),
    "norm of channels": lambda m, a: layer_norm(a.permute(0, 2, 1), (5,)).permute(0, 2, 1) + a,
    "rows of a column": lambda m, a: layer_norm(m.l(a)[..., 3], (5,)),
}


@pytest.mark.parametrize("name", PERMUTED)
def test_values_read_straight_and_permuted(name: str) -> None:
    """Breaks when a word that needs rows of neighbours is given columns."""
    check(PERMUTED[name], x(2, 5, 8), l=nn.Linear(8, 8))


def test_a_query_that_is_a_slice_of_a_projection() -> None:
    """Breaks when a projection is cut by heads that are not all of its columns."""

    def forward(m: Any, a: Tensor) -> Tensor:
        q, k = m.a(a)[..., :256], m.b(a)
        return scaled_dot_product_attention(*(t.view(1, 32, 2, 128).transpose(1, 2) for t in (q, k, k)))

    check(forward, x(1, 32, 64), a=nn.Linear(64, 512), b=nn.Linear(64, 256))


def test_a_norm_whose_weight_is_computed_beside_it() -> None:
    """Breaks when a column vector counts as cut like the rows because it is as long by chance."""
    check(lambda m, a: layer_norm(m.l(a).relu(), (64,), m.l(a).relu().mean(-1)), x(64, 16), l=nn.Linear(16, 64))


@pytest.mark.parametrize("function", [
    lambda m, z: z.sum(0), lambda m, z: z * 2, lambda m, z: torch.softmax(z, -1), lambda m, z: z.transpose(0, 1).sum(-1), lambda m, z: z @ m.w,
    lambda m, z: torch.cat([z, m.w]), lambda m, z: z.transpose(0, 1) @ z, lambda m, z: (z.amax(-1), z + 1), lambda m, z: z.mean(0),
])  # fmt: skip
def test_nothing_to_compute(function: Callable[..., Any]) -> None:
    """Breaks when a dimension of size zero reaches a step or a division."""
    check(function, torch.zeros(0, 3), w=nn.Parameter(torch.zeros(3, 3)))


def test_long_rows_and_columns() -> None:
    """Breaks when a word's fields cannot hold a real vocabulary (262,144) or 20,000 rows, or when a column sum wants
    all of it in SRAM."""
    check(lambda m, a: torch.softmax(a, -1), x(1, 262144))
    check(lambda m, a: a.sum(0), x(20000, 3))
    check(lambda m, a: a.mean(1), x(1, 3000, 1024))


def test_a_chain_of_hundreds_of_operations() -> None:
    """Breaks when a pass recurses along the graph, or looks at every pair of operations."""

    def chain(m: Any, a: Tensor) -> Tensor:
        for i in range(400):
            a = a * 1.0001 if i % 2 else a + 0.5
        return a

    check(chain, torch.ones(2, 2))


@pytest.mark.parametrize(
    "read", [lambda y: y.transpose(-1, -2), lambda y: torch.softmax(y, -2), lambda y: y.permute(2, 0, 1) * 2]
)
def test_an_embedding_that_its_readers_want_transposed(read: Callable[[Tensor], Tensor]) -> None:
    """Breaks when the rows of a table are gathered straight into columns, which a word cannot address."""
    check(lambda m, ids: read(m.table(ids)), torch.tensor([[0, 3, 2], [1, 1, 0]]), table=nn.Embedding(4, 5))


def test_narrow_rows_are_many_in_a_word() -> None:
    """Breaks when a block has as many rows of one element as it would have of a thousand: then every 128 elements take
    five words."""
    args = (x(20, 8, 128, 1),)
    program = llmchip.compile(Model(lambda m, a: torch.tanh(a)[:, :1] * a).eval(), args)
    assert program.verify(*args).bit_exact
    assert len(program.image.code) // 16 < 400
