"""Operands that models rarely have: vectors as weights, fewer or more heads and samples of keys than of queries, no
elements at all."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.functional import scaled_dot_product_attention as sdpa

import llmchip

Q, V = torch.linspace(-1, 1, 80).reshape(1, 2, 5, 8).sin(), torch.linspace(-2, 2, 8)


class Of(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("w", V)

    def forward(self, *args: Tensor) -> Any:
        return self.function(self.w, *args)


def _written_out(_w: Tensor, q: Tensor, mask: Tensor) -> Tensor:
    return torch.softmax(q @ q.transpose(-1, -2) + mask, -1) @ q


PRODUCTS: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "one key head": (lambda w, q, k: sdpa(q, k, k), (Q, Q[:, :1] * 2)),
    "more samples of keys": (lambda w, q, k: sdpa(q, k, k), (Q, torch.cat([Q, -Q, Q * 2]))),
    "more samples of the mask": (_written_out, (Q, torch.linspace(-1, 1, 75).reshape(3, 1, 5, 5))),
    "grouped heads": (lambda w, q, k: sdpa(q, k, k, enable_gqa=True), (Q, Q[:, :1] * 2)),
    "a vector as weight": (lambda w, x: linear(x, w), (Q[0, 0],)),
    "a matrix by a vector": (lambda w, x: torch.mv(x, w), (Q[0, 0],)),
    "two vectors": (lambda w, x: torch.dot(x, w), (Q[0, 0, 0],)),
    "scores divided by zero": (lambda w, x: torch.softmax(x @ x.transpose(-1, -2) / 0.0, -1) @ x, (Q[0] + 2,)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_odd_products_are_bit_exact_and_near(name: str) -> None:
    """Breaks if batches are not broadcast, or a vector is taken for a matrix."""
    function, inputs = PRODUCTS[name]
    program = llmchip.compile(Of(function).eval(), inputs)
    assert program.verify(*inputs).bit_exact
    got, want = program(*inputs), function(V, *inputs)
    assert got.shape == want.shape and got.dtype is want.dtype
    torch.testing.assert_close(got, want, rtol=0.1, atol=0.05, equal_nan=True)


def _empty(w: Tensor, z: Tensor, o: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    mixed = torch.cat([torch.zeros(0), x]), torch.cat([z, x[None, :3]]), torch.cat([x > 0, x])
    return (
        z.sum(0),
        z * 2,
        torch.softmax(z, -1),
        o.sum(-1),
        torch.softmax(o, -1),
        o.mean(-1),
        o @ z,
        torch.roll(z, 1, 0),
        z > 1,
        *mixed,
    )


def test_what_is_empty_is_a_constant() -> None:
    """Breaks if a tensor without elements reaches the passes that think of rows and blocks, or an empty part of cat
    does."""
    inputs = torch.zeros(0, 3), torch.ones(2, 0), torch.linspace(-1, 1, 5)
    program = llmchip.compile(Of(_empty).eval(), inputs)
    for got, want in zip(program(*inputs), _empty(V, *inputs), strict=True):
        assert got.dtype is want.dtype and got.shape == want.shape
        torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_products_of_depth_zero_in_every_type(dtype: torch.dtype) -> None:
    """Breaks if the translation check takes a scale that is a number of the program text, stored in half precision,
    for another one than the graph's."""

    def work(w: Tensor, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        return torch.linalg.multi_dot([a, b, c]), (a @ b) @ c + 1, torch.nn.functional.linear(a @ b, c.T)

    inputs = tuple(torch.ones(*shape, dtype=dtype) for shape in ((5, 4), (4, 0), (0, 2)))
    for got, want in zip(llmchip.compile(Of(work).eval(), inputs)(*inputs), work(V, *inputs), strict=True):
        assert got.dtype is want.dtype and torch.equal(got, want)


@pytest.mark.parametrize("function", [lambda w, x: x.float() + 1, lambda w, x: x + x, lambda w, x: (x * 3).int()])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
def test_types_that_the_chip_does_not_have_are_refused(dtype: torch.dtype, function: Callable[..., Any]) -> None:
    """Breaks if a type gets as far as the tile passes, or is carried in another one."""
    with pytest.raises(llmchip.UnsupportedError, match=rf"\b{str(dtype).removeprefix('torch.')}\b"):
        llmchip.compile(Of(function).eval(), (torch.tensor([1, 200]).to(dtype),))


@pytest.mark.parametrize(("count", "low"), [(1, -(1 << 31)), (7, -(1 << 31)), (300, 1 << 28), (8192, -(1 << 31))])
def test_a_sum_of_integers_that_is_read_as_floats_rounds_once(count: int, low: int) -> None:
    """Breaks when integers beyond 2**24 are summed as floats (another number, without a word)."""
    x = torch.randint(low, 1 << 31, (6, count), generator=torch.Generator().manual_seed(count))
    x[0], x[1] = (1 << 31) - 1, -(1 << 31)
    model = Of(lambda w, x: (x.sum(-1).float(), x.int().sum(-1, keepdim=True).clamp(min=0.5)))
    program = llmchip.compile(model.eval(), (x,))
    for got, want in zip(program(x), model(x), strict=True):
        assert got.dtype is want.dtype and torch.equal(got, want)


def test_longer_sums_of_large_integers_are_refused() -> None:
    """Breaks when a limit of exactness is passed in silence."""
    with pytest.raises(llmchip.UnsupportedError, match="sum"):
        llmchip.compile(Of(lambda w, x: x.sum(-1).float()).eval(), (torch.zeros(2, 9000, dtype=torch.int64),))


def test_a_result_without_elements_has_eagers_strides() -> None:
    """Breaks when the strides of an empty array (all 0) are taken over."""
    torch._dynamo.reset()
    with torch.no_grad():
        got = torch.compile(lambda x: x.clamp(min=1.0), backend="llmchip")(torch.zeros(0, 10, 3))
    assert got.stride() == (30, 3, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.int8])
def test_a_number_may_come_first(dtype: torch.dtype) -> None:
    """Breaks if the first operand of what does not commute is taken for a tensor: torch.sub(5, x) failed inside."""

    def work(w: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        halves = dtype.is_floating_point and dtype is not torch.float32  # for them PyTorch rounds alpha or not
        scaled = x if halves else torch.sub(5, x, alpha=2)
        return torch.sub(5, x), torch.sub(2.5, x), torch.div(5, x), torch.div(True, x), scaled

    x = (torch.arange(12).reshape(3, 4) - 5).to(dtype)
    for got, want in zip(llmchip.compile(Of(work).eval(), (x,))(x), work(None, x), strict=True):
        assert got.dtype is want.dtype and torch.equal(got.view(torch.uint8), want.view(torch.uint8))
