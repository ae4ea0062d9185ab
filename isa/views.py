"""Views: what an instruction's operand means in memory. Shared by checkers, disassembler, emulator and codegen."""

from collections.abc import Mapping
from dataclasses import dataclass

from isa.architecture import Dtype, Region, Space
from isa.fields import Access, Field

Extents = tuple[int, int, int]  # planes, rows, cols
PARTS = {"g": ("glog", 32), "j": ("slog", 16)}  # an extent that counts stretches of k: field with the log2, shortest


@dataclass(frozen=True, slots=True)
class View:
    """A strided block: element (p, r, c) lies at `base` bytes + (p*ps + r*rs + c*cs) elements."""

    space: Space
    region: Region
    dtype: Dtype
    base: int
    rs: int = 0
    ps: int = 0
    cs: int = 1

    def __str__(self) -> str:
        place = f"dram.{self.region.name.lower()}" if self.space is Space.DRAM else self.space.name.lower()
        return f"{place}[{self.base:#x}]:{self.dtype.name.lower()}"

    def span(self, extents: Extents) -> tuple[int, int]:
        """First byte, and one past the last byte, that a block of `extents` touches."""
        planes, rows, cols = extents
        if not (planes and rows and cols):
            return self.base, self.base
        last = (planes - 1) * self.ps + (rows - 1) * self.rs + (cols - 1) * self.cs
        return self.base, self.base + -(-(last + 1) * self.dtype.bits // 8)


def extents_of(field: Field, operands: Mapping[str, int]) -> Extents:
    """Extents of a view operand of an instruction, after its `when` exceptions (dynamic extents already applied)."""
    planes, rows, cols = dims_of(field, operands)
    return _extent(planes, operands), _extent(rows, operands), _extent(cols, operands)


def dims_of(field: Field, operands: Mapping[str, int]) -> tuple[str, str, str]:
    """What its extents are called, after its `when` exceptions."""
    dims = field.dims
    for exception in field.when:
        if exception.dims and operands.get(exception.field) == exception.value:
            dims = exception.dims
    return dims


def access_of(field: Field, operands: Mapping[str, int]) -> Access:
    """How the instruction touches this operand, after its `when` exceptions."""
    for exception in field.when:
        if exception.access and operands.get(exception.field) == exception.value:
            return exception.access
    assert field.access is not None
    return field.access


def _extent(name: str, operands: Mapping[str, int]) -> int:
    if name == "1":
        return 1
    if name in PARTS:
        return -(-operands["k"] // part_length(name, operands))
    return operands[name]


def part_length(name: str, operands: Mapping[str, int]) -> int:
    """Elements of k in a group ("g") or sub-block ("j") of an instruction."""
    log, shortest = PARTS[name]
    return shortest << operands[log]
