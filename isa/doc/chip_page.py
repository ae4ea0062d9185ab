"""docs/chip.md, generated from the chip's own table: every parameter with unit, range, meaning and source.

Nothing is said here that isa/chip.py says: this module lays it out.
"""

from collections.abc import Iterator

from msgspec import Struct

from isa.chip import Chip, chip_names, load_chip, parameters
from isa.parameters import Parameter
from isa.technology import CONSTANTS, SRAM_CURVE
from isa.units import written

INTRODUCTION = """\
# The chip's parameters

Generated from `isa/chip.py` by `make docs`; do not edit.

A chip is a TOML file with these keys; what it leaves out has the default. They change cycles and figures, never a bit
of a result. Every verb of `llmcc` that takes `--chip` takes `--set` too, in Python a chip has `replace`:

    llmcc profile minilm --chip edge --set mxu.rows=64 --set sram.bytes=4MiB --set clock_hz=1.2GHz
    llmchip.compile(model, inputs, chip=llmchip.chip("edge").replace({"sram.bytes": "4MiB"}, mxu={"rows": 64}))

Values are written with or without their unit: `4MiB` is 4 · 2^20 bytes, `4MB` 4 · 10^6; `800MHz`, `1.2GHz`; `68GB/s`;
`900fJ`, `1.5pJ`; `500mW`. `llmcc chips edge --set ...` prints the whole chip. [sweep.md](sweep.md) tries many.
"""

TECHNOLOGY = """
## Energy, static power and area by size

A chip file states its energies at its own sizes. When `--set` or `replace` changes a size, `energy.sram_byte`,
`energy.acc_byte` and `energy.static_watts` follow, unless they are set too: a byte of SRAM or ACC costs by the curve
below; static power is that of memories, array and lanes by their sizes, and all else, which is DRAM and its
interface, by bandwidth. A file that you edit says its own. Energy of arithmetic is by operation and its width, that
of DRAM by byte, whatever the sizes. Area is of 7 nm, from the constants below. Ports of memories are not modelled
(timing.md: wide enough for all engines at once), nor are wires. Every total is good to a factor of two at best; ± is
how far a constant may be off, as a factor. Energies of the `energy` table whose meaning begins with "assumed" are
assumptions, too; the others are those of the table that is named, good to a factor of two in another design.
"""


def document() -> str:
    """docs/chip.md."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield INTRODUCTION
    own = {name: getattr(Chip(), name) for name in Chip.__struct_fields__}
    tables = {name: type(value) for name, value in own.items() if isinstance(value, Struct)}
    yield from _table([p for p in parameters().values() if "." not in p.key])
    for name, kind in tables.items():
        yield f"\n## {name}\n\n{' '.join((kind.__doc__ or '').split())}\n"
        yield from _table([p for p in parameters().values() if p.key.startswith(f"{name}.")])
    yield from _technology()


def _technology() -> Iterator[str]:
    yield TECHNOLOGY
    yield "| constant | value | ± | source |\n|---|---|---|---|"
    for name, one in CONSTANTS.items():
        yield f"| `{name}` | {one.value:g} {one.unit} | ×{one.margin:g} | {'assumed: ' if one.assumed else ''}{one.source} |"
    yield "\n| SRAM of | pJ/byte |\n|---|---|"
    yield from (f"| {written(capacity, 'B')} | {energy:.4g} |" for capacity, energy in SRAM_CURVE)
    parts = {name: load_chip(name).area() for name in chip_names()}
    yield "\n| area in mm² | " + " | ".join([*next(iter(parts.values())), "in all"]) + " |\n|---" + "|---" * 8 + "|"
    for name, found in parts.items():
        yield f"| {name} | " + " | ".join(f"{value:.2f}" for value in (*found.values(), sum(found.values()))) + " |"


def _table(rows: list[Parameter]) -> Iterator[str]:
    stock = {name: dict(_values(load_chip(name))) for name in chip_names()}
    yield f"| parameter | {' | '.join(stock)} | range | meaning |"
    yield f"|---|{'---|' * len(stock)}---|---|"
    for row in rows:
        values = " | ".join(row.text(own[row.key]) for own in stock.values())
        yield f"| `{row.key}` | {values} | {row.range} | {row.meaning} |"


def _values(chip: Chip) -> Iterator[tuple[str, object]]:
    for key in parameters():
        found: object = chip
        for name in key.split("."):
            found = getattr(found, name)
        yield key, found
