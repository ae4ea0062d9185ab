"""What windows see, and sums by channel: worked maps, then plain Python over random shapes."""

from itertools import product
from typing import Any

import numerics_scalars as scalars
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numerics_helpers import bits
from torch import Tensor

from compiler.reference.windows import Window, depthwise, im2col, in_order, windows

Over = tuple[list[int], list[int], list[int], list[int]]  # stride, dilation, padding, places


@st.composite
def maps(draw: st.DrawFn) -> tuple[Tensor, tuple[int, ...], Over]:
    """A map with the channels last, the taps of a window, and how windows lie on it: also beside it."""
    rank = draw(st.integers(1, 2))

    def each(low: int, high: int) -> list[int]:
        return [draw(st.integers(low, high)) for _ in range(rank)]

    taps, over = tuple(each(1, 3)), (each(1, 3), each(1, 3), each(-1, 4), each(1, 5))
    sizes = draw(st.integers(1, 2)), *each(1, 6), draw(st.integers(1, 3))
    x = torch.randn(sizes, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    return x, taps, over


def seen(x: Tensor, over: Over, place: tuple[int, ...], tap: tuple[int, ...], channel: int) -> float | None:
    """The element that a place of the first sample has at a tap; None outside of the map."""
    stride, dilation, padding, _ = over
    at = [p * s + t * d - b for p, s, t, d, b in zip(place, stride, tap, dilation, padding, strict=True)]
    if not all(0 <= i < n for i, n in zip(at, x.shape[1:-1], strict=True)):
        return None
    return float(x[(0, *at, channel)])


@settings(max_examples=60)
@given(maps())
def test_columns_of_windows(case: tuple[Tensor, tuple[int, ...], Over]) -> None:
    """Breaks when a tap is another element, in another column, or what lies outside is not zero."""
    x, taps, over = case
    found = im2col(x, taps, *over)
    columns = [(tap, channel) for tap in product(*map(range, taps)) for channel in range(x.shape[-1])]
    assert found.shape == (x.shape[0], *over[3], len(columns))
    for place in product(*map(range, over[3])):
        wanted = [seen(x, over, place, tap, channel) or 0.0 for tap, channel in columns]
        assert found[(0, *place)].tolist() == wanted


@settings(max_examples=60)
@given(maps(), st.booleans())
def test_sums_by_channel(case: tuple[Tensor, tuple[int, ...], Over], biased: bool) -> None:
    """Breaks when sums have another order, or a tap outside of the map takes part."""
    x, taps, over = case
    weight = torch.randn(*taps, x.shape[-1], generator=torch.Generator().manual_seed(5))
    bias = torch.arange(float(x.shape[-1])) / 3 if biased else None
    found, order = depthwise(x, weight, bias, *over), _documented_order(x, taps, over)
    for place, channel in product(product(*map(range, over[3])), range(x.shape[-1])):
        total = 0.0 if bias is None else float(bias[channel])
        for tap in order:
            if (element := seen(x, over, place, tap, channel)) is not None:
                total = scalars.add(total, scalars.mul(element, float(weight[(*tap, channel)])))
        assert bits(found[(0, *place, channel)].reshape(1)) == [scalars.to_bits(total)]


def _documented_order(x: Tensor, taps: tuple[int, ...], over: Over) -> list[tuple[int, ...]]:
    every = list(product(*map(range, taps)))
    places = list(product(*map(range, over[3])))
    whole = [tap for tap in every if all(seen(x, over, place, tap, 0) is not None for place in places)][:1]
    return [tap for tap in every if tap not in whole] + whole


@pytest.mark.parametrize(
    ("x", "weight", "padding", "wanted"),
    [
        ([1.0, 2.0, 3.0], [1.0, 10.0, 100.0], 1, [210.0, 321.0, 32.0]),
        ([2.0**24, 1.0, 1.0], [1.0, 1.0, 1.0], 0, [2.0**24 + 2]),  # the first tap, which all places have, is last
        ([1.0, 1.0], [float("inf"), 1.0, 1.0], 1, [2.0, float("inf")]),  # no 0 * inf at the border
        ([-0.0], [1.0], 0, [0.0]),  # sums start at +0
    ],
)
def test_worked_sums(x: list[float], weight: list[float], padding: int, wanted: list[float]) -> None:
    """The rows of docs/numerics.md."""
    found = depthwise(tensor_of(x), tensor_of(weight)[0], None, [1], [1], [padding], [len(wanted)])
    assert bits(found.flatten()) == [scalars.to_bits(value) for value in wanted]


def tensor_of(values: list[float]) -> Tensor:
    """[1, n, 1]"""
    return torch.tensor(values).reshape(1, -1, 1)


@given(*[st.integers(low, high) for low, high in ((1, 9), (1, 4), (1, 4), (1, 3), (-2, 5), (1, 9))])
def test_places_inside(size: int, taps: int, stride: int, dilation: int, padding: int, places: int) -> None:
    """Breaks when a place at either end is counted in, or left out."""
    window = Window(size, taps, stride, dilation, padding, places)
    for tap in range(taps):
        wanted = [p for p in range(places) if 0 <= p * stride + tap * dilation - padding < size]
        assert list(range(*window.inside(tap))) == wanted


def test_what_all_places_have_comes_last() -> None:
    """Breaks when the step that completes all sums is another than the page says."""
    of: Any = windows([4, 4], [2, 3], [1, 1], [1, 1], [0, 1], [3, 4])
    assert in_order(of) == [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2), (0, 1)]
