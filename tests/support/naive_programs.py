"""Random legal programs, drawn from the table: every word kind, every type, broadcasting, loops, moving views, dynamic
extents.

Memory is divided into buffers of one type each, so that no program looks at the bits of a NaN through another type. The
prologue defines all of them; after it any word may read anything. Extents, strides, presence of operands and types come
from the table's fields; combinations that `lint.type_rules` refuses are drawn again.
"""

import struct
from dataclasses import dataclass, field
from random import Random
from typing import Any

from hypothesis import strategies as st
from msgspec import structs

from isa.architecture import NO_WAIT, QUEUES, WORD_BYTES, Dtype, Engine, Region, Space
from isa.asm.text import format_inst
from isa.chip import Acc, Sram, load_chip
from isa.codec import NO_WAITS, Inst, encode
from isa.fields import Access, Field, Instruction, Kind
from isa.image.image import Image
from isa.image.records import Entry, TensorSpec
from isa.spec import ISA
from isa.views import Extents, View, access_of, extents_of
from lint.type_rules import type_error

ELEMENTS = 640
ORDERED = (0,) * len(QUEUES)
SLOTS = 1 << 14  # bytes per memory
LIMIT = 6  # rows of a gathered table
MOVES = 3  # most iterations of a loop
TRIES = 300  # draws of types and operands until they agree; mm needs most
FLOATS = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    2.5,
    -1.5,
    127.5,
    3.0e38,
    -3.0e38,
    1e-40,
    -1e-45,
    88.5,
    -87.5,
    float("inf"),
    float("-inf"),
    float("nan"),
]
COMPUTE = tuple(row for row in ISA.values() if row.views and row.engine is not Engine.CTL)
Draw = Any


@dataclass(frozen=True)
class Buffer:
    space: Space
    region: Region
    dtype: Dtype
    base: int

    @property
    def nbytes(self) -> int:
        return ELEMENTS * self.dtype.bits // 8


@dataclass
class Layout:
    """Where the buffers lie: two of each type in SRAM, one in ACC, and two in DRAM; plus row numbers that nothing
    overwrites."""

    buffers: list[Buffer] = field(default_factory=list)
    const: bytearray = field(default_factory=bytearray)
    free: dict[tuple[Space, Region], int] = field(default_factory=dict)

    def add(self, space: Space, region: Region, dtype: Dtype) -> Buffer:
        key = space, region if space is Space.DRAM else Region.WEIGHTS
        buffer = Buffer(space, region, dtype, self.free.get(key, 0))
        self.free[key] = buffer.base + -(-buffer.nbytes // 64) * 64
        return buffer


def _bits(dtype: Dtype, random: Random) -> bytes:
    """Initial data: numbers of all sizes, some special."""
    if not dtype.is_float:
        return bytes(random.getrandbits(8) for _ in range(ELEMENTS * dtype.bits // 8))
    out = bytearray()
    for _ in range(ELEMENTS):
        x = (
            random.choice(FLOATS)
            if random.random() < 0.05
            else random.gauss(0, 1) * 10 ** random.choice([-3, 0, 0, 1, 3])
        )
        word = struct.pack("<f", x)
        out += (
            word
            if dtype is Dtype.F32
            else word[2:]
            if dtype is Dtype.BF16
            else struct.pack("<e", max(-6e4, min(6e4, x)) if x == x else x)
        )
    return bytes(out)


def layout(random: Random) -> Layout:
    made = Layout()
    for dtype in Dtype:
        for space, region in (
            (Space.SRAM, Region.WEIGHTS),
            (Space.SRAM, Region.WEIGHTS),
            (Space.DRAM, Region.SCRATCH),
            (Space.DRAM, Region.OUT),
        ):
            made.buffers.append(made.add(space, region, dtype))
        if dtype is not Dtype.I4:
            made.buffers.append(made.add(Space.ACC, Region.WEIGHTS, dtype))
    for buffer in made.buffers:
        if buffer.space is Space.SRAM:
            made.const += _bits(buffer.dtype, random).ljust(-(-buffer.nbytes // 64) * 64, b"\0")
    rows = struct.pack(f"<{ELEMENTS}i", *(random.randrange(LIMIT) for _ in range(ELEMENTS)))
    made.const += rows
    return made


@dataclass
class Program:
    """A finished program, its initial data, and the typed memory to compare."""

    words: list[Inst]
    const: bytes
    buffers: list[Buffer]

    @property
    def code(self) -> bytes:
        return b"".join(map(encode, self.words))

    def image(self, sram: int = 2 * SLOTS, acc: int = SLOTS) -> Image:
        """As an image, for the checkers. All of OUT is output."""
        chip = structs.replace(load_chip(), sram=Sram(bytes=sram), acc=Acc(bytes=acc))
        sizes = [0] * len(Region)
        sizes[Region.SCRATCH] = sizes[Region.OUT] = SLOTS
        outputs = tuple(
            TensorSpec(f"out{i}", (b.nbytes,), "int8", Dtype.I8, b.region, b.base)
            for i, b in enumerate(self.buffers) if b.space is Space.DRAM and b.region is Region.OUT
        )  # fmt: skip
        return Image(self.code, const=self.const, sizes=tuple(sizes), entries=(Entry(outputs=outputs),), chip=chip)

    def __repr__(self) -> str:
        return "\n" + "\n".join(f"  {16 * i:#06x} {format_inst(inst)}" for i, inst in enumerate(self.words))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))


class Builder:
    """Draws the words. Views v1..v8 are set before each word; v30 and v31 serve the prologue."""

    def __init__(self, draw: Draw, ordered: bool) -> None:
        self.draw, self.ordered = draw, ordered
        self.random = Random(draw(st.integers(0, 2**32)))
        self.made = layout(self.random)
        self.words: list[Inst] = []
        self._prologue()

    def _prologue(self) -> None:
        """Everything defined: SRAM from CONST, the rest from SRAM; the row numbers at the end of SRAM."""
        at = 0
        first: dict[Dtype, Buffer] = {}
        for buffer in self.made.buffers:
            if buffer.space is Space.SRAM:
                self._move("ldw", buffer, Buffer(Space.DRAM, Region.CONST, buffer.dtype, at))
                at += -(-buffer.nbytes // 64) * 64
                first.setdefault(buffer.dtype, buffer)
        for buffer in self.made.buffers:
            if buffer.space is not Space.SRAM:
                self._move("sto" if buffer.space is Space.DRAM else "vop", buffer, first[buffer.dtype])
        self.rows = self.made.add(Space.SRAM, Region.WEIGHTS, Dtype.I32)
        self._move("ldw", self.rows, Buffer(Space.DRAM, Region.CONST, Dtype.I32, at))
        self.rows_at = at

    def _move(self, mnemonic: str, to: Buffer, source: Buffer) -> None:
        for number, buffer in ((30, to), (31, source)):
            self._set(number, View(buffer.space, buffer.region, buffer.dtype, buffer.base))
        self.words.append(
            Inst.make(mnemonic, ORDERED, d=30, a=31, rows=1, cols=ELEMENTS, **({"f": 0} if mnemonic == "vop" else {}))
        )

    def _set(self, number: int, view: View) -> None:
        fields = {"space": int(view.space), "region": int(view.region), "dtype": int(view.dtype), "base": view.base}
        self.words.append(Inst.make("vset", v=number, **fields, rs=view.rs, ps=view.ps, cs=view.cs))

    def deps(self) -> tuple[int, ...]:
        if self.ordered:
            return ORDERED
        return tuple(self.random.choice([0, 0, 1, 2, NO_WAIT, NO_WAIT]) for _ in QUEUES)

    def scalar(self) -> None:
        """Some scalar arithmetic; its results may be anything."""
        row = ISA["salu"]
        operands = {f.name: self.random.randrange(len(f.choices) or 1 << f.bits) for f in row.fields}
        operands["f"] = self.random.choice([i for i, f in enumerate(row.field("f").choices) if f != "ceildiv"])
        operands["d"] = self.random.randrange(8)
        self.words.append(Inst.make("salu", **operands))

    def word(self, row: Instruction, level: int, moving: bool) -> None:
        """One engine word with its views. `moving`: inside a loop of `level`, so views may move with it."""
        for _ in range(TRIES):
            operands = self._operands(row)
            views = self._views(row, operands)
            if views is not None and not type_error(row.mnemonic, operands, views):
                break
        else:
            return
        for number, (name, view) in enumerate(views.items(), 1):
            self._set(number, view)
            operands[name] = number
            size = max(1, view.dtype.bits // 8)
            room = self._room(row.field(name), operands, view) // 2
            step = room // (MOVES - 1) // size * size
            if moving and step > 0 and self.random.random() < 0.5:
                inc = self.random.randrange(0, step + 1, size)
                mod = self.random.choice([0, 1, 2])
                self.words.append(
                    Inst.make("vinc", v=number, level=level, inc=inc, div=self.random.choice([1, 2]), mod=mod)
                )
                if self.random.random() < 0.3:  # the other way to move it, which stays inside where s15 is 0 or 1
                    scale = self.random.randrange(0, room + 1, size)
                    self.words.append(Inst.make("vadd", v=number, s=15, scale=scale))
        if "dyn" in operands and self.random.random() < 0.3:
            self._make_dynamic(row, operands)
        self.words.append(Inst.make(row.mnemonic, self.deps(), **operands))

    def _make_dynamic(self, row: Instruction, operands: dict[str, int]) -> None:
        choices = row.field("dyn").choices
        which = self.random.randrange(1, len(choices))
        if choices[which] == "limit":
            return
        value = self.random.choice([operands[choices[which]], self.random.randrange(operands[choices[which]] + 1)])
        self.words.append(Inst.make("salu", f=0, d=9, bi=1, imm=value))
        operands |= {"dyn": which, "dyn_s": 9, choices[which]: self.random.randrange(4)}

    def _operands(self, row: Instruction) -> dict[str, int]:
        operands: dict[str, int] = {}
        dims = {dim for f in row.views for dim in f.dims}
        for f in row.fields:
            if f.kind is Kind.VIEW or f.name in ("dyn", "dyn_s"):
                operands[f.name] = 0
            elif f.name in dims:
                operands[f.name] = self._extent(f.name)
            elif f.name == "limit":
                operands[f.name] = LIMIT
            elif f.kind is Kind.F32:
                operands[f.name] = self.random.choice(
                    [f.default or 0, struct.unpack("<I", struct.pack("<f", self.random.choice(FLOATS)))[0]]
                )
            else:
                operands[f.name] = self.random.randrange(len(f.choices) or 1 << min(f.bits, 1))
        if "limit" in operands:
            operands["limit"] = LIMIT
        return operands

    def _extent(self, name: str) -> int:
        small = self.random.choice([1, 1, 2, 3])
        if name in ("cols", "k"):
            return self.random.choice([1, 2, 5, 17, 40, 70])
        return min(small, 2) if name in ("planes", "b") else small

    def _views(self, row: Instruction, operands: dict[str, int]) -> dict[str, View] | None:
        """A view for each operand; None if one does not fit. Destinations of one word lie in different buffers."""
        taken: list[Buffer] = []
        views: dict[str, View] = {}
        for f in row.views:
            if f.default is not None and self.random.random() < 0.5:
                continue
            access, extents = access_of(f, operands), extents_of(f, operands)
            if f.name == "idx":
                rows = self._view(self.rows, extents, False)
                if rows is not None:
                    views[f.name] = rows
                continue
            fitting = [b for b in self.made.buffers if b.dtype in f.dtypes and b.space in f.spaces and b not in taken]
            if f.name == "a" and "d" in views and row.views[0].spaces != row.views[1].spaces:  # a copy
                fitting = [b for b in fitting if b.dtype is views["d"].dtype]
            buffer = self.random.choice(fitting)
            if access is not Access.R:
                taken.append(buffer)
            view = self._view(buffer, extents, access is not Access.R)
            if view is None:
                return None
            views[f.name] = view
        return views

    def _view(self, buffer: Buffer, extents: Extents, target: bool) -> View | None:
        planes, rows, cols = extents
        repeat = [not target and self.random.random() < 0.2 for _ in range(3)]
        cs = 0 if repeat[2] else 1
        rs = 0 if repeat[1] else max(1, cols * cs) + self.random.choice([0, 0, 1, 2])
        ps = 0 if repeat[0] else max(1, rs * rows) + self.random.choice([0, 0, 3])
        span = (planes - 1) * ps + (rows - 1) * rs + (cols - 1) * cs + 1
        if span > ELEMENTS:
            return None
        offset = self.random.choice([0, self.random.randrange(ELEMENTS - span + 1)])
        if buffer.dtype is Dtype.I4:
            offset &= ~1
        return View(
            buffer.space, buffer.region, buffer.dtype, buffer.base + offset * buffer.dtype.bits // 8, rs, ps, cs
        )

    def _room(self, f: Field, operands: dict[str, int], view: View) -> int:
        """Bytes by which a view may move without leaving its buffer."""
        buffer = next(
            b
            for b in (*self.made.buffers, self.rows)
            if (b.space, b.dtype) == (view.space, view.dtype)
            and b.base <= view.base < b.base + b.nbytes
            and (view.space is not Space.DRAM or b.region is view.region)
        )
        extents = (1, LIMIT, operands["cols"]) if "limit" in f.dims else extents_of(f, operands)
        return buffer.base + buffer.nbytes - view.span(extents)[1]

    def loop(self, row_count: int) -> None:
        level, start = self.random.randrange(4), len(self.words)
        self.words.append(Inst.make("nop"))
        for _ in range(row_count):
            self.word(self.draw(st.sampled_from(COMPUTE)), level, True)
        length = len(self.words) - start - 1
        self.words[start] = Inst.make("loop", level=level, len=length, count=self.random.randrange(MOVES + 1))

    def finish(self) -> Program:
        self.words.append(Inst.make("halt", NO_WAITS))
        buffers = [*self.made.buffers, self.rows]
        return Program(self.words, bytes(self.made.const), buffers)


@st.composite
def programs(draw: Draw, ordered: bool = True, most: int = 12) -> Program:
    """`ordered`: every word waits for everything before it, so there is no race."""
    builder = Builder(draw, ordered)
    for _ in range(draw(st.integers(min(4, most), most))):
        kind = draw(st.sampled_from(["word", "word", "word", "word", "loop", "scalar", "fence", "load"]))
        if kind == "word":
            builder.word(draw(st.sampled_from(COMPUTE)), 0, False)
        elif kind == "loop":
            builder.loop(draw(st.integers(1, 3)))
        elif kind == "scalar":
            builder.scalar()
        elif kind == "fence":
            builder.words.append(Inst.make("fence", mask=draw(st.integers(0, 63))))
        else:
            builder._set(29, View(Space.DRAM, Region.CONST, Dtype.I32, builder.rows_at))
            builder.words.append(Inst.make("sld", d=builder.random.randrange(8), v=29, off=builder.random.randrange(9)))
    return builder.finish()


__all__ = ["SLOTS", "WORD_BYTES", "Buffer", "Program", "programs"]
