"""Memory layouts: a device's result, which is row-major, gets the strides that eager PyTorch would have given it."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

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
    return lambda tensor: torch.empty_strided(stored, wanted, dtype=tensor.dtype).copy_(tensor[first]).as_strided(extents, wanted)


def overlaps(size: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether two elements may lie in one place."""
    reach = 0
    for step, extent in sorted((abs(step), extent) for step, extent in zip(stride, size, strict=True) if extent > 1):
        if step <= reach:
            return True
        reach += step * (extent - 1)
    return False


def fills(size: Sequence[int], stride: Sequence[int], elements: int) -> bool:
    """Whether the elements are exactly the first `elements` of the memory, each once."""
    count = 1
    for extent in size:
        count *= extent
    return count == elements and not overlaps(size, stride) and (
        count == 0 or 1 + sum(step * (extent - 1) for step, extent in zip(stride, size, strict=True)) == count
    )
