"""Initial data in assembly text: numbers as the bytes of a tensor."""

import struct
from collections.abc import Callable, Mapping
from typing import Any

from isa.architecture import USER_TYPES, UserType
from isa.asm.text import TextError

_MOST_FILLED = 1 << 26  # bytes that one directive may fill


def contents(source: Mapping[str, Any], dtype: str, count: int, read: Callable[[str], bytes]) -> bytes:
    """Initial data from exactly one of values=[...], fill=x, file="...". Raises TextError for none or several of them,
    too many elements to fill, and a value that is no `dtype`."""
    if len(source) != 1 or not set(source) <= {"values", "file", "fill"}:
        raise TextError(
            'the data are given by one of values=[...], fill=x and file="..."',
            "",
            f"this has {', '.join(source) or 'none'}",
        )
    if "file" in source:
        return read(str(source["file"]))
    kind = USER_TYPES[dtype]
    size = kind.storage.bits // 8
    if "fill" in source and not 0 <= count * size <= _MOST_FILLED:
        raise TextError(f"{count} elements are too many to fill", "", "put them into a file")
    items = source["values"] if "values" in source else [source["fill"]]
    try:
        packed = b"".join(_packed(kind, item) for item in _flatten(items))
    except (struct.error, OverflowError, TypeError, ValueError) as error:
        raise TextError(f"a value is no {dtype}: {error}") from None
    return packed if "values" in source else packed * count


def _packed(kind: UserType, value: Any) -> bytes:
    """A number of the user's type, as the chip stores it."""
    if not kind.pack:
        return _bf16(value)
    own = struct.pack(f"<{kind.pack}", value)  # refuses what is outside the type's own range
    return own if 8 * len(own) == kind.storage.bits else struct.pack("<i", value)


def _flatten(items: Any) -> list[Any]:
    return [leaf for item in items for leaf in _flatten(item)] if isinstance(items, list) else [items]


def _bf16(value: float) -> bytes:
    """Rounded to nearest, ties to even."""
    bits = int.from_bytes(struct.pack("<f", value), "little")
    return (((bits + 0x7FFF + (bits >> 16 & 1)) >> 16) & 0xFFFF).to_bytes(2, "little")
