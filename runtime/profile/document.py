"""A profile as plain values: what `llmcc profile --json` says, `llmcc compare` reads and the pages show.

The types are the format; docs/schemas/profile.json is made from them. Figures of rows add up to those of the run.
"""

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct, field, to_builtins

Counts = Mapping[str, int]


class Row(Struct, frozen=True, kw_only=True):
    """One line of a table: a node, a layer or a source line. `cycles` are its share of the total, `busy` those in which
    engines work for it (which overlap)."""

    name: str
    cycles: int
    waterfall: Counts
    busy: Counts
    macs: int
    dram_bytes: int
    instructions: int
    energy_joules: float
    op: str = ""
    shape: tuple[int, ...] = ()
    file: str = ""
    line: int = 0
    code: str = ""
    layer: str = ""
    module: str = ""


class Instruction(Struct, frozen=True, kw_only=True):
    """An execution of an instruction."""

    pc: int
    word: str
    node: str
    indices: tuple[int, ...]


class Link(Instruction, frozen=True, kw_only=True):
    """A piece of a chain of waits, which passes through this instruction."""

    cause: str
    cycles: int


class Stall(Struct, frozen=True, kw_only=True):
    """The limiting resource stands idle until the instruction `before`; the chain behind it, the latest link first."""

    begin: int = field(name="from")
    end: int = field(name="to")
    cycles: int
    before: Instruction
    chain: tuple[Link, ...]


class ProfileDocument(Struct, frozen=True, kw_only=True):
    """A run. `waterfall` is that of `waterfall_resource`: its parts are the cycles in which that resource works
    (`compute`), and those in which it stands idle, by cause."""

    document: Literal["llmchip profile"] = "llmchip profile"
    program: str
    model: str
    entry: str
    chip: str
    parameters: Mapping[str, Any]  # of the chip
    settings: Mapping[str, Any]  # recipe, options, versions and weights, as far as the image has them
    code_sha256: str
    nodes_by_status: Counts
    cycles: int
    seconds: float
    launches_per_second: float
    limit_cycles: int
    limit_resource: str
    limit_source: str
    limits: Counts
    of_limit: float
    utilisation: Mapping[str, float]
    waterfall_resource: str
    waterfall: Counts
    excess_cycles: int
    energy_joules: Mapping[str, float]
    total_joules: float
    watts: float
    instructions: int
    instructions_by_engine: Counts
    program_words: int
    macs: int
    dram_bytes: int
    dram_bytes_by_engine: Counts
    bandwidth_bytes_per_second: float
    arithmetic_intensity: float
    layers: tuple[Row, ...]
    nodes: tuple[Row, ...]
    lines: tuple[Row, ...]
    stalls: tuple[Stall, ...]

    def as_dict(self) -> dict[str, Any]:
        """As dictionaries and lists."""
        found: dict[str, Any] = to_builtins(self)
        return found
