"""The ISA reference, generated from the table: `python -m isa.doc.manual` writes docs/isa.md, `describe` serves
`llmcc isa`.

Nothing is said here that the table says: this module lays it out.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from isa.architecture import (
    ISA_VERSION,
    LOOP_LEVELS,
    MAX_COUNT,
    NO_WAIT,
    QUEUES,
    SCALARS,
    VIEWS,
    WORD_BYTES,
    Dtype,
    Engine,
    Region,
    Space,
)
from isa.asm.text import guess_instruction
from isa.doc.examples import program
from isa.errors import InputError
from isa.fields import Access, Field, Instruction, Kind, When
from isa.spec import ACT, HEADER, HEADER_BITS, ISA, MM_FORMAT, NIBBLES, ROUND, SALU, TAP, TIES, VOP, VQD_NORM, VRED

PATH = Path("docs/isa.md")
_ROW_BITS = 32  # of a diagram
_BIT_WIDTH = 3
_READS = {Access.R: "reads", Access.W: "writes", Access.RW: "reads and writes"}
_ENGINES = {
    Engine.CTL: "executed by the dispatcher itself, one instruction per cycle",
    Engine.LDW: "DMA, DRAM to SRAM, weights",
    Engine.LDA: "DMA, DRAM to SRAM, activations",
    Engine.STO: "DMA, SRAM to DRAM",
    Engine.MXU: "matrix products",
    Engine.VEC: "vectors, float32",
    Engine.ACT: "transcendental functions",
}
_TIMING = {
    "ctl": "dispatched in one cycle; a scalar from DRAM keeps dispatch waiting for it",
    "dma": "bytes in whole bursts over the shared bandwidth; completes after set-up and the latency of DRAM",
    "mxu": "for each tile of the array the larger of its rows to stream and its weights to load; then the array drains",
    "vec": "planes · rows · ceil(cols / lanes) cycles per pass, and the latency of VEC",
    "act": "rows · ceil(cols / lanes) cycles, and the latency of ACT; every function costs the same",
}  # fmt: skip


def document() -> str:
    """docs/isa.md."""
    return "\n".join(_document())


def describe(mnemonic: str) -> str:
    """One instruction's reference, for a terminal. Raises InputError for an unknown name."""
    if mnemonic not in ISA:
        raise InputError(f"unknown instruction '{mnemonic}'", "", guess_instruction(mnemonic))
    return "\n".join(_for_terminal(ISA[mnemonic]))


def summary() -> str:
    """One line per instruction."""
    return "\n".join(f"{row.mnemonic:<8}{row.engine.value:<5}{row.summary}" for row in ISA.values())


def for_editor(mnemonic: str) -> str:
    """One instruction in Markdown, without its bits. Raises InputError for an unknown name."""
    if mnemonic not in ISA:
        raise InputError(f"unknown instruction '{mnemonic}'", "", guess_instruction(mnemonic))
    row = ISA[mnemonic]
    operands = "\n".join(f"- {operand_text(row, field)}" for field in row.fields)
    pieces = [f"**{mnemonic}** ({row.engine.value}): {row.summary}", f"```\n{row.pseudocode}\n```", operands]
    return "\n\n".join(filter(None, [*pieces, f"Timing: {_timing(row)}"]))


def operand_text(row: Instruction, field: Field) -> str:
    """One line about an operand, for editors: its name, what it is, what it means."""
    meaning = _meaning(row, field)
    return f"`{field.name}`: {_kind(field)}" + (f"; {meaning}" if meaning else "")


def diagram(row: Instruction) -> str:
    """The word as a drawing: four lines of 32 bits, the lowest last."""
    cells = [*_cells(HEADER, 0), *_cells(row.fields, HEADER_BITS)]
    used = HEADER_BITS + sum(f.bits for f in row.fields)
    cells.append((used, 8 * WORD_BYTES - used, "0"))
    drawn = []
    for low in range(8 * WORD_BYTES - _ROW_BITS, -1, -_ROW_BITS):
        pieces = [
            (max(start, low), min(start + bits, low + _ROW_BITS), name)
            for start, bits, name in cells
            if start < low + _ROW_BITS and start + bits > low
        ]
        drawn.append(_ruler(pieces, low))
        drawn.append(
            "|"
            + "|".join(
                _fit(name, (end - start) * _BIT_WIDTH - 1) for start, end, name in reversed(pieces) if end > start
            )
            + "|"
        )
    return "\n".join([*drawn, "+" + "-" * (_ROW_BITS * _BIT_WIDTH - 1) + "+"])


def _cells(fields: tuple[Field, ...], low: int) -> Iterator[tuple[int, int, str]]:
    for field in fields:
        yield low, field.bits, field.name
        low += field.bits


def _ruler(pieces: list[tuple[int, int, str]], low: int) -> str:
    """The line above a row: a corner at each field's highest bit, with its number where there is room."""
    line = ["-"] * (_ROW_BITS * _BIT_WIDTH + 1)
    for start, end, _ in pieces:
        if end > start:
            column = (low + _ROW_BITS - end) * _BIT_WIDTH
            line[column] = "+"
            number = str(end - 1)
            if (end - start) * _BIT_WIDTH > len(number) + 1:
                line[column + 1 : column + 1 + len(number)] = number
    line[-1] = "+"
    return "".join(line)


def _fit(name: str, width: int) -> str:
    return name[:width].center(width)


def _document() -> Iterator[str]:
    yield "# Instruction set"
    yield "\n<!-- Generated by `python -m isa.doc.manual` from isa/spec.py. Edit the table, not this page. -->\n"
    yield f"ISA version {ISA_VERSION}. A program is a list of {8 * WORD_BYTES}-bit little-endian words;"
    yield f"the pc is the byte address, {WORD_BYTES} times the instruction's number."
    yield f"The dispatcher has {VIEWS} view registers, {SCALARS} scalar registers and {LOOP_LEVELS} loop levels. It executes control instructions itself"
    yield "and puts every other instruction into the in-order queue of its engine, with its operands as they stand at that moment.\n"
    yield "## Engines\n\n| engine | what it does | instructions |\n|---|---|---|"
    for engine in Engine:
        names = ", ".join(f"[{row.mnemonic}](#{row.mnemonic})" for row in ISA.values() if row.engine is engine)
        yield f"| {engine.value} | {_ENGINES[engine]} | {names} |"
    yield (
        "\n## Memory\n\nSpaces: "
        + ", ".join(s.name.lower() for s in Space)
        + ". DRAM regions: "
        + ", ".join(r.name.lower() for r in Region)
        + "."
    )
    yield (
        "Element types: "
        + ", ".join(f"{d.name.lower()} ({d.bits} bits)" for d in Dtype)
        + ". i4 packs two elements in a byte, the even one in the low half."
    )
    yield "A view register says where a block of memory lies: element (p, r, c) is at base + (p·ps + r·rs + c·cs) elements. v0 is the absent operand."
    yield "A stride of 0 repeats: that is how rows, columns and single values are broadcast.\n"
    yield "## Header\n\nEvery instruction begins with the same bits; its operands follow.\n"
    yield from _bits(None, HEADER, 0)
    yield f"\nA dependence count n ≤ {MAX_COUNT} for an engine: start when at most n of its instructions, among those dispatched before this one, are"
    yield f"outstanding; {NO_WAIT}: no wait. In assembly: `@ ldw<=0, vec<=2`. Instructions of mxu, vec and act run one after the other on their engine;"
    yield f"instructions of the DMA queues start and complete in order but overlap. The queues, in order: {', '.join(q.value for q in QUEUES)}.\n"
    yield "## Choices\n\n| operand | values |\n|---|---|"
    for name, choices in (
        ("vop f", VOP),
        ("vred f", VRED),
        ("act f", ACT),
        ("salu f", SALU),
        ("vaff red", TAP),
        ("vaff rnd", ROUND),
        ("vqd norm", VQD_NORM),
        ("vqd ties", TIES),
        ("mm fmt", MM_FORMAT),
        ("mmg nib", NIBBLES),
    ):
        yield f"| {name} | {', '.join(choices)} |"
    yield "\n## Instructions\n"
    yield "The drawings show the highest bit first; the examples are complete programs that the tests assemble and run.\n"
    for row in ISA.values():
        yield from _instruction(row)


def _instruction(row: Instruction) -> Iterator[str]:
    yield f"### {row.mnemonic}\n"
    yield f"{row.summary[:1].upper()}{row.summary[1:]}. Opcode {row.opcode:#04x}, engine {row.engine.value}.\n"
    yield f"```\n{row.pseudocode}\n```\n"
    yield f"```\n{diagram(row)}\n```\n"
    if row.fields:
        yield from _bits(row, row.fields, HEADER_BITS)
        yield ""
    touched = list(_touched(row))
    if touched:
        yield from (f"- {text}" for text in touched)
        yield ""
    yield f"Timing: {_timing(row)}\n"
    yield f"```asm\n{program(row.mnemonic)}```\n"


def _for_terminal(row: Instruction) -> Iterator[str]:
    yield f"{row.mnemonic}: {row.summary[:1].upper()}{row.summary[1:]}"
    yield f"opcode {row.opcode:#04x}, engine {row.engine.value}\n"
    yield from (f"    {text}" for text in row.pseudocode.split("\n"))
    yield f"\n{diagram(row)}\n"
    low = HEADER_BITS
    for field in row.fields:
        yield f"  {f'{low + field.bits - 1}:{low}':9}{field.name:9}{_kind(field)}"
        meaning = _meaning(row, field)
        if meaning:
            yield f"  {'':18}{meaning}"
        low += field.bits
    yield from (f"\n  {text}" if not number else f"  {text}" for number, text in enumerate(_touched(row)))
    yield f"\nTiming: {_timing(row)}"
    yield "\nExample:"
    yield from (f"    {text}" for text in program(row.mnemonic).rstrip().split("\n"))


def _touched(row: Instruction) -> Iterator[str]:
    """What the instruction reads and writes in memory."""
    for access, verb in _READS.items():
        names = [
            f"{f.name} ({' × '.join(f.dims)})" + (" if present" if f.default is not None else "")
            for f in row.views
            if f.access is access
        ]
        if names:
            yield f"{verb} {', '.join(names)}"
    for field in row.views:
        for when in field.when:
            if when.access is not None:
                yield f"with {_setting(row, when)} it {_READS[when.access]} {field.name}"


def _timing(row: Instruction) -> str:
    extra = f"; {row.cost.passes} passes over the block" if row.cost.passes != 1 else ""
    ops = ", ".join(f"{count} {name}" for name, count in row.cost.ops.items())
    return f"{_TIMING[row.cost.formula]}{extra}." + (f" Energy: {ops} per element." if ops else "")


def _bits(row: Instruction | None, fields: tuple[Field, ...], low: int) -> Iterator[str]:
    yield "| bits | field | is | meaning |\n|---|---|---|---|"
    for field in fields:
        yield f"| {low + field.bits - 1}:{low} | {field.name} | {_kind(field)} | {_meaning(row, field)} |"
        low += field.bits


def _kind(field: Field) -> str:
    if field.kind is Kind.VIEW:
        return "view, optional" if field.default is not None else "view"
    kind: str = field.kind.value
    if not field.default:
        return kind
    default = (
        field.choices[field.default]
        if field.choices
        else f"{field.default:#x}"
        if field.default > 255
        else field.default
    )
    return f"{kind}, default {default}"


def _meaning(row: Instruction | None, field: Field) -> str:
    parts = [field.doc] if field.doc else []
    if field.access is not None:
        parts.append(f"{_READS[field.access]} {' × '.join(field.dims)}")
        parts.append(
            f"{'/'.join(d.name.lower() for d in field.dtypes)} in {'/'.join(s.name.lower() for s in field.spaces)}"
        )
    if field.choices:
        parts.append(" ".join(field.choices))
    for when in field.when:
        assert row is not None
        change = " × ".join(when.dims) if when.dims else _READS[when.access] if when.access else ""
        parts.append(f"with {_setting(row, when)}: {change}")
    return "; ".join(parts)


def _setting(row: Instruction, when: When) -> str:
    field = row.field(when.field)
    return (
        field.name
        if field.kind is Kind.FLAG
        else f"{field.name}={field.choices[when.value] if field.choices else when.value}"
    )


def main(path: Path = PATH) -> None:
    path.write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PATH)
