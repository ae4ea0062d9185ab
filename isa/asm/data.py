"""Initial data in assembly text: numbers as the bytes of a tensor."""

import struct
from collections.abc import Callable, Mapping
from typing import Any

from isa.asm.text import TextError
from isa.spec import Dtype

STORAGE = {
    "int8": Dtype.I8, "bool": Dtype.I8, "int32": Dtype.I32, "int64": Dtype.I32, "float32": Dtype.F32, "bfloat16": Dtype.BF16, "float16": Dtype.F16,
}  # fmt: skip
_PACK = {"int8": "b", "bool": "?", "int32": "i", "int64": "i", "float32": "f", "float16": "e"}
_MOST_FILLED = 1 << 26  # bytes that one directive may fill


def contents(source: Mapping[str, Any], dtype: str, count: int, read: Callable[[str], bytes]) -> bytes:
    """Initial data from exactly one of values=[...], fill=x, file="..."."""
    if len(source) != 1 or not set(source) <= {"values", "file", "fill"}:
        raise TextError("the data are given by one of values=[...], fill=x and file=\"...\"", "", f"this has {', '.join(source) or 'none'}")
    if "file" in source:
        return read(str(source["file"]))
    size = STORAGE[dtype].bits // 8
    if "fill" in source and not 0 <= count * size <= _MOST_FILLED:
        raise TextError(f"{count} elements are too many to fill", "", "put them into a file")
    items = source["values"] if "values" in source else [source["fill"]]
    try:
        packed = b"".join(_bf16(item) if dtype == "bfloat16" else struct.pack(f"<{_PACK[dtype]}", item) for item in _flatten(items))
    except (struct.error, OverflowError, TypeError, ValueError) as error:
        raise TextError(f"a value is no {dtype}: {error}") from None
    return packed if "values" in source else packed * count


def _flatten(items: Any) -> list[Any]:
    return [leaf for item in items for leaf in _flatten(item)] if isinstance(items, list) else [items]


def _bf16(value: float) -> bytes:
    """Rounded to nearest, ties to even."""
    bits = int.from_bytes(struct.pack("<f", value), "little")
    return (((bits + 0x7FFF + (bits >> 16 & 1)) >> 16) & 0xFFFF).to_bytes(2, "little")
