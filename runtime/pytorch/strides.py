"""Memory layouts: a device's result, which is row-major, gets the strides that eager PyTorch would have given it; and
who shares memory."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from compiler.frontend.aliases import overlaps

Lay = Callable[[Tensor], Tensor]


def row_major(size: Sequence[int]) -> tuple[int, ...]:
    """The strides of a contiguous tensor."""
    strides, step = [], 1
    for extent in reversed(size):
        strides.append(step)
        step *= max(extent, 1)
    return tuple(reversed(strides))


def laying(size: Sequence[int], stride: Sequence[int]) -> Lay | None:
    """What makes a row-major tensor of this size have these strides: None if it has them.

    Elements that overlap are stored once, so they must be equal: they are views of one memory.
    """
    wanted, own = tuple(stride), row_major(size)
    if wanted == own:
        return None
    extents = tuple(size)
    if 0 in extents or all(a == b for a, b, extent in zip(wanted, own, extents, strict=True) if extent > 1):
        return lambda tensor: tensor.as_strided(extents, wanted)
    stored = tuple(1 if step == 0 else extent for extent, step in zip(extents, wanted, strict=True))
    first = tuple(slice(0, extent) for extent in stored)
    return lambda tensor: (
        torch.empty_strided(stored, wanted, dtype=tensor.dtype).copy_(tensor[first]).as_strided(extents, wanted)
    )


def fills(size: Sequence[int], stride: Sequence[int], elements: int) -> bool:
    """Whether the elements are exactly the first `elements` of the memory, each once."""
    count = 1
    for extent in size:
        count *= extent
    return (
        count == elements
        and not overlaps(size, stride)
        and (count == 0 or 1 + sum(step * (extent - 1) for step, extent in zip(stride, size, strict=True)) == count)
    )


def span(tensor: Tensor) -> tuple[int, int]:
    """The addresses that a tensor's elements lie between: one memory may be of several storages (numpy's)."""
    if not tensor.numel():
        return 0, 0
    last = sum(step * (extent - 1) for step, extent in zip(tensor.stride(), tensor.shape, strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def meet(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors whose spans overlap may share an element: certain if they have the same strides, as slices of
    one tensor have."""
    distance, rest = divmod(other.data_ptr() - one.data_ptr(), one.element_size())
    if rest or one.element_size() != other.element_size() or one.stride() != other.stride():
        return True
    return _reached(distance, sorted(zip(one.stride(), one.shape, other.shape, strict=True), reverse=True))


def _reached(distance: int, dimensions: Sequence[tuple[int, int, int]]) -> bool:
    """Whether an element of one tensor lies `distance` further than one of another. `dimensions`: stride, both extents,
    the longest first."""
    if not dimensions:
        return distance == 0
    (step, own, others), *inner = dimensions
    if step == 0:
        return _reached(distance, inner)
    forth, back = (sum(dimension[0] * (dimension[side] - 1) for dimension in inner) for side in (1, 2))
    least, most = max(1 - others, -((forth - distance) // step)), min(own - 1, (distance + back) // step)
    return any(_reached(distance - steps * step, inner) for steps in range(least, most + 1))
