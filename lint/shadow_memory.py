"""Shadow memories: what is known of each byte, one cell per granule of all the addresses in use.

The granule is the greatest common divisor of all addresses and run lengths, so that nothing is lost; cells exist up to
the last byte touched.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isa.architecture import REGIONS, FilledBy, Region, Space
from isa.image.image import Image
from isa.views import View
from lint.check import Touch, capacity

Memory = tuple[Space, Region]
Run = tuple[int, int, int, int, int, int]  # first byte, planes, plane stride, rows, row stride, bytes per row
Dims = tuple[tuple[int, int], ...]  # count and stride in bytes
MAX_BYTES = 1 << 29  # of all the shadows of a program


class TooLarge(Exception):
    """The program touches more memory than shadows are made for."""


class Budget:
    """Counts the bytes of all shadows. Raises TooLarge."""

    def __init__(self) -> None:
        self.left = MAX_BYTES

    def take(self, count: int) -> None:
        """Count bytes of shadows. Raises TooLarge when they are more than are left."""
        self.left -= count
        if self.left < 0:
            raise TooLarge(f"its shadow memories would take more than {MAX_BYTES >> 20} MiB")


def ready(image: Image, memory: Memory) -> int:
    """Bytes, from the first, that are defined before the launch."""
    space, region = memory
    if space is not Space.DRAM:
        return 0
    rule = REGIONS[region]
    return image.size(region) if rule.kept or rule.filled_by is FilledBy.HOST else len(image.data(region))


def shadow_of(image: Image, memory: Memory, grain: int, end: int, budget: Budget) -> "Shadow":
    """The shadow of a memory of which `end` bytes are in use."""
    initialised = ready(image, memory)
    grain = math.gcd(grain, initialised) or 1
    return Shadow(grain, -(-min(end, capacity(image, *memory)) // grain), initialised, budget)


@dataclass(frozen=True, slots=True)
class Block:
    """Runs of `width` bytes, the first at byte `first`, repeated in any number of dimensions."""

    first: int
    dims: Dims
    width: int

    @property
    def size(self) -> int:
        return self.width * math.prod(count for count, _ in self.dims)


class Shadow:
    """One memory: whether each cell is defined, and per engine the last instruction that wrote and read it."""

    def __init__(self, grain: int, cells: int, initialised: int, budget: Budget | None = None) -> None:
        self.grain, self.cells, self.budget = grain, cells, budget or Budget()
        self.budget.take(cells)
        self.defined = np.zeros(cells, np.bool_)
        self.defined[: initialised // grain] = True
        self.last: dict[tuple[str, int], NDArray[np.int32]] = {}  # (writes or reads, engine); "may …": in some launch

    def array(self, what: str, engine: int) -> NDArray[np.int32]:
        """The numbers of the last instructions of an engine that wrote or read each cell."""
        key = what, engine
        if key not in self.last:
            self.budget.take(4 * self.cells)
            self.last[key] = np.zeros(self.cells, np.int32)
        return self.last[key]

    def part(self, array: NDArray[Any], block: "Block") -> NDArray[Any]:
        """The cells of a block, as a view of `array`."""
        item = array.itemsize
        shape = (*(count for count, _ in block.dims), block.width // self.grain)
        strides = (*(stride // self.grain * item for _, stride in block.dims), item)
        return np.ndarray(shape, array.dtype, array, block.first // self.grain * item, strides)

    def latest(self, what: str, engine: int, block: "Block") -> int:
        """Number of the last instruction of an engine that touched the block."""
        array = self.last.get((what, engine))
        return 0 if array is None else int(self.part(array, block).max())


def memory_of(view: View) -> Memory:
    return view.space, view.region if view.space is Space.DRAM else Region.WEIGHTS


def blocks(touch: Touch) -> Iterator[Block]:
    """The bytes of an operand."""
    for first, planes, plane_stride, rows, row_stride, width in runs(touch):
        yield Block(first, ((planes, plane_stride), (rows, row_stride)), width)


def runs(touch: Touch) -> Iterator[Run]:
    """The bytes of an operand as strided runs: one, except for i4 rows that do not begin on a byte."""
    view, (planes, rows, cols) = touch.view, touch.extents
    bits = view.dtype.bits
    width = cols if view.cs else 1
    if (view.rs * bits % 8 and rows > 1) or (view.ps * bits % 8 and planes > 1):
        for plane in range(planes if view.ps else 1):
            for row in range(rows if view.rs else 1):
                start = (plane * view.ps + row * view.rs) * bits
                yield view.base + start // 8, 1, 0, 1, 0, -(-(start + width * bits) // 8) - start // 8
        return
    planes, rows = planes if view.ps else 1, rows if view.rs else 1
    size, row_stride, plane_stride = -(-width * bits // 8), view.rs * bits // 8, view.ps * bits // 8
    if rows > 1 and row_stride == size:
        rows, size = 1, rows * size
    if rows == 1:
        row_stride = 0
        if planes > 1 and plane_stride == size:
            planes, size = 1, planes * size
    yield view.base, planes, plane_stride if planes > 1 else 0, rows, row_stride, size
