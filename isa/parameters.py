"""Parameters: the fields of nested msgspec records as one flat table, with units, ranges and meanings; read from text
and written as people do.

    {"mxu.rows": Parameter("mxu.rows", int, 128, "", 1, 65536, "array rows (k)"), "sram.bytes": ...}
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from msgspec import Meta, Struct

from isa.units import parse, written

_UNIT = "unit"  # of a Meta's extra
_DIGITS = 40  # in a number of anyone who means it


def quantity(unit: str, low: int, high: float, description: str) -> Meta:
    """Bounds, unit and meaning of a parameter."""
    return Meta(ge=low, le=high, description=description, extra={_UNIT: unit})


@dataclass(frozen=True, slots=True)
class Parameter:
    """`unit` is "" for counts; `low` and `high` are the least and the most, None of what is no number."""

    key: str  # with its table: "mxu.rows"
    kind: type
    default: object
    unit: str
    low: float | None
    high: float | None
    meaning: str

    def value(self, given: object) -> object:
        """What a user means: text is read, with its unit; other values are as they are. Raises ValueError, with the
        limit that is broken."""
        value = self._read(given) if isinstance(given, str) and self.kind is not str else given
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if self.kind is int and isinstance(value, float) and not value.is_integer():
            raise ValueError(f"{self.text(value)} is no whole number")
        if number and self.low is not None and self.high is not None and not self.low <= value <= self.high:  # type: ignore[operator]
            raise ValueError(f"{self.text(value)} is not within {self.range}")
        return value

    def _read(self, given: str) -> object:
        if self.kind is bool:
            if given not in ("true", "false"):
                raise ValueError(f"'{given}' is neither true nor false")
            return given == "true"
        number = parse(given, self.unit)
        if abs(number.adjusted()) > _DIGITS:  # nothing is made of it, not even a message
            raise ValueError(f"'{given.strip()[:_DIGITS]}' is not within {self.range}")
        return int(number) if number == number.to_integral_value() else float(number)

    def text(self, value: Any) -> str:
        """A value as people write it."""
        if isinstance(value, bool) or self.kind is str:
            return str(value).lower() if isinstance(value, bool) else str(value)
        return written(value, self.unit)

    @property
    def range(self) -> str:
        """What it may be."""
        if self.low is None or self.high is None:
            return "true or false" if self.kind is bool else "text"
        return f"{self.text(int(self.low))} to {self.text(int(self.high))}"


def parameters_of(record: Struct) -> dict[str, Parameter]:
    """Those of a record and of the records in it, with its values as defaults: scalars first, then table by table."""
    own = {name: getattr(record, name) for name in record.__struct_fields__}
    found = [_parameter(record, "", name) for name, value in own.items() if not isinstance(value, Struct)]
    for table, value in own.items():
        if isinstance(value, Struct):
            found += [_parameter(value, f"{table}.", name) for name in value.__struct_fields__]
    return {parameter.key: parameter for parameter in found}


def _parameter(owner: Struct, prefix: str, name: str) -> Parameter:
    meta, default = meta_of(type(owner), name), getattr(owner, name)
    unit = (meta.extra or {}).get(_UNIT, "")
    return Parameter(f"{prefix}{name}", type(default), default, unit, meta.ge, meta.le, meta.description or "")


def meta_of(owner: type[Struct], name: str) -> Meta:
    """What a field is annotated with."""
    hints = get_args(get_type_hints(owner, include_extras=True)[name])
    return next((meta for meta in hints if isinstance(meta, Meta)), Meta())


def flat(tables: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Values of nested dictionaries, by keys with their tables."""
    for name, value in tables.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", own) for key, own in value.items())
        else:
            yield name, value
