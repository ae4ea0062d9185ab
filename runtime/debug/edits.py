"""What `set` changes: a scalar, a field of a view register, elements of memory. `number` is what `delete` takes."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from emulator.context import Core
from emulator.formats import store
from isa.architecture import Dtype
from isa.errors import InputError
from isa.fields import Kind
from isa.spec import ISA
from isa.views import View
from runtime.debug.stepper import Block
from runtime.device.arrays import Array

VIEW_FIELDS = {field.name: field.bits for field in ISA["vset"].fields if field.kind is Kind.INT}  # with their bits
_SCALAR_BITS = 32


@dataclass(frozen=True)
class SetScalar:
    """A scalar register gets an integer of 32 bits."""

    number: int
    register: int
    value: int
    block: Block | None = None

    def __post_init__(self) -> None:
        if not -(1 << (_SCALAR_BITS - 1)) <= self.value < 1 << (_SCALAR_BITS - 1):
            raise InputError(f"{self.value} does not fit a scalar register", hint="a signed integer of 32 bits")

    def __str__(self) -> str:
        return f"s{self.register} = {self.value}"

    def make(self, core: Core) -> None:
        core.scalars[self.register] = self.value


@dataclass(frozen=True)
class SetView:
    """A field of a view register; the base is the one in the present loop iteration, from which it moves on."""

    number: int
    register: int
    field: str
    value: int
    block: Block | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.value < 1 << VIEW_FIELDS[self.field]:
            raise InputError(
                f"{self.value} does not fit {self.field} of a view",
                hint=f"0 to {(1 << VIEW_FIELDS[self.field]) - 1:#x}",
            )

    def __str__(self) -> str:
        return f"v{self.register}.{self.field} = {self.value:#x}"

    def make(self, core: Core) -> None:
        register = core.register(self.register)
        moved = core.view(self.register).base - register.view.base if self.field == "base" else 0
        fields: dict[str, Any] = {self.field: self.value - moved}
        register.view = replace(register.view, **fields)


@dataclass(frozen=True)
class SetMemory:
    """Elements of a block; `values` are as the chip stores them. `node` and `flat` say which element of a node's value
    it is, if it is one."""

    number: int
    block: Block
    values: Array
    text: str
    node: int | None = None
    flat: int = 0

    def __str__(self) -> str:
        return self.text

    def make(self, core: Core) -> None:
        view, extents = self.block.view, self.block.extents
        target = core.memory.target(view, extents)
        if view.dtype is Dtype.I4:
            core.memory.put_i4(view, extents, self.values)
        else:
            target[...] = self.values


def stored(dtype: Dtype, texts: list[str]) -> Array:
    """Numbers as people write them, as the chip stores them. Raises InputError for what is no number of the type."""
    if dtype.is_float:
        values = np.array([_float(text) for text in texts], np.float32)
        block = np.empty(values.shape, dtype.numpy)
        with np.errstate(over="ignore"):
            store(block, dtype, values)
        return block
    low, high = -(1 << (dtype.bits - 1)), 1 << (dtype.bits - 1)
    integers = [_integer(text, dtype) for text in texts]
    for value in integers:
        if not low <= value < high:
            raise InputError(f"{value} does not fit {dtype.name.lower()}", hint=f"{low} to {high - 1}")
    return np.array(integers, dtype.numpy)


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"'{text}' is no number", hint="for example 1.5, -inf or nan") from None


def _integer(text: str, dtype: Dtype) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise InputError(f"'{text}' is no integer, and {dtype.name.lower()} holds integers") from None


def filled(block: Block, values: Array) -> Array:
    """The values in the block's shape: one for all of it, or one for each element. Raises InputError for another
    number."""
    size = int(np.prod(block.extents))
    if values.size not in (1, size):
        raise InputError(f"{values.size} values for {size} elements", hint="give one, or one for each element")
    return np.broadcast_to(values, block.extents) if values.size == 1 else values.reshape(block.extents)


def one_element(view: View, index: tuple[int, ...], extents: tuple[int, int, int]) -> Block:
    """The block of one element. Raises InputError outside the extents, and for half a byte."""
    if len(index) > 3:
        raise InputError(f"{len(index)} indices for a block of planes, rows and columns")
    full = (0,) * (3 - len(index)) + index
    if not all(0 <= i < n for i, n in zip(full, extents, strict=True)):
        raise InputError(f"element {list(index)} is outside {'x'.join(map(str, extents))}")
    bit = view.dtype.bits * (full[0] * view.ps + full[1] * view.rs + full[2] * view.cs)
    if bit % 8:
        raise InputError("that element is the upper half of a byte", hint="set the byte, as an i8")
    return Block("", View(view.space, view.region, view.dtype, view.base + bit // 8), (1, 1, 1))
