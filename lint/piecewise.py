"""Numbers that follow from the scalars of a launch, for all values of a range at once.

    n = positions.0 in 0..63        min(max(n - 16, 0), 16)  =  0..16: 0 | 16..32: n - 16 | 32..63: 16

A value is a sum of functions of one scalar each, and each is affine in pieces. In a box in which no piece ends, a value
is affine; so what holds at its corners, of a comparison of two values, holds in all of it.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import NamedTuple

from isa.replay import combined
from isa.spec import SALU

Box = Mapping[str, tuple[int, int]]  # of each scalar the first and the last value
Point = Mapping[str, int]
POINTS = 1 << 10  # values of a scalar that are tried one by one where an operation is not affine
MOST_SCALARS, MOST_PIECES = 6, 1 << 12  # of what is divided at once
_INT32 = range(-(1 << 31), 1 << 31)


class Unsteerable(Exception):
    """The range of a scalar is to be divided, because what follows from it cannot be told for all values at once:
    between `cuts` it may be, values at which a part begins. Without cuts halves will do."""

    def __init__(self, what: str, scalar: str, cuts: Sequence[int] = ()) -> None:
        super().__init__(what)
        self.what, self.scalar, self.cuts = what, scalar, cuts


class TooMuch(Exception):
    """More pieces than are looked at."""


class Segment(NamedTuple):
    """From `first` to `last`: value + slope * (x - first)."""

    first: int
    last: int
    value: int
    slope: int

    def at(self, x: int) -> int:
        return self.value + self.slope * (x - self.first)

    def part(self, first: int, last: int) -> "Segment":
        return Segment(first, last, self.at(first), self.slope)


Segments = tuple[Segment, ...]


@dataclass(frozen=True)
class Value:
    """`constant`, and for each scalar that it depends on what is added."""

    constant: int = 0
    parts: tuple[tuple[str, Segments], ...] = ()

    @staticmethod
    def of(name: str, first: int, last: int) -> "Value":
        """The scalar itself, in its range."""
        return Value(0, ((name, (Segment(first, last, first, 1),)),)) if first < last else Value(first)

    @cached_property
    def scalars(self) -> frozenset[str]:
        return frozenset(name for name, _ in self.parts)

    @cached_property
    def least(self) -> int:
        """The least of all its values."""
        return self.range({name: (segments[0].first, segments[-1].last) for name, segments in self.parts})[0]

    def at(self, point: Point) -> int:
        return self.constant + sum(_find(segments, point[name]).at(point[name]) for name, segments in self.parts)

    def range(self, box: Box) -> tuple[int, int]:
        """The least and the largest value in a box."""
        low = high = self.constant
        for name, segments in self.parts:
            first, last = box[name]
            parts = [
                s.part(max(s.first, first), min(s.last, last)) for s in segments if s.first <= last and first <= s.last
            ]
            ends = [end for s in parts for end in (s.value, s.at(s.last))]
            low, high = low + min(ends), high + max(ends)
        return low, high

    def cuts(self, name: str) -> Iterator[int]:
        """Where pieces of what scalar `name` adds begin."""
        for scalar, segments in self.parts:
            if scalar == name:
                yield from (segment.first for segment in segments[1:])

    def zeros(self, name: str) -> Iterator[int]:
        """Where a value that is never negative, of scalar `name` alone, becomes or ceases to be 0."""
        for scalar, segments in self.parts if len(self.parts) == 1 else ():
            for s in segments if scalar == name else ():
                ends = self.constant + s.value, self.constant + s.at(s.last)
                if ends[0] != 0 == ends[1]:
                    yield s.last
                if ends[0] == 0 != ends[1]:
                    yield s.first + 1

    def plus(self, other: "Value") -> "Value":
        parts = dict(self.parts)
        for name, segments in other.parts:
            parts[name] = _added(parts[name], segments) if name in parts else segments
        return _value(self.constant + other.constant, parts)

    def times(self, factor: int) -> "Value":
        parts = {
            name: tuple(Segment(s.first, s.last, s.value * factor, s.slope * factor) for s in segments)
            for name, segments in self.parts
        }
        return _value(self.constant * factor, parts)


def combine(f: int, a: Value, b: Value) -> Value:
    """What `salu` makes of two values. Raises Unsteerable."""
    names = a.scalars | b.scalars
    if not names:
        return Value(combined(f, a.constant, b.constant))
    if len(names) == 1:
        (name,) = names
        (given,) = {(x[0].first, x[-1].last) for value in (a, b) for _, x in value.parts}
        found = [
            part
            for one, two in _joint(_whole(a, given), _whole(b, given))
            for part in _combined(f, one, two, name)
        ]  # fmt: skip
        return _value(0, {name: _merged(found)})
    result = {"mov": lambda: b, "add": lambda: a.plus(b), "sub": lambda: a.plus(b.times(-1))}.get(SALU[f])
    if result is not None:
        found_value = result()
        box = {name: (x[0].first, x[-1].last) for name, x in found_value.parts}
        if all(end in _INT32 for end in found_value.range(box)):
            return found_value
    raise Unsteerable(f"'{SALU[f]}' of {' and '.join(sorted(names))} is not followed", min(names))


def pieces(values: Iterable[Value], box: Box, present: Iterable[Value] = ()) -> list[Box]:
    """A box in parts in which the values are affine, and those that are `present` 0 or not. Raises TooMuch."""
    values, present = list(values), list(present)
    sides = []
    for name, (first, last) in box.items():
        cuts = {cut for value in (*values, *present) for cut in value.cuts(name)}
        cuts |= {cut for value in present for cut in value.zeros(name)}
        starts = sorted({first, *(cut for cut in cuts if first < cut <= last)})
        sides.append([(a, b - 1) for a, b in pairwise([*starts, last + 1])])
    if len(box) > MOST_SCALARS or math.prod(map(len, sides)) > MOST_PIECES:
        raise TooMuch
    parts: list[Box] = [dict(zip(box, side, strict=True)) for side in product(*sides)]
    for value in present:
        parts = list(_uniform(parts, value)) if len(value.parts) > 1 else parts
    return parts


def _uniform(parts: Iterable[Box], value: Value) -> Iterator[Box]:
    """Parts in halves until a value that is never negative is 0 in all of a part or nowhere. Raises TooMuch."""
    left, count = list(parts), 0
    while left:
        part = left.pop()
        low, high = value.range(part)
        if low <= 0 < high:
            left += halves(part)
        else:
            count += 1
            if count > MOST_PIECES:
                raise TooMuch
            yield part


def corners_of(box: Box) -> list[Point]:
    """The corners of a box, each once."""
    return [dict(zip(box, point, strict=True)) for point in product(*(sorted({*ends}) for ends in box.values()))]


def is_point(box: Box) -> bool:
    return all(first == last for first, last in box.values())


def halves(box: Box) -> tuple[Box, Box]:
    """A box cut where it is longest."""
    name = max(box, key=lambda n: box[n][1] - box[n][0])
    first, last = box[name]
    middle = (first + last) // 2
    return {**box, name: (first, middle)}, {**box, name: (middle + 1, last)}


def divided(box: Box, problem: Unsteerable) -> list[Box]:
    """A box as the problem wants it, the least values first; in halves where it does not say."""
    first, last = box[problem.scalar]
    starts = [first, *(cut for cut in problem.cuts if first < cut <= last)]
    if len(starts) == 1:
        starts.append((first + last) // 2 + 1)
    return [{**box, problem.scalar: (a, b - 1)} for a, b in pairwise([*starts, last + 1])]


def part_of(box: Box, scalars: Collection[str]) -> Box:
    return {name: ends for name, ends in box.items() if name in scalars}


def shown(point: Point) -> str:
    """For messages."""
    return ", ".join(f"{name} = {value}" for name, value in sorted(point.items()))


def shown_box(box: Box) -> str:
    return ", ".join(f"{name} = {a}" if a == b else f"{name} = {a} to {b}" for name, (a, b) in sorted(box.items()))


def _value(constant: int, parts: Mapping[str, Segments]) -> Value:
    kept = []
    for name, segments in sorted(parts.items()):
        if len(segments) == 1 and not segments[0].slope:
            constant += segments[0].value
        else:
            kept.append((name, segments))
    return Value(constant, tuple(kept))


def _find(segments: Segments, x: int) -> Segment:
    return next(segment for segment in segments if segment.first <= x <= segment.last)


def _whole(value: Value, given: tuple[int, int]) -> Segments:
    """A value of one scalar at most as pieces of its range."""
    if not value.parts:
        return (Segment(*given, value.constant, 0),)
    return tuple(s._replace(value=s.value + value.constant) for s in value.parts[0][1])


def _joint(a: Segments, b: Segments) -> Iterator[tuple[Segment, Segment]]:
    for one in a:
        for two in b:
            first, last = max(one.first, two.first), min(one.last, two.last)
            if first <= last:
                yield one.part(first, last), two.part(first, last)


def _added(a: Segments, b: Segments) -> Segments:
    return _merged([Segment(x.first, x.last, x.value + y.value, x.slope + y.slope) for x, y in _joint(a, b)])


def _combined(f: int, a: Segment, b: Segment, name: str) -> Iterator[Segment]:
    """An operation on two pieces over the same values: affine again, or two such parts, or value by value."""
    first, last, what = a.first, a.last, SALU[f]
    if what in ("min", "max"):
        crossing = _crossing(a, b)
        for low, high in ((first, crossing), (crossing + 1, last)):
            if low <= high:
                lower = a.at(low) + a.at(high) <= b.at(low) + b.at(high)
                yield (a if lower == (what == "min") else b).part(low, high)
        return
    slopes = {"mov": b.slope, "add": a.slope + b.slope, "sub": a.slope - b.slope}
    if not (a.slope and b.slope):
        slopes["mul"] = a.slope * b.value + a.value * b.slope
    if not b.slope:
        slopes["shl"] = a.slope << (b.value & 31)
    if what in slopes and _does_not_wrap(what, a, b):
        yield Segment(first, last, combined(f, a.value, b.value), slopes[what])
        return
    if last - first >= POINTS:
        raise Unsteerable(f"'{what}' is not followed over so many values", name)
    for x in range(first, last + 1):
        yield Segment(x, x, combined(f, a.at(x), b.at(x)), 0)


def _does_not_wrap(what: str, a: Segment, b: Segment) -> bool:
    """Whether the result at both ends fits without wrapping, and so between."""
    for x in (a.first, a.last):
        one, two = a.at(x), b.at(x)
        exact = {"mov": two, "add": one + two, "sub": one - two, "mul": one * two}.get(what, one << (two & 31))
        if exact not in _INT32:
            return False
    return True


def _crossing(a: Segment, b: Segment) -> int:
    """The last value up to which `a` and `b` keep their order."""
    start, slope = a.value - b.value, a.slope - b.slope
    if start * slope >= 0:
        return a.last
    return min(a.first + abs(start) // abs(slope), a.last)


def _merged(segments: Iterable[Segment]) -> Segments:
    """With neighbours that are one line as one. A single value joins whatever line it is on."""
    found: list[Segment] = []
    for segment in segments:
        before = found[-1] if found else None
        if before is not None:
            rise = segment.value - before.at(before.last)
            alike = before.slope if before.first < before.last else rise
            own = segment.slope if segment.first < segment.last else rise
            if alike == own == rise:
                found[-1] = Segment(before.first, segment.last, before.value, rise)
                continue
        found.append(segment)
    return tuple(found)
