"""Tile IR: instructions of the ISA over symbolic buffers instead of addresses. Immutable.

    %acc3 : acc 393216
    %w5 : dram.weights 589824 @ 0x90000 + 0x1b0000 per iteration
    mm c=%acc3[0]:i32 rs=768, a=%x[0]:i8 rs=768, w=%w5[0]:i8 rs=768, m=128, n=768, k=768, wt ; linear_3 | c=linear_3[0]
    rs=768

Buffers come first, each with its memory, bytes, offset if it is given and step in the loop. An op names its views in
the order of its table row, then its attributes as they were given; behind `;` stands the node that it works for,
behind each `|` a probe: the view that completes part of a node's value. What only a launch knows is a `Length`: behind
the attributes `~ cols = %params.positions[0<=4095]+1<=4096` is an extent, behind a view `+ 4 * %params…` moves it. The
text says all that a program holds: `parse(str(program)) == program` (compiler/tile/parse.py). Placing the buffers turns
an op into an instruction.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial

from isa.architecture import Dtype, Region, Space
from isa.fields import Access, Field, Instruction, Kind
from isa.spec import ISA
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
        region = f".{self.region.name.lower()}" if self.space is Space.DRAM or self.region is not Region.WEIGHTS else ""
        at = "" if self.fixed is None else f" @ {self.fixed:#x}"
        moves = f" + {self.step:#x} per iteration" if self.step else ""
        return f"%{quoted(self.name)} : {self.space.name.lower()}{region} {self.bytes}{at}{moves}"


@dataclass(frozen=True, slots=True)
class Length:
    """A number that only a launch knows: element `index` of the int32 input in `buffer`, which is 0 to `largest` and of
    which a schedule expects that it is `usual`, plus `plus`; at least 0 and at most `width`. If it is `falling`, `plus`
    less the element."""

    buffer: Buffer
    index: int
    largest: int
    plus: int = 0
    width: int = 1 << 30
    falling: bool = False
    usual: int = 0

    @property
    def most(self) -> int:
        """The largest value that it has in any launch."""
        return self.at(0 if self.falling else self.largest)

    def at(self, given: int) -> int:
        """Its value where the input's element is `given`."""
        return min(max(self.plus - given if self.falling else self.plus + given, 0), self.width)

    def __str__(self) -> str:
        sign = "-" if self.falling else ""
        return (
            f"{sign}%{quoted(self.buffer.name)}[{self.index}~{self.usual}<={self.largest}]{self.plus:+d}<={self.width}"
        )


@dataclass(frozen=True, slots=True)
class Ref:
    """A view of a buffer: element (p, r, c) at `offset` bytes + (p*ps + r*rs + c*cs) elements; `unit` bytes further on
    for each one of the length that it is `moved` by."""

    buffer: Buffer
    offset: int
    dtype: Dtype
    rs: int = 0
    ps: int = 0
    cs: int = 1
    moved: Length | None = None
    unit: int = 0

    def __str__(self) -> str:
        moved = "" if self.moved is None else f" + {self.unit} * {self.moved}"
        return f"%{quoted(self.buffer.name)}[{self.offset}]:{self.dtype.name.lower()}{_strides(self)}{moved}"


@dataclass(frozen=True, slots=True)
class Probe:
    """The block written through view `operand` holds elements offset + p*ps + r*rs + c*cs of `node`, flattened."""

    operand: str
    node: str
    offset: int
    ps: int
    rs: int
    cs: int

    def __str__(self) -> str:
        return f"{self.operand}={quoted(self.node)}[{self.offset}]{_strides(self)}"


@dataclass(frozen=True, slots=True)
class _Form:
    """What all ops of a row with the same attributes have in common: operands that are no views; of each view its name,
    extents and how it is touched."""

    operands: Mapping[str, int]
    views: tuple[tuple[str, Extents, Access], ...]


@lru_cache(1 << 14)  # ops are many, and few differ in more than their views
def _form(mnemonic: str, attrs: tuple[tuple[str, int], ...]) -> _Form:
    row = ISA[mnemonic]
    operands = {**row.defaults, **dict(attrs)}
    views = ((field.name, extents_of(field, operands), access_of(field, operands)) for field in row.views)
    return _Form(operands, tuple(views))


@dataclass(frozen=True)
class Op:
    """One instruction over symbolic buffers. `views` follows the view operands of the table row.

    `cut` names an extent that is not as long as its attribute says, but as a launch knows: at most so long.
    """

    mnemonic: str
    views: tuple[Ref | None, ...]
    attrs: tuple[tuple[str, int], ...]
    node: str
    probes: tuple[Probe, ...] = ()
    cut: tuple[str, Length] | None = None

    @property
    def row(self) -> Instruction:
        return ISA[self.mnemonic]

    @cached_property
    def operands(self) -> Mapping[str, int]:
        """The non-view operands by name, defaults filled in."""
        return _form(self.mnemonic, self.attrs).operands

    @cached_property
    def accesses(self) -> tuple[tuple[str, Ref, Extents, Access], ...]:
        """Every memory operand: name, view, extents, how it is touched."""
        views = zip(_form(self.mnemonic, self.attrs).views, self.views, strict=True)
        return tuple([(name, ref, extents, access) for (name, extents, access), ref in views if ref is not None])

    def __str__(self) -> str:
        parts = [f"{f.name}={ref}" for f, ref in zip(self.row.views, self.views, strict=True) if ref is not None]
        parts += [_attribute(self.row.field(name), int(value)) for name, value in self.attrs]
        cut = "" if self.cut is None else f" ~ {self.cut[0]} = {self.cut[1]}"
        return (
            f"{self.mnemonic} {', '.join(parts)}{cut} ; {quoted(self.node)}"
            f"{''.join(f' | {probe}' for probe in self.probes)}"
        )

    @property
    def lengths(self) -> tuple[Length, ...]:
        """What must be known of a launch."""
        moved = (ref.moved for ref in self.views if ref is not None and ref.moved is not None)
        return (*moved, *(() if self.cut is None else (self.cut[1],)))


def quoted(name: str) -> str:
    """A name as it stands in the text: models name inputs, outputs and nodes as they like."""
    return name if re.fullmatch(r"[\w.-]+", name, re.ASCII) else json.dumps(name)


def _strides(block: "Ref | Probe") -> str:
    return "".join(
        f" {n}={v}" for n, v, default in (("rs", block.rs, 0), ("ps", block.ps, 0), ("cs", block.cs, 1)) if v != default
    )


def _attribute(field: Field, value: int) -> str:
    if field.kind is Kind.FLAG and value == 1:
        return field.name
    named = (
        field.choices[value]
        if 0 <= value < len(field.choices)
        else f"{value:#x}"
        if field.kind is Kind.F32
        else str(value)
    )
    return f"{field.name}={named}"


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
        """Every buffer touched, in order of first use; those of lengths, too."""
        found: dict[Buffer, None] = {}
        for op in self.ops:
            found.update(dict.fromkeys(ref.buffer for ref in op.views if ref is not None))
            found.update(dict.fromkeys(length.buffer for length in op.lengths))
        return tuple(found)

    def __str__(self) -> str:
        lines = [f"{'  ' if self.in_loop(index) else ''}{op}" for index, op in enumerate(self.ops)]
        if self.loop is not None:
            first, end = self.loop.first, self.loop.end
            lines = [*lines[:first], f"loop {self.loop.count} {{", *lines[first:end], "}", *lines[end:]]
        return "".join(f"{line}\n" for line in (*self.buffers, *lines))

    @cached_property
    def live(self) -> Mapping[Buffer, tuple[int, int]]:
        """Index of the first and last op that touches each buffer.

        What a loop shares with the code around it, or takes from its own last iteration, lives through all of it.
        """
        start, end = (0, 0) if self.loop is None else (self.loop.first, self.loop.end)
        found: dict[str, tuple[Buffer, int, int]] = {}  # by name, for speed
        through: set[str] = set()
        for index, op in enumerate(self.ops):
            inside = start <= index < end
            for _, ref, _, access in op.accesses:
                name = ref.buffer.name
                known = found.get(name)
                first, last = (index, index) if known is None else known[1:]
                if inside:
                    fresh = known is None or not start <= first < end
                    if fresh and (known is not None or access is not Access.W):
                        through.add(name)
                elif start <= last < end:
                    through.add(name)
                found[name] = (ref.buffer, first, index)
        return {
            buffer: (min(first, start), max(last, end - 1)) if name in through else (first, last)
            for name, (buffer, first, last) in found.items()
        }

    def in_loop(self, index: int) -> bool:
        return self.loop is not None and self.loop.first <= index < self.loop.end


def span(ref: Ref, extents: Extents) -> tuple[int, int]:
    """First byte and one past the last byte of the buffer that a block touches, in any launch."""
    planes, rows, cols = extents
    last = (planes - 1) * ref.ps + (rows - 1) * ref.rs + (cols - 1) * ref.cs
    moved = 0 if ref.moved is None else ref.moved.most * ref.unit
    return ref.offset, ref.offset - (-(last + 1) * ref.dtype.bits // 8) + moved


def verify(program: Program) -> None:
    """Raise ValueError unless every op is well formed: known row, all views present, in bounds, right space and
    type."""
    loop = program.loop
    if loop is not None and not (0 <= loop.first < loop.end <= len(program.ops) and loop.count > 0):
        raise ValueError(f"{loop} is not a run of the {len(program.ops)} ops")
    names: dict[str, Buffer] = {}
    for buffer in program.buffers:
        if names.setdefault(buffer.name, buffer) is not buffer and names[buffer.name] != buffer:
            raise ValueError(f"two buffers are called %{buffer.name}")
    for op in program.ops:
        _verify_op(op)


def _verify_op(op: Op) -> None:
    accesses = iter(op.accesses)
    for field, ref in zip(op.row.views, op.views, strict=True):
        if ref is None:
            if field.default is None:
                raise ValueError(f"{field.name} is missing in: {op}")
            continue
        if ref.buffer.space not in field.spaces or ref.dtype not in field.dtypes:
            raise ValueError(f"{field.name} may not be {ref.buffer.place}:{ref.dtype.name.lower()} in: {op}")
        _, _, extents, _ = next(accesses)
        low, high = span(ref, extents)
        if low < 0 or high > ref.buffer.bytes:
            raise ValueError(
                f"{field.name} touches bytes {low}..{high} of %{ref.buffer.name} ({ref.buffer.bytes} bytes) in: {op}"
            )
    if op.cut is not None:
        _verify_cut(op, *op.cut)
    for field in op.row.fields:
        if field.kind is not Kind.VIEW and not 0 <= op.operands[field.name] < 1 << field.bits:
            raise ValueError(f"{field.name}={op.operands[field.name]} does not fit in {field.bits} bits in: {op}")


def _verify_cut(op: Op, name: str, length: Length) -> None:
    """An extent that a launch knows is one that the instruction can take from a register, and no longer than it
    says."""
    if not any(field.name == "dyn" and name in field.choices for field in op.row.fields):
        raise ValueError(f"{name} cannot come from a register in: {op}")
    if length.most > op.operands[name]:
        raise ValueError(f"{name} may be {length.most} in: {op}")


def at_launch(program: Program, value: Callable[[Length], int]) -> Program:
    """The program of a launch in which every length has this value: without lengths, and without the ops that have
    nothing to do."""
    ops: list[Op | None] = [_at_launch(op, value) if op.lengths else op for op in program.ops]
    loop = program.loop
    if loop is not None:
        before = sum(op is not None for op in ops[: loop.first])
        inside = sum(op is not None for op in ops[loop.first : loop.end])
        loop = Loop(before, before + inside, loop.count)
    return Program(tuple(op for op in ops if op is not None), loop)


def launches(program: Program) -> Iterator[tuple[int, Program]]:
    """Programs without lengths that stand for all launches: where every input that steers is 0, 1, about half of what
    it may be, and as large as can be. A program without lengths is alone."""
    largest = {length.largest for op in program.ops for length in op.lengths}
    if not largest:
        yield 0, program
        return
    most = max(largest)
    for value in sorted({0, 1, most * 5 // 8, most}):
        yield value, at_launch(program, partial(_value, value))


def _value(given: int, length: Length) -> int:
    return length.at(min(given, length.largest))


def _at_launch(op: Op, value: Callable[[Length], int]) -> Op | None:
    attrs = dict(op.attrs)
    if op.cut is not None:
        name, length = op.cut
        attrs[name] = value(length)
        if not attrs[name]:
            return None
    views = tuple(
        ref
        if ref is None or ref.moved is None
        else replace(ref, offset=ref.offset + value(ref.moved) * ref.unit, moved=None, unit=0)
        for ref in op.views
    )
    return replace(op, views=views, attrs=tuple(attrs.items()), cut=None)
