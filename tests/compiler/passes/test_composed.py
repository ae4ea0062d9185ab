"""Operators that are made of others: PyTorch's own answers, by themselves and through the whole stack."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import Function
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import llmchip
from compiler.passes.composed import DECOMPOSITIONS

NAN, INF = float("nan"), float("inf")
FLOATS = torch.tensor(
    [0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, 0.3, -0.7, 1e-42, 8388607.5, -8388609.0, 1e30, NAN, INF, -INF, 0.125, -3.0]
)
BOX = torch.stack([FLOATS, FLOATS.flip(0), FLOATS.roll(5)])  # [3, 18]
WHOLE = torch.tensor([[5, -7, 1 << 24, (1 << 24) + 1, -(1 << 31), (1 << 31) - 1]], dtype=torch.int32)
PLACES = torch.tensor([[0, 2, 2], [1, 1, 0]])
SOURCE = torch.tensor([[-0.0, 2.5, -1.0], [NAN, 4.0, 0.25]])
SMALL = torch.tensor([[1.0, -0.0, 3.0], [0.5, NAN, -2.0], [7.0, 2.0, 1.0]])
MASK = torch.tensor([[True, False, True], [False, False, True], [True, True, False]])

CALLS: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "round": (torch.round, (BOX,)),
    "round_decimals": (lambda x: (torch.round(x, decimals=2), torch.round(x, decimals=-1)), (BOX,)),
    "floor": (torch.floor, (BOX,)),
    "ceil": (torch.ceil, (BOX,)),
    "trunc": (torch.trunc, (BOX,)),
    "bf16": (lambda x: (torch.round(x), torch.floor(x), torch.ceil(x), torch.trunc(x)), (BOX.bfloat16(),)),
    "integers": (lambda x: (torch.round(x), torch.floor(x), torch.ceil(x), torch.trunc(x), torch.sign(x)), (WHOLE,)),
    "div_trunc": (lambda x, y: torch.div(x, y, rounding_mode="trunc"), (BOX, BOX.flip(1))),
    "div_trunc_of_halves": (
        lambda x, y: [
            torch.div(given, by, rounding_mode="trunc")
            for given in (x, x.half())
            for by in (0.3, 3, y.to(given.dtype)[0], y.to(given.dtype)[:1], y.to(given.dtype)[0].float())
        ] + [torch.ops.aten.div.Scalar_mode(x, 0.3, rounding_mode="trunc")],
        (torch.arange(-60, 61).bfloat16() / 2, torch.tensor([0.3, 0.7])),
    ),
    "isnan": (torch.isnan, (BOX,)),
    "sign": (torch.sign, (BOX,)),
    "any": (lambda x: (x.any(), x.any(0), x.any((0, -1), True), x.any(()), (x != x).any(1)), (BOX,)),
    "extremes": (lambda x: (x.max(1), x.min(0), x.max(), x.min(), x.amax(1), x.amin((0, 1), True)), (WHOLE,)),
    "extremes_of_floats": (lambda x: (x.max(1), x.min(0, True)), (SMALL.nan_to_num(9.0),)),
    "places": (lambda x: (x.argmax(1), x.argmin(1, True), x.argmin()), (WHOLE,)),
    "places_of_floats": (lambda x: (x.argmin(0), x.argmin(1), x.argmin()), (BOX,)),
    "prod": (lambda x: (x.prod(1), x[:, :2].prod()), (torch.tensor([[2.0, -4.0, 0.5], [3.0, -0.0, INF]]),)),
    "fill": (lambda x: (torch.fill(x, 2), torch.fill(x, x[0, 0]), torch.full_like(x, 3), torch.full_like(x, 1, dtype=torch.int32)), (BOX,)),
    "slice_scatter": (
        lambda x, y: (torch.slice_scatter(x, y, 1, 3, 18, 5), torch.slice_scatter(x, y, 1, 2, 5)),
        (BOX, BOX[:, :3]),
    ),
    "scatter_of_other_types": (
        lambda x, y: (torch.slice_scatter(x, y, 1, 0, 3), torch.select_scatter(x, y[:, 0], 1, 1)),
        (BOX.bfloat16(), BOX[:, 3:6] / 3),
    ),
    "select_scatter": (lambda x, y: torch.select_scatter(x, y, 1, -2), (BOX, BOX[:, 0])),
    "scatter": (
        lambda x, i, y: (x.scatter(0, i[:, :1], y), x.scatter(1, i.argsort(1), y), x.scatter(1, i, 5.0), x.scatter(0, i, 2.0, reduce="add")),
        (SMALL, PLACES, SOURCE),
    ),
    "scatter_add": (lambda x, i, y: (x.scatter_add(0, i, y), x.scatter(1, i, y, reduce="multiply")), (SMALL, PLACES, SOURCE)),
    "scatter_reduce": (
        lambda x, i, y: tuple(
            x.scatter_reduce(0, i, y, kind, include_self=both)
            for kind in ("sum", "prod", "mean", "amax", "amin")
            for both in (True, False)
        ),
        (SMALL.nan_to_num(6.0), PLACES, SOURCE.nan_to_num(8.0)),
    ),
    "index_put": (
        lambda x, i, j, y: (x.index_put((i[0, :2],), y), x.index_put((j[0], i[1]), y[1]), x.index_put((i[0],), y[0], True)),
        (SMALL, PLACES, PLACES - 3, SOURCE),
    ),
    "masked_put": (lambda x, m, y: (x.index_put((m,), y[0, 0]), x.index_put((m[0],), y[0])), (SMALL, MASK, SOURCE)),
    "masked_put_of_integers": (lambda x, m: (x.index_put((m,), x[0, 0]), (x > 4).index_put((m,), x[0, 0] > 0)), (WHOLE[:, :3].expand(3, 3).contiguous(), MASK)),
    "index_add": (
        lambda x, i, y: (x.index_add(1, i, y[:, :3], alpha=2), x.index_copy(0, i[:2], y[:2]), x.half().index_add(0, i, y.half())),
        (SMALL, torch.tensor([2, 0, 1]), SMALL.nan_to_num(3.0).flip(0)),
    ),
    "masked_scatter": (lambda x, m, y: x.masked_scatter(m, y), (SMALL, MASK, SOURCE)),
    "clamp": (lambda x, y, z: (x.clamp(y, z), x.clamp(min=y), x.clamp(max=z), torch.clamp_min(x, y), torch.clamp_max(x, z)), (BOX, BOX[0], BOX[1])),
}  # fmt: skip


class Replaced(TorchDispatchMode):
    """Runs ours in place of PyTorch's, and notes which."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[Any] = set()

    def __torch_dispatch__(self, function: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        ours = DECOMPOSITIONS.get(function)
        found = ours(*args, **(kwargs or {})) if ours else NotImplemented
        if found is NotImplemented:
            return function(*args, **(kwargs or {}))
        self.seen.add(function)
        return found


def assert_same(found: Any, wanted: Any) -> None:
    """Equal bits but for the sign of a zero that is largest or smallest, which is the chip's own (docs/numerics.md)."""
    for got, want in zip(tree_leaves(found), tree_leaves(wanted), strict=True):
        assert got.dtype is want.dtype and got.shape == want.shape
        assert torch.equal(got.isnan(), want.isnan()) and torch.equal(got.nan_to_num(0.5), want.nan_to_num(0.5))


@pytest.mark.parametrize("name", CALLS)
def test_by_itself(name: str) -> None:
    """Breaks when ours gives another element than PyTorch's operator; or is not what runs."""
    function, args = CALLS[name]
    with Replaced() as mode:
        found = function(*args)
    assert mode.seen
    assert_same(found, function(*args))
    if name in ("round", "floor", "ceil", "trunc", "bf16", "scatter", "index_put"):
        pairs = zip(tree_leaves(found), tree_leaves(function(*args)), strict=True)
        assert all(torch.equal(got.signbit(), want.signbit()) for got, want in pairs if not got.isnan().any())


def test_every_one_is_tried() -> None:
    """Breaks when an operator is composed of which no test asks whether it is PyTorch's."""
    seen: set[Any] = set()
    for function, args in CALLS.values():
        with Replaced() as mode:
            function(*args)
        seen |= mode.seen
    left = {str(target) for target in DECOMPOSITIONS.keys() - seen}
    assert left <= ELSEWHERE


ELSEWHERE = {"aten.addmm.default", "aten.baddbmm.default", "aten.native_layer_norm.default", "aten.native_group_norm.default"} | {
    "aten.var.correction", "aten.std.correction",
}  # fmt: skip


@pytest.mark.wide
@pytest.mark.parametrize("start", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_on_the_chip(start: int) -> None:
    """Breaks when the chip computes another bit than PyTorch of the same graph, or what it gives is not eager's."""
    group = [name for name in CALLS if name not in ("integers",)][start::2]
    args = [arg for name in group for arg in CALLS[name][1]]

    def together(_m: Any, *given: Tensor) -> list[Any]:
        results, first = [], 0
        for name in group:
            function, own = CALLS[name]
            results.append(function(*given[first : first + len(own)]))
            first += len(own)
        return tree_leaves(results)

    program = llmchip.compile(Function(together).eval(), tuple(args))
    assert program.verify(*args).bit_exact
    assert_same(program(*args), together(None, *args))


@pytest.mark.parametrize(
    "function",
    [
        lambda _m, x, i: x.index_select(0, i),
        lambda _m, x, i: x.index_add(0, i, x[:2]),
        lambda _m, x, i: x.index_copy(0, i, x[:2]),
        lambda _m, x, i: x.gather(0, i[:, None].expand(2, 3)),
        lambda _m, x, i: x.scatter(0, i[:, None].expand(2, 3), x[:2]),
    ],
)
def test_places_below_zero_are_none(function: Callable[..., Any]) -> None:
    """Breaks when a place counts from the end where PyTorch refuses it."""
    x, places = torch.arange(9.0).reshape(3, 3), torch.tensor([0, 2])
    program = llmchip.compile(Function(function).eval(), (x, places))
    assert torch.equal(program(x, places), function(None, x, places))
    with pytest.raises((IndexError, RuntimeError)):
        function(None, x, places - 1)
    with pytest.raises(llmchip.Trap):
        program(x, places - 1)


def test_what_has_no_dimension() -> None:
    """Breaks when a dimension is counted modulo none; or more decimals than a float32 has end inside."""
    x = torch.tensor(2.5)
    program = llmchip.compile(Function(lambda _m, x: (x.flip(0), x * 2)).eval(), (x,))
    assert torch.equal(program(x)[0], x)
    with pytest.raises(llmchip.UnsupportedError, match="round"):
        llmchip.compile(Function(lambda _m, x: torch.round(x, decimals=39)).eval(), (x,))


def test_powers_of_halves() -> None:
    """Breaks when a square is rounded to the half type on the way."""
    x = torch.tensor([300.0, 0.004, -3.0, 0.0]).half()
    program = llmchip.compile(Function(lambda _m, x: x**-2).eval(), (x,))
    torch.testing.assert_close(program(x), x**-2, rtol=1e-3, atol=0)


def test_norms_with_their_statistics() -> None:
    """Breaks when a norm's mean or deviation is another row's, or a spread over several dimensions forgets one."""
    x = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))

    def norms(_m: Any, x: Tensor) -> tuple[Tensor, ...]:
        layer = torch.native_layer_norm(x, (4, 3), x[0], x[1], 1e-5)
        group = torch.native_group_norm(x, x[0, :, 0].contiguous(), x[1, :, 0].contiguous(), 2, 4, 3, 2, 1e-5)
        return (
            *layer,
            *group,
            x.var((0, 2)),
            x.std(unbiased=False),
            torch.addmm(x[0], x[1], x[0, :3], beta=0.5, alpha=2),
        )

    program = llmchip.compile(Function(norms).eval(), (x,))
    assert program.verify(x).bit_exact
    *found, product = program(x)
    *wanted, exact = norms(None, x)
    assert all(torch.allclose(*pair, rtol=1e-5, atol=1e-5) for pair in zip(found, wanted, strict=True))
    assert torch.allclose(product, exact, atol=0.1)  # of int8


def test_a_place_outside_is_told() -> None:
    """Breaks when what is scattered to a place that there is not is lost without a word."""
    program = llmchip.compile(Function(lambda _m, x, i, y: x.scatter(0, i, y)).eval(), (SMALL, PLACES, SOURCE))
    with pytest.raises(llmchip.Error):
        program(SMALL, PLACES + 1, SOURCE)
