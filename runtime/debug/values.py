"""Blocks of memory and values of nodes, and the three ways to see them: as numbers, as bits in hexadecimal (`/x`), and
dequantized (`/q`)."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from emulator.formats import widen
from isa.architecture import Dtype
from isa.errors import InputError
from runtime.device.arrays import Array

FORMS = {"": "numbers", "x": "the bits, in hexadecimal", "q": "dequantized: times their scale"}
MOST_JSON = 1 << 16  # elements of a value that a document holds
_ROW = 16  # bytes of a line of bytes


@dataclass
class Printing:
    """How much of an array is printed, and how; what `set` sets."""

    elements: int = 64
    precision: int = 9


@dataclass(frozen=True)
class Thing:
    """A value that can be printed: `stored` as the chip stores it (bf16 as its bits, i4 as int8), `scale` what /q
    multiplies it with, if that is known. `address` is that of a plain range of bytes."""

    name: str
    title: str
    dtype: Dtype
    stored: Array
    scale: Array | None = None
    address: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def seen(self, form: str) -> Array:
        """The value in one of `FORMS`: numbers, unsigned bits, or float32. Raises InputError where there is no
        scale."""
        if form == "x":
            return bits(self.stored, self.dtype)
        return readable(self.stored, self.dtype) if form == "" else self._dequantized()

    def _dequantized(self) -> Array:
        if self.scale is None:
            raise InputError(
                f"the scale of {self.name} is not known",
                hint="say it: print/q PLACE by SCALE, a number or another value",
            )
        return readable(self.stored, self.dtype).astype(np.float32) * fitted(self.scale, self.stored.shape, self.name)

    def lines(self, form: str, printing: Printing) -> list[str]:
        """What is printed."""
        title = self.title + (", dequantized" if form == "q" else "")
        if form == "x" and self.address is not None:
            return [title, *dump(self.stored, self.address, printing)]
        return [title, *text(self.seen(form), printing, 0 if form != "x" else self.dtype.bits).splitlines()]

    def document(self, form: str) -> dict[str, Any]:
        """The same for programs; values beyond `MOST_JSON` are left out."""
        values = self.seen(form)
        found = {**self.facts, "name": self.name, "stored_as": self.dtype.name.lower(), "shape": list(values.shape)}
        found |= {"form": FORMS[form].partition(":")[0]} if form else {}
        return found | ({"values": plain(values)} if values.size <= MOST_JSON else {"omitted": int(values.size)})


def readable(block: Array, dtype: Dtype) -> Array:
    """Values for people: bf16 and f16 as float32."""
    return widen(block, dtype) if dtype in (Dtype.BF16, Dtype.F16) else block


def bits(stored: Array, dtype: Dtype) -> Array:
    """Elements as unsigned integers of their width; i4 as 0 to 15."""
    unsigned = np.ascontiguousarray(stored).view(f"u{stored.dtype.itemsize}")
    return (unsigned & np.uint8(15) if dtype is Dtype.I4 else unsigned).reshape(stored.shape)


def text(values: Array, printing: Printing, width: int = 0) -> str:
    """An array as lines; integers of `width` bits in hexadecimal."""
    digits = -(-width // 4)
    with np.printoptions(
        threshold=printing.elements, edgeitems=3, linewidth=120, precision=printing.precision, suppress=False,
        formatter={"int": lambda value: f"{int(value):0{digits}x}"} if width else None,
    ):  # fmt: skip
        return str(values)


def dump(stored: Array, address: int, printing: Printing) -> list[str]:
    """Bytes with their addresses, 16 a line."""
    data = np.ascontiguousarray(stored).view(np.uint8).reshape(-1)
    shown = data[: max(printing.elements, _ROW)] if data.size > max(printing.elements, _ROW) else data
    lines = [
        f"{address + first:#06x}  {' '.join(f'{byte:02x}' for byte in shown[first : first + _ROW])}"
        for first in range(0, shown.size, _ROW)
    ]
    rest = data.size - shown.size
    return [*lines, f"and {rest} bytes more; 'set elements N' shows N"] if rest else lines


def fitted(scale: Array, shape: tuple[int, ...], name: str) -> Array:
    """A scale for every element: one, one for each row (the last axis left out), or one for each stretch of a row.
    Raises InputError for other shapes."""
    scale = np.asarray(scale, np.float32)
    if scale.size == 1:
        return scale.reshape(())
    if shape[:-1] == scale.shape:
        return scale[..., None]
    if scale.ndim == len(shape) and scale.shape[:-1] == shape[:-1] and shape[-1] % scale.shape[-1] == 0:
        return np.repeat(scale, shape[-1] // scale.shape[-1], axis=-1)
    try:
        return np.broadcast_to(scale, shape)
    except ValueError:
        raise InputError(
            f"a scale of shape {list(scale.shape)} does not fit {name} of shape {list(shape)}",
            hint="one number, one for each row, one for each column, or one for each stretch of a row",
        ) from None


def plain(values: Array) -> Any:
    """Lists of JSON's numbers; infinities and NaN, which it has not, as words."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        flat = [v if math.isfinite(v) else str(v) for v in values.reshape(-1).tolist()]
        return np.array(flat, object).reshape(values.shape).tolist()
    return values.tolist()
