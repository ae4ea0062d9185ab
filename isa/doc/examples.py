"""An example of every instruction: a line for the manual, and a whole program around it that runs.

The line is written by hand, the program follows from the table: every operand gets a view, and what is read is loaded
first.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

from isa.asm.text import parse_inst
from isa.spec import ISA, Access, Dtype, Field, Kind, Space
from isa.views import access_of, extents_of

_ALIGN = 64
_SOURCE = 31  # view register for loads of the preparation


@dataclass(frozen=True)
class Example:
    """Operands and counts of one line; element types of its views, where the first that the table allows is not
    wanted."""

    operands: str = ""
    waits: str = ""
    dtypes: dict[str, Dtype] = field(default_factory=dict)
    body: tuple[str, ...] = ()  # words that belong to it: the body of a loop
    note: str = ""


_F32 = Dtype.F32
EXAMPLES: dict[str, Example] = {
    "nop": Example(),
    "halt": Example(),
    "fence": Example("mask=0x3", note="wait until ldw and lda have finished"),
    "loop": Example(
        "level=0, len=2, count=3", body=("salu f=add, d=s1, a=s1, bi, imm=0x1", "nop"), note="s1 becomes 3"
    ),
    "salu": Example("f=ceildiv, d=s2, a=s1, bi, imm=0x10", note="s2 = ceil(s1 / 16)"),
    "sld": Example("d=s1, v=v1, off=0x2", note="the third element"),
    "vset": Example("v=v1, space=sram, dtype=i8, base=0x400, rs=128", note="rows of 128 bytes from 0x400 on"),
    "vinc": Example("v=v1, level=0, inc=0x1000, mod=2", note="two buffers of 4 KiB in turns"),
    "vadd": Example("v=v1, s=s1, scale=64", note="64 bytes for each unit of s1"),
    "ldw": Example("d=v1, a=v2, rows=16, cols=64", dtypes={"d": Dtype.I8, "a": Dtype.I8}),
    "lda": Example("d=v1, a=v2, rows=8, cols=32", dtypes={"d": _F32, "a": _F32}),
    "gather": Example(
        "d=v1, a=v2, idx=v3, n=4, cols=32, limit=100",
        "lda<=0",
        {"d": _F32, "a": _F32},
        note="four rows of a table of 100",
    ),
    "sto": Example("d=v1, a=v2, rows=8, cols=32", "vec<=0", {"d": _F32, "a": _F32}),
    "mm": Example("c=v1, a=v2, w=v3, m=8, n=16, k=32", "ldw<=0, lda<=0", note="8x32 int8 times 32x16 int8"),
    "vop": Example("f=mul, d=v1, a=v2, b=v3, rows=8, cols=32", "lda<=0", {"d": _F32, "a": _F32, "b": _F32}),
    "vred": Example(
        "f=max, d=v1, a=v2, rows=8, cols=32", "lda<=0", {"d": _F32, "a": _F32}, note="the largest of each row"
    ),
    "vaff": Example(
        "d=v1, a=v2, rs=v3, cs=v4, bi=v5, rows=8, cols=16",
        "mxu<=0",
        {"a": Dtype.I32},
        note="dequantize: row scale, column scale, bias",
    ),
    "vqd": Example("d=v1, s=v2, a=v3, rows=8, cols=32", "lda<=0", note="int8 rows and their scales"),
    "act": Example("f=gelu_erf, d=v1, a=v2, rows=8, cols=32", "vec<=0", {"a": _F32}),
}


def line(mnemonic: str) -> str:
    """The example line."""
    known = EXAMPLES[mnemonic]
    return f"{mnemonic} {known.operands}".rstrip() + (f" @ {known.waits}" if known.waits else "")


def program(mnemonic: str) -> str:
    """A program that runs the example line."""
    return "\n".join(_program(mnemonic)) + "\n"


def _program(mnemonic: str) -> Iterator[str]:
    known, sizes = EXAMPLES[mnemonic], dict.fromkeys(("const", "out"), 0)
    words = list(_setup(mnemonic, known, sizes))
    if sizes["const"]:
        yield f".data const dtype=int8, fill=0, count={sizes['const']}"
    if sizes["out"]:
        yield f".region out bytes={sizes['out']}"
    yield from words
    if any(word.startswith("lda") for word in words):
        yield "fence"
    text = line(mnemonic)
    yield f"{text:<58} ; {known.note}" if known.note else text
    yield from (f"  {word}" for word in known.body)
    if mnemonic != "halt":
        yield "halt"


def _setup(mnemonic: str, known: Example, sizes: dict[str, int]) -> Iterator[str]:
    inst = parse_inst(mnemonic, known.operands)
    named, row = inst.named(), ISA[mnemonic]
    used = {Space.SRAM: 0, Space.ACC: 0}
    for spec in row.fields:
        number = named[spec.name]
        if spec.kind is not Kind.VIEW or not number or mnemonic == "vset":
            continue
        if spec.access is None:  # a word that changes a view which exists
            yield f"vset v=v{number}, space=sram, dtype=i8, base=0x0"
            continue
        planes, rows, cols = extents_of(spec, named)
        cols += named.get("off", 0)
        dtype = known.dtypes.get(spec.name, _first(spec))
        size = -(-prod((planes, rows, cols)) * dtype.bits // 8 // _ALIGN) * _ALIGN
        space, written = spec.spaces[0], access_of(spec, named) is Access.W
        region = ("out" if written else "const") if space is Space.DRAM or not written else ""
        shape = f"dtype={dtype.name.lower()}, base={{:#x}}" + (f", rs={cols}" if rows > 1 else "")
        if region:
            yield f"vset v=v{number if space is Space.DRAM else _SOURCE}, space=dram, region={region}, {shape.format(sizes[region])}"
            sizes[region] += size
        if space is Space.DRAM:
            continue
        yield f"vset v=v{number}, space={space.name.lower()}, {shape.format(used[space])}"
        used[space] += size
        if region:
            yield f"lda d=v{number}, a=v{_SOURCE}, rows={rows}, cols={cols}"


def _first(spec: Field) -> Dtype:
    """Float32 where it is allowed for scales and results of VEC; else the table's first."""
    return (
        Dtype.F32
        if Dtype.F32 in spec.dtypes and spec.dtypes[0] not in (Dtype.I8, Dtype.I4, Dtype.I32)
        else spec.dtypes[0]
    )
