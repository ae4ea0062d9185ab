"""Instruction words: `Inst`, `encode` and `decode`, all driven by the field lists of `isa.spec`."""

from dataclasses import dataclass
from typing import Self

from isa.architecture import NO_WAIT, QUEUES, WORD_BYTES
from isa.fields import Instruction
from isa.spec import BY_OPCODE, HEADER_BITS, ISA

NO_WAITS = (NO_WAIT,) * len(QUEUES)


class IllegalInstruction(ValueError):
    """Bits that are no instruction, or an operand that does not fit its field."""


@dataclass(frozen=True, slots=True)
class Inst:
    """A concrete instruction: one integer per field of its row, and six dependence counts."""

    mnemonic: str
    operands: tuple[int, ...]
    deps: tuple[int, ...] = NO_WAITS
    dbg: int = 0

    def __post_init__(self) -> None:
        fields = self.row.fields
        if len(fields) != len(self.operands):
            raise IllegalInstruction(f"{self.mnemonic} takes {len(fields)} operands, got {len(self.operands)}")
        for field, value in zip(fields, self.operands, strict=True):
            if not 0 <= value < 1 << field.bits:
                raise IllegalInstruction(f"{self.mnemonic}: {field.name}={value} does not fit in {field.bits} bits")
            if field.choices and value >= len(field.choices):
                raise IllegalInstruction(
                    f"{self.mnemonic}: {field.name}={value} is not one of {', '.join(field.choices)}"
                )
        if len(self.deps) != len(QUEUES) or not all(0 <= n <= NO_WAIT for n in self.deps):
            raise IllegalInstruction(f"{self.mnemonic}: bad dependence counts {self.deps}")

    @classmethod
    def make(cls, mnemonic: str, deps: tuple[int, ...] = NO_WAITS, /, **operands: int) -> Self:
        """Build from named operands; those left out take the table's defaults.

        Raises IllegalInstruction for an unknown, missing or too large operand.
        """
        row = ISA[mnemonic]
        values = []
        for field in row.fields:
            value = operands.pop(field.name, field.default)
            if value is None:
                raise IllegalInstruction(f"{mnemonic}: operand {field.name} is missing")
            values.append(value)
        if operands:
            raise IllegalInstruction(f"{mnemonic} has no operand {', '.join(operands)}")
        return cls(mnemonic, tuple(values), deps)

    @property
    def row(self) -> Instruction:
        return ISA[self.mnemonic]

    def named(self) -> dict[str, int]:
        return {field.name: value for field, value in zip(self.row.fields, self.operands, strict=True)}


def encode(inst: Inst) -> bytes:
    word, low = inst.row.opcode, 8
    for count in inst.deps:
        word |= count << low
        low += 3
    word |= inst.dbg << low
    low = HEADER_BITS
    for field, value in zip(inst.row.fields, inst.operands, strict=True):
        word |= value << low
        low += field.bits
    return word.to_bytes(WORD_BYTES, "little")


def decode(data: bytes) -> Inst:
    """The instruction of one word. Raises IllegalInstruction for unknown opcodes, choices or set reserved bits."""
    word = int.from_bytes(data, "little")
    opcode = word & 0xFF
    row = BY_OPCODE.get(opcode)
    if row is None:
        raise IllegalInstruction(f"unknown opcode {opcode:#04x}")
    deps = tuple((word >> (8 + 3 * i)) & 7 for i in range(len(QUEUES)))
    flags = (word >> (HEADER_BITS - 2)) & 3
    word >>= HEADER_BITS
    values = []
    for field in row.fields:
        values.append(word & ((1 << field.bits) - 1))
        word >>= field.bits
    if word or flags & 2:
        raise IllegalInstruction(f"{row.mnemonic}: reserved bits are set")
    return Inst(row.mnemonic, tuple(values), deps, flags & 1)
