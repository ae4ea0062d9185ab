"""Tile IR: instructions of the ISA over symbolic buffers instead of addresses. Immutable.

    %t12 : sram 98304
    mm c=%acc3[0]:i32 rs=768, a=%x[0]:i8 rs=768, w=%w5[0]:i8 rs=768, m=128, n=768, k=768, wt ; linear_3

An op names views in the order of its table row. Placing the buffers turns it into a word.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from isa.spec import ISA, Access, Dtype, Instruction, Kind, Region, Space
from isa.views import Extents, access_of, extents_of


@dataclass(frozen=True, slots=True)
class Buffer:
    """A block of memory. `fixed` is its offset when it is given (inputs, outputs, constants).

    Inside the loop the block moves by `step` bytes per iteration: the weights of identical layers.
    """

    name: str
    space: Space
    bytes: int
    region: Region = Region.WEIGHTS
    fixed: int | None = None
    step: int = 0

    def __hash__(self) -> int:
        return hash(self.name)  # names differ within a program, and buffers are looked up often

    @property
    def place(self) -> str:
        return f"dram.{self.region.name.lower()}" if self.space is Space.DRAM else self.space.name.lower()

    def __str__(self) -> str:
        at = "" if self.fixed is None else f" @ {self.fixed:#x}"
        moves = f" + {self.step:#x} per iteration" if self.step else ""
        return f"%{self.name} : {self.place} {self.bytes}{at}{moves}"


@dataclass(frozen=True, slots=True)
class Ref:
    """A view of a buffer: element (p, r, c) at `offset` bytes + (p*ps + r*rs + c*cs) elements."""

    buffer: Buffer
    offset: int
    dtype: Dtype
    rs: int = 0
    ps: int = 0
    cs: int = 1

    def __str__(self) -> str:
        strides = "".join(
            f" {n}={v}"
            for n, v, default in (("rs", self.rs, 0), ("ps", self.ps, 0), ("cs", self.cs, 1))
            if v != default
        )
        return f"%{self.buffer.name}[{self.offset}]:{self.dtype.name.lower()}{strides}"


@dataclass(frozen=True, slots=True)
class Tap:
    """The block written through view `operand` holds elements offset + p*ps + r*rs + c*cs of `node`, flattened."""

    operand: str
    node: str
    offset: int
    ps: int
    rs: int
    cs: int


@dataclass(frozen=True)
class Op:
    """One instruction over symbolic buffers. `views` follows the view operands of the table row."""

    mnemonic: str
    views: tuple[Ref | None, ...]
    attrs: tuple[tuple[str, int], ...]
    node: str
    taps: tuple[Tap, ...] = ()

    @property
    def row(self) -> Instruction:
        return ISA[self.mnemonic]

    @cached_property
    def operands(self) -> Mapping[str, int]:
        """The non-view operands by name, defaults filled in."""
        given = dict(self.attrs)
        return {f.name: given.get(f.name, f.default or 0) for f in self.row.fields if f.kind is not Kind.VIEW}

    @cached_property
    def accesses(self) -> tuple[tuple[str, Ref, Extents, Access], ...]:
        """Every memory operand: name, view, extents, how it is touched."""
        given = [(field, ref) for field, ref in zip(self.row.views, self.views, strict=True) if ref is not None]
        return tuple(
            (field.name, ref, extents_of(field, self.operands), access_of(field, self.operands)) for field, ref in given
        )

    def __str__(self) -> str:
        parts = [f"{f.name}={ref}" for f, ref in zip(self.row.views, self.views, strict=True) if ref is not None]
        for field in self.row.fields:
            if field.kind is not Kind.VIEW and (value := self.operands[field.name]) != field.default:
                text = (
                    field.choices[value] if field.choices else f"{value:#x}" if field.kind is Kind.F32 else str(value)
                )
                parts.append(field.name if field.kind is Kind.FLAG else f"{field.name}={text}")
        return f"{self.mnemonic} {', '.join(parts)} ; {self.node}"


@dataclass(frozen=True, slots=True)
class Loop:
    """Ops first .. end are executed `count` times."""

    first: int
    end: int
    count: int


@dataclass(frozen=True)
class Program:
    """Ops in dispatch order, a run of which may be a loop."""

    ops: tuple[Op, ...]
    loop: Loop | None = None

    @cached_property
    def buffers(self) -> tuple[Buffer, ...]:
        """Every buffer touched, in order of first use."""
        return tuple(dict.fromkeys(ref.buffer for op in self.ops for ref in op.views if ref is not None))

    def __str__(self) -> str:
        lines = [f"{b}\n" for b in self.buffers]
        for index, op in enumerate(self.ops):
            if self.loop and index == self.loop.first:
                lines.append(f"loop {self.loop.count} {{\n")
            lines.append(f"{'  ' if self.in_loop(index) else ''}{op}\n")
            if self.loop and index == self.loop.end - 1:
                lines.append("}\n")
        return "".join(lines)

    @cached_property
    def live(self) -> Mapping[Buffer, tuple[int, int]]:
        """Index of the first and last op that touches each buffer.

        What a loop shares with the code around it, or takes from its own last iteration, lives through all of it.
        """
        ranges: dict[Buffer, tuple[int, int]] = {}
        through: set[Buffer] = set()
        for index, op in enumerate(self.ops):
            inside = self.in_loop(index)
            for _, ref, _, access in op.accesses:
                first, last = ranges.get(ref.buffer, (index, index))
                fresh = inside and (ref.buffer not in ranges or not self.in_loop(first))
                if fresh and (ref.buffer in ranges or access is not Access.W):
                    through.add(ref.buffer)
                if not inside and self.in_loop(last):
                    through.add(ref.buffer)
                ranges[ref.buffer] = (first, index)
        if self.loop is not None:
            for buffer in through:
                first, last = ranges[buffer]
                ranges[buffer] = (min(first, self.loop.first), max(last, self.loop.end - 1))
        return ranges

    def in_loop(self, index: int) -> bool:
        return self.loop is not None and self.loop.first <= index < self.loop.end


def span(ref: Ref, extents: Extents) -> tuple[int, int]:
    """First byte and one past the last byte of the buffer that a block touches."""
    planes, rows, cols = extents
    last = (planes - 1) * ref.ps + (rows - 1) * ref.rs + (cols - 1) * ref.cs
    return ref.offset, ref.offset - (-(last + 1) * ref.dtype.bits // 8)


def verify(program: Program) -> None:
    """Raise ValueError unless every op is well formed: known row, all views present, in bounds, right space and
    type."""
    names: dict[str, Buffer] = {}
    for buffer in program.buffers:
        if names.setdefault(buffer.name, buffer) is not buffer and names[buffer.name] != buffer:
            raise ValueError(f"two buffers are called %{buffer.name}")
    for op in program.ops:
        for field, ref in zip(op.row.views, op.views, strict=True):
            if ref is None:
                if field.default is None:
                    raise ValueError(f"{field.name} is missing in: {op}")
                continue
            if ref.buffer.space not in field.spaces or ref.dtype not in field.dtypes:
                raise ValueError(f"{field.name} may not be {ref.buffer.place}:{ref.dtype.name.lower()} in: {op}")
            low, high = span(ref, extents_of(field, op.operands))
            if low < 0 or high > ref.buffer.bytes:
                raise ValueError(
                    f"{field.name} touches bytes {low}..{high} of %{ref.buffer.name} ({ref.buffer.bytes} bytes) in: {op}"
                )
        for field in op.row.fields:
            if field.kind is not Kind.VIEW and not 0 <= op.operands[field.name] < 1 << field.bits:
                raise ValueError(f"{field.name}={op.operands[field.name]} does not fit in {field.bits} bits in: {op}")
