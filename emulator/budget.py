"""How much a launch may do. Programs of strangers may loop for ever; what a launch spends is counted, and it ends.

An instruction costs 1, and 1 more for each full 2**20 elements that it computes, so that few instructions cannot take
for ever, either.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from emulator.memory import Fault

DEFAULT = 10_000_000  # minutes of interpreting; the largest programs that we compile spend a tenth
STEP = 20  # bits


def work(operands: Mapping[str, int]) -> int:
    """Elements, or multiply-adds, of an instruction with these operands."""
    if "k" in operands:
        return operands.get("b", 1) * operands["m"] * operands["n"] * operands["k"]
    return operands.get("planes", 1) * operands.get("rows", 1) * operands.get("cols", 1) * operands.get("n", 1)


def cost(operands: Mapping[str, int]) -> int:
    """What an instruction with these operands costs."""
    return 1 + (work(operands) >> STEP)


class Spent(Fault):
    """The launch has done all that it may."""


@dataclass(slots=True)
class Budget:
    """What a launch may still spend; `most` is what it began with."""

    most: int
    left: int

    @classmethod
    def of(cls, most: int) -> "Budget":
        return cls(most, most)

    def spend(self, operands: Mapping[str, int]) -> None:
        """Pay for an instruction. Raises Spent when nothing is left."""
        self.left -= cost(operands)
        if self.left < 0:
            raise Spent(
                f"the budget of {self.most:,} instructions is spent (one of more than 2**20 elements counts for each of these)"
            )
