"""Blocks of memory whose place and size the scalars of a launch decide: whether two are apart, and whether one is made
up of others, in all launches of a box.

    old keys [0, 64 p) in planes of 0x400      new keys [64 p, 64 p + 64), the same planes: apart for every p
    scores [0, p + 1) of each row              written [0, p) and [p, p + 1)

A block is runs of `width` bytes, repeated with constant strides. In a box in which they are affine, its numbers are
compared at the corners.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isa.fields import Field
from lint.check import Touch
from lint.piecewise import Box, Point, Unsteerable, Value, combine
from lint.shadow_memory import Block, runs
from lint.steering import CEILDIV, Steered

Corners = NDArray[np.int64]  # a number for each corner of a box
MOST_RUNS = 1 << 16  # of a block that are looked at one by one


@dataclass(frozen=True)
class Shape:
    """Runs of `width` bytes from `start` on, repeated: count and stride in bytes, the largest first. Where `present` is
    0 there is nothing."""

    start: Value
    dims: tuple[tuple[Value, int], ...]
    width: Value
    present: Value

    @cached_property
    def numbers(self) -> tuple[Value, ...]:
        return (self.start, self.width, self.present, *(count for count, _ in self.dims))

    @cached_property
    def scalars(self) -> frozenset[str]:
        return frozenset[str]().union(*(value.scalars for value in self.numbers))

    def hull(self, box: Box) -> tuple[int, int]:
        """All bytes that it may have in a box lie between."""
        low, high = self.start.range(box)
        return low, high + self.width.range(box)[1] + sum(
            (c.range(box)[1] - 1) * s for c, s in self.dims if c.range(box)[1]
        )


def steered_shape(steered: Steered, field: Field) -> Shape:
    """The bytes of an operand of an instruction. Raises Unsteerable."""
    view, start = steered.views[field.name]
    planes, rows, cols = steered.extents(field)
    bits = view.dtype.bits
    width = cols if view.cs else Value(1)
    size = combine(CEILDIV, width.times(bits), Value(8)) if bits < 8 else width.times(bits // 8)
    dims = [(count, stride) for count, stride in ((planes, view.ps), (rows, view.rs)) if stride and count != Value(1)]
    for _, stride in dims:
        if stride * bits % 8:
            name = min(frozenset[str]().union(*(value.scalars for value in steered.values)))
            raise Unsteerable("rows that do not begin on a byte depend on it", name)
    present = steered.extent if steered.name and steered.extent.least <= 0 else Value(1)
    return _shape(start, [(count, stride * bits // 8) for count, stride in dims], size, present)


def fixed_shapes(touch: Touch) -> Iterator[Shape]:
    """The bytes of an operand on which no scalar acts."""
    for first, planes, plane_stride, rows, row_stride, width in runs(touch):
        dims = [(Value(c), s) for c, s in ((planes, plane_stride), (rows, row_stride)) if c > 1]
        yield _shape(Value(first), dims, Value(width), Value(1))


def block_shape(block: Block) -> Shape:
    dims = [(Value(count), stride) for count, stride in block.dims if count > 1]
    return _shape(Value(block.first), dims, Value(block.width), Value(1))


def _shape(start: Value, dims: list[tuple[Value, int]], width: Value, present: Value) -> Shape:
    """With rows that follow each other as one, and planes that do as rows."""
    dims = sorted(dims, key=lambda dim: -dim[1])
    while dims and not width.parts and dims[-1][1] == width.constant:
        width = dims.pop()[0].times(width.constant)
    at = len(dims) - 1
    while at > 0:
        (outer, far), (inner, near) = dims[at - 1], dims[at]
        if not inner.parts and far == near * inner.constant:
            dims[at - 1 : at + 1] = [(outer.times(inner.constant), near)]
        at -= 1
    return Shape(start, tuple(dims), width, present)


def _at(value: Value, points: Sequence[Point]) -> Corners:
    if not value.parts:
        return np.full(len(points), value.constant, np.int64)
    return np.array([value.at(point) for point in points], np.int64)


class _Numbers(NamedTuple):
    """A shape at the corners of a box."""

    start: Corners
    dims: tuple[tuple[Corners, int], ...]
    width: Corners

    def reach(self, below: int) -> Corners:
        """From the first byte of a run to the end of all those closer together than `below`."""
        reach = self.width
        for count, stride in self.dims:
            if stride < below:
                reach = reach + np.maximum(count - 1, 0) * stride
        return reach


_FAR = 1 << 62


def _numbers(shape: Shape, points: Sequence[Point]) -> _Numbers:
    dims = tuple((_at(count, points), stride) for count, stride in shape.dims)
    return _Numbers(_at(shape.start, points), dims, _at(shape.width, points))


def ends_at(shape: Shape, points: Sequence[Point]) -> list[tuple[int, int]]:
    """First byte and one past the last byte, in each of these launches."""
    return [shape.hull({name: (x, x) for name, x in point.items()}) for point in points]


def is_absent(shape: Shape, points: Sequence[Point]) -> bool:
    return not _at(shape.present, points).any()


def are_apart(one: Shape, two: Shape, points: Sequence[Point]) -> bool:
    """Whether two blocks certainly share no byte in any launch of the box with these corners, in which they are
    affine."""
    if is_absent(one, points) or is_absent(two, points):
        return True
    a, b = _numbers(one, points), _numbers(two, points)
    if (a.start + a.reach(_FAR) <= b.start).all() or (b.start + b.reach(_FAR) <= a.start).all():
        return True
    strides = {stride for _, stride in (*a.dims, *b.dims)}
    for period in strides:
        if any(stride > period and stride % period for stride in strides):
            continue
        mine, theirs, distance = a.reach(period), b.reach(period), b.start - a.start
        turns = -((distance - mine) // period)  # so many periods on, `b` begins behind `a`
        most = int(turns.max())
        if (distance + (most - 1) * period + theirs <= 0).all():
            return True
    return False


def meet(one: Shape, two: Shape, point: Point) -> bool:
    """Whether two blocks share a byte in one launch. Raises ValueError if they have too many runs."""
    if is_absent(one, [point]) or is_absent(two, [point]):
        return False
    a, b = _starts(one, point), _starts(two, point)
    mine, theirs = one.width.at(point), two.width.at(point)
    after = np.searchsorted(a, b - mine, "right")  # the first run of `one` that ends behind the beginning
    found = after < len(a)
    return bool((a[after[found]] < b[found] + theirs).any())


def is_covered(read: Shape, written: Iterable[Shape], points: Sequence[Point]) -> bool:
    """Whether every byte of `read` is one of those written, in all launches of the box with these corners, in which all
    blocks are affine. Of one point it is exact.

    From the first byte of each run on: a run written that begins no later and ends no sooner carries on to its end.
    Raises ValueError if there are too many runs.
    """
    if is_absent(read, points):
        return True
    offsets = _offsets(read, points)
    if offsets is None:
        return False
    begins = offsets[:, None] + _at(read.start, points)[None, :]
    ends = begins + _at(read.width, points)[None, :]
    usable = []
    for shape in written:
        if (_at(shape.present, points) > 0).all():
            at = _offsets(shape, points, least=True)
            if at is not None:
                usable.append((_at(shape.start, points), at, _at(shape.width, points)))
    usable.sort(key=lambda item: int(item[0].min()))
    changed = True
    while changed and (begins < ends).any():
        changed = False
        for start, at, width in usable:
            number = np.searchsorted(at, (begins - start).min(1), "right") - 1
            until = at[np.maximum(number, 0)][:, None] + start[None, :] + width
            on = (number >= 0) & (until >= begins).all(1) & (until > begins).any(1)
            on &= (until <= ends).all(1) | (until >= ends).all(1)  # a block that has to do with this one
            if on.any():
                begins = np.where(on[:, None], until, begins)
                changed = True
    return bool((begins >= ends).all())


def _offsets(shape: Shape, points: Sequence[Point], least: bool = False) -> Corners | None:
    """Where the runs begin, from the first on: those of all launches, or with `least` those that every launch has.
    Raises ValueError."""
    counts = []
    for count, stride in shape.dims:
        numbers = _at(count, points)
        counts.append((int(numbers.min() if least else numbers.max()), stride))
    return _products(counts)


def _starts(shape: Shape, point: Point) -> Corners:
    return _products([(count.at(point), stride) for count, stride in shape.dims]) + shape.start.at(point)


def _products(counts: Sequence[tuple[int, int]]) -> Corners:
    found = np.zeros(1, np.int64)
    for count, stride in counts:
        if len(found) * count > MOST_RUNS:
            raise ValueError("too many rows")
        found = np.add.outer(found, np.arange(count, dtype=np.int64) * stride).ravel()
    return np.sort(found)
