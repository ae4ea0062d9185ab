"""An example of every instruction: a line for the manual, and a whole program around it that runs.

The line is written by hand, in the instruction's row of the table; the program follows from the table: every operand
gets a view, and what is read is loaded first."""

from collections.abc import Iterator
from math import prod

from isa.architecture import Dtype, Space
from isa.asm.text import parse_inst
from isa.fields import Access, Example, Field, Kind
from isa.spec import ISA
from isa.views import access_of, extents_of

_ALIGN = 64
_SOURCE = 31  # view register for loads of the preparation


def line(mnemonic: str) -> str:
    """The example line."""
    known = ISA[mnemonic].example
    return f"{mnemonic} {known.operands}".rstrip() + (f" @ {known.waits}" if known.waits else "")


def program(mnemonic: str) -> str:
    """A program that runs the example line."""
    return "\n".join(_program(mnemonic)) + "\n"


def _program(mnemonic: str) -> Iterator[str]:
    known, sizes = ISA[mnemonic].example, dict.fromkeys(("const", "out"), 0)
    lines = list(_setup(mnemonic, known, sizes))
    if sizes["const"]:
        yield f".data const dtype=int8, fill=0, count={sizes['const']}"
    if sizes["out"]:
        yield f".region out bytes={sizes['out']}"
    yield from lines
    if any(each.startswith("lda") for each in lines):
        yield "fence"
    text = line(mnemonic)
    yield f"{text:<58} ; {known.note}" if known.note else text
    yield from (f"  {each}" for each in known.body)
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
        if spec.access is None:  # an instruction that changes a view which exists
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
