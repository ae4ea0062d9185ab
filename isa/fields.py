"""What a row of the instruction table is made of: operands, cost, example."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from isa.architecture import ALL_QUEUES, Dtype, Engine, Space


class Kind(Enum):
    """What an operand field holds; decides how it is written in assembly."""

    VIEW = "view"  # v0..v31
    SCALAR = "scalar"  # s0..s15
    INT = "int"  # unsigned integer
    F32 = "f32"  # bits of a float32
    FLAG = "flag"  # one bit, written by its name
    CHOICE = "choice"  # one of `choices`


class Access(Enum):
    R = "r"
    W = "w"
    RW = "rw"


@dataclass(frozen=True, slots=True)
class When:
    """An exception to a view's `dims` or `access`: holds where `field` of the instruction equals `value`."""

    field: str
    value: int
    dims: tuple[str, str, str] | None = None
    access: Access | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """One operand of an instruction.

    For views, `dims` names the extents of the block in (planes, rows, cols) order: the name of
    another field of the instruction, "1", or what `isa.views.PARTS` counts (the groups of `mmg`). `dtypes` and `spaces` are what the view may be.
    A `default` of None means that assembly must write the operand. Of a `partial` view the data say which rows are
    read.
    """

    name: str
    bits: int
    kind: Kind = Kind.INT
    default: int | None = None
    choices: tuple[str, ...] = ()
    access: Access | None = None
    dims: tuple[str, str, str] = ("1", "1", "1")
    dtypes: tuple[Dtype, ...] = ()
    spaces: tuple[Space, ...] = ()
    doc: str = ""
    when: tuple[When, ...] = ()
    partial: bool = False

    @property
    def largest(self) -> int:
        """The largest number that the field holds."""
        return (1 << self.bits) - 1


@dataclass(frozen=True, slots=True)
class Cost:
    """Timing and energy of one instruction: read by the emulator's timing mode, never by codegen.

    `formula` names the timing rule of docs/timing.md, `passes` how often the engine streams over
    the block, `ops` how many arithmetic operations each element of the block costs (for energy).
    """

    formula: str = "ctl"
    passes: int = 1
    ops: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Example:
    """Operands and counts of one line; element types of its views, where the first that the table allows is not
    wanted."""

    operands: str = ""
    waits: str = ""
    dtypes: Mapping[str, Dtype] = field(default_factory=dict)
    body: tuple[str, ...] = ()  # instructions that belong to it: the body of a loop
    note: str = ""


@dataclass(frozen=True)
class Instruction:
    """One row of the ISA.

    `drains` is what must have finished before a CTL instruction takes effect, beyond its dependence counts: the name of
    the operand with the mask of queues, "all", or "". `alters` says that the instruction may make one iteration of a
    loop unlike the one before.
    """

    mnemonic: str
    opcode: int
    engine: Engine
    fields: tuple[Field, ...]
    summary: str
    pseudocode: str
    cost: Cost = Cost()
    drains: str = ""
    alters: bool = False
    example: Example = Example()
    extension: str = ""  # that brought it, see isa/extension.py

    def field(self, name: str) -> Field:
        """The operand of this name. Raises KeyError."""
        for operand in self.fields:
            if operand.name == name:
                return operand
        raise KeyError(f"{self.mnemonic} has no operand '{name}'")

    def drained(self, operands: Mapping[str, int]) -> int:
        """The mask of the queues that must be empty before the instruction takes effect, bit i for QUEUES[i]."""
        return ALL_QUEUES if self.drains == "all" else operands[self.drains] if self.drains else 0

    @cached_property
    def defaults(self) -> Mapping[str, int]:
        """What the operands are that no one gives, views apart."""
        return {f.name: f.default or 0 for f in self.fields if f.kind is not Kind.VIEW}

    @cached_property
    def views(self) -> tuple[Field, ...]:
        """The operands that touch memory."""
        return tuple(f for f in self.fields if f.kind is Kind.VIEW and f.access is not None)
