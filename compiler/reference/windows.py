"""Windows over maps with the channels last, [B, places …, C]: which element a window sees, and sums by channel."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from torch import Tensor

Tap = tuple[int, ...]  # which element of a window, one number for each dimension
Ends = tuple[int, int]  # the first of some places, and the first behind them


@dataclass(frozen=True)
class Window:
    """How windows lie along one dimension of `size` elements: `places` of them, each of `taps` elements `dilation`
    apart, the next one `stride` further on; the first begins `padding` elements in front."""

    size: int
    taps: int
    stride: int
    dilation: int
    padding: int
    places: int

    def first(self, tap: int) -> int:
        """The element that the window of place 0 has at `tap`; outside of the map, maybe."""
        return tap * self.dilation - self.padding

    def inside(self, tap: int) -> Ends:
        """The places whose window has an element of the map at `tap`."""
        low = min(max(0, -(self.first(tap) // self.stride)), self.places)
        return low, max(low, min(self.places, (self.size - 1 - self.first(tap)) // self.stride + 1))


def windows(
    sizes: Sequence[int],
    taps: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    places: Sequence[int],
) -> list[Window]:
    """One for each dimension."""
    return [Window(*of) for of in zip(sizes, taps, stride, dilation, padding, places, strict=True)]


def in_order(along: Sequence[Window]) -> list[Tap]:
    """The taps in the order in which they are added: as they lie, but the first that all places have inside the map
    comes last, so that one step completes all sums."""
    taps = list(product(*(range(window.taps) for window in along)))
    whole = (
        tap for tap in taps if all(window.inside(t) == (0, window.places) for window, t in zip(along, tap, strict=True))
    )
    last = next(whole, None)
    return taps if last is None else [*(tap for tap in taps if tap != last), last]


def im2col(
    x: Tensor,
    taps: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    places: Sequence[int],
) -> Tensor:
    """[B, places …, taps * C]: all that a window sees, tap by tap; zero outside of the map."""
    along = windows(x.shape[1:-1], taps, stride, dilation, padding, places)
    seen = x.new_zeros((x.shape[0], *places, prod(taps), x.shape[-1]))
    for number, tap in enumerate(product(*map(range, taps))):
        ends = [window.inside(t) for window, t in zip(along, tap, strict=True)]
        if all(low < high for low, high in ends):
            there = (slice(None), *(slice(*end) for end in ends))
            seen[there][..., number, :] = x[(slice(None), *_elements(along, tap, ends))]
    return seen.reshape(x.shape[0], *places, prod(taps) * x.shape[-1])


def _elements(along: Sequence[Window], tap: Tap, ends: Sequence[Ends]) -> list[slice]:
    """Of each dimension, the elements that these places have at a tap."""
    found = []
    for window, t, (low, high) in zip(along, tap, ends, strict=True):
        first = low * window.stride + window.first(t)
        found.append(slice(first, first + (high - low - 1) * window.stride + 1, window.stride))
    return found


def depthwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    places: Sequence[int],
) -> Tensor:
    """Each channel by itself, float32: the bias, and then element times weight for each tap. What lies outside of the
    map takes no part."""
    along = windows(x.shape[1:-1], weight.shape[:-1], stride, dilation, padding, places)
    channels = x.shape[-1]
    start = torch.zeros(channels) if bias is None else bias.to(torch.float32)
    total = start.to(x.device).expand(x.shape[0], *places, channels).clone()
    for tap in in_order(along):
        ends = [window.inside(t) for window, t in zip(along, tap, strict=True)]
        if any(low == high for low, high in ends):
            continue
        seen = (slice(None), *_elements(along, tap, ends))
        there = (slice(None), *(slice(*end) for end in ends))
        total[there] = total[there] + x[seen].to(torch.float32) * weight[tap].to(torch.float32)
    return total
