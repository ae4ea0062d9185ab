"""The design space: axes with the values that they take, and the chips at its points.

mxu.rows=32,64,128        sram.bytes=1MiB..8MiB (doubled from the first to the last)
mxu.rows+mxu.cols=64,128  (both have the same value)        chip=edge,server
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from isa.chip import Chip, changed, load_chip, parameter
from isa.errors import ChipError
from isa.parameters import Parameter

CHIP = "chip"  # the axis of whole chips, to which the others are applied
MOST_POINTS = 1_000_000


@dataclass(frozen=True)
class Axis:
    """`key` names the parameters, joined by +; `values` are as people write them."""

    key: str
    values: tuple[str, ...]

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(self.key.split("+"))


Place = Mapping[str, str]  # a point: the value of each axis


def axis(key: str, given: object) -> Axis:
    """An axis from text (`64,128`, `1MiB..8MiB`), one value or a sequence of values. Raises ChipError."""
    if key == CHIP:
        if any(isinstance(item, Chip) for item in given) if isinstance(given, Sequence) else isinstance(given, Chip):
            raise ChipError("chip: an axis is made of names and files", "set", "one Chip of your own is given as chip=")
        return Axis(key, _distinct(key, _texts(key, given)))
    known = [parameter(name, "--set") for name in key.split("+")]
    texts: list[str] = []
    for text in _texts(key, given):
        first, dots, last = text.partition("..")
        texts += _doubled(key, first, last) if dots else [text]
    values = []
    for text in texts:
        try:
            read = [one.value(text) for one in known]
        except ValueError as error:
            raise ChipError(f"{key}: {error}", "--set", f"{known[0].key}: {known[0].meaning}") from error
        plain = known[0].text(read[0])  # unless another parameter reads that otherwise, as it is of another unit
        values.append(plain if _reads(known, plain) == read else text)
    return Axis(key, _distinct(key, values))


def _reads(known: Sequence[Parameter], text: str) -> list[object] | None:
    try:
        return [one.value(text) for one in known]
    except ValueError:
        return None


def check_apart(axes: Sequence[Axis]) -> None:
    """Raise ChipError for a parameter that two axes, or one axis twice, give a value."""
    seen: set[str] = set()
    for name in (name for one in axes for name in one.parameters):
        if name in seen:
            raise ChipError(f"{name} is given a value twice", "--set", "name each parameter in one axis, once")
        seen.add(name)


def _texts(key: str, given: object) -> list[str]:
    items = given.split(",") if isinstance(given, str) else given if isinstance(given, Sequence) else [given]
    texts = [str(item).lower() if isinstance(item, bool) else str(item).strip() for item in items]
    if not texts or "" in texts:
        raise ChipError(f"{key}: a value is missing", "--set", f"write --set {key}=VALUE,VALUE")
    return texts


def _distinct(key: str, values: Sequence[str]) -> tuple[str, ...]:
    if len(set(values)) < len(values):
        raise ChipError(f"{key}: a value is there twice", "--set", f"the values are {', '.join(values)}")
    return tuple(values)


def _doubled(key: str, first: str, last: str) -> Iterator[str]:
    """From the first value to the last, each twice the one before."""
    known = parameter(key.split("+")[0], "--set")
    try:
        low, high = known.value(first), known.value(last)
    except ValueError as error:
        raise ChipError(f"{key}: {error}", "--set", "a range is FIRST..LAST") from error
    if (
        not (isinstance(low, int | float) and isinstance(high, int | float))
        or known.kind is bool
        or not 0 < low <= high
    ):
        raise ChipError(
            f"{key}: {first}..{last} is no range", "--set", "a range doubles from a number above 0 to its end"
        )
    if low < high < 2 * low:
        raise ChipError(
            f"{key}: {first}..{last} is {first} alone", "--set", f"a range doubles; for both write {first},{last}"
        )
    while low <= high:
        yield known.text(low)
        low *= 2


def grid(axes: Sequence[Axis]) -> list[Place]:
    """All points, the last axis fastest. Raises ChipError for more than anyone would wait for."""
    count = prod(len(one.values) for one in axes)
    if count > MOST_POINTS:
        raise ChipError(f"the grid has {count:,} points", "--set", f"{MOST_POINTS:,} are the most; --search tries some")
    keys = [one.key for one in axes]
    return [dict(zip(keys, values, strict=True)) for values in product(*(one.values for one in axes))]


def chip_at(base: Chip, place: Place) -> Chip:
    """The chip at a point. Raises ChipError for one that cannot be."""
    chip = load_chip(place[CHIP]) if CHIP in place else base
    changes = {name: value for key, value in place.items() if key != CHIP for name in key.split("+")}
    return changed(chip, changes, "--set")
