"""What a run costs in energy: operations and bytes of every instruction, times the chip file's figures, plus static
power.

Bytes are those that the engines move: an operand broadcast by a stride of 0 is read once, a second pass reads again,
the MXU reads its left operand once per tile of n and its accumulators once per fold of k. DRAM bytes are whole bursts,
as on the bus.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from emulator.timing.timeline import Timeline
from isa.architecture import INTS, Space
from isa.chip import Chip
from isa.fields import Access
from isa.replay import Dispatch
from isa.spec import VOP
from isa.timing import SAVED_PASS, ceil_div
from isa.views import Extents, View, access_of

COMPONENTS = ("mxu", "vec", "act", "sram", "acc", "dram", "instructions", "static")
PICO = 1e-12
_PART = {"mxu": "mxu", "vec": "vec", "act": "act"}
_MEMORY = {Space.SRAM: "sram", Space.ACC: "acc"}


@dataclass(frozen=True, eq=False)
class Activity:
    """Per dispatched instruction: useful multiply-accumulates, and energy in joules by component (all but static
    power)."""

    macs: NDArray[np.int64]
    joules: NDArray[np.float64]  # one column per component, static power excepted
    static_joules: float

    def totals(self) -> dict[str, float]:
        """Joules by component, static power included."""
        return {name: float(self.joules[:, i].sum()) for i, name in enumerate(COMPONENTS[:-1])} | {
            "static": self.static_joules
        }


def activity(timeline: Timeline) -> Activity:
    """Operations, bytes and energy of a run."""
    chip = timeline.chip
    known: dict[object, int] = {}
    rows: list[tuple[int, list[float]]] = []
    which = []
    for instruction, moved in zip(timeline.instructions, timeline.bytes.tolist(), strict=True):
        key = (
            id(instruction.operands),
            moved,
            *((v.rs, v.ps, v.cs, v.dtype, v.space) for v in instruction.views.values()),
        )
        if key not in known:
            known[key] = len(rows)
            rows.append(_instruction(instruction, moved, chip))
        which.append(known[key])
    macs = np.array([row[0] for row in rows], np.int64)[which]
    joules = np.array([row[1] for row in rows], np.float64).reshape(-1, len(COMPONENTS) - 1)[which]
    return Activity(macs, joules, chip.energy.static_watts * timeline.seconds)


def _instruction(instruction: Dispatch, moved: int, chip: Chip) -> tuple[int, list[float]]:
    energy, cost = chip.energy, instruction.inst.row.cost
    parts = dict.fromkeys(COMPONENTS[:-1], 0.0)
    elements = _elements(instruction.operands) if not instruction.empty else 0
    if cost.formula in _PART:
        parts[_PART[cost.formula]] = elements * sum(
            count * getattr(energy, _operation(name, instruction)) for name, count in cost.ops.items()
        )
    price = {"sram": energy.sram_byte, "acc": energy.acc_byte}
    for space, count in _traffic(instruction, chip):
        parts[_MEMORY[space]] += count * price[_MEMORY[space]]
    parts["dram"] = moved * energy.dram_byte
    parts["instructions"] = energy.word
    return (elements if cost.formula == "mxu" else 0), [parts[name] * PICO for name in COMPONENTS[:-1]]


def _operation(name: str, instruction: Dispatch) -> str:
    """The chip file's figure for an operation of the table: that of a product where the instruction multiplies, of
    integers where its operands are."""
    if instruction.inst.mnemonic == "vop" and VOP[instruction.operands["f"]] == "mul":
        name = name.replace("_add", "_mul")
    integer = name.startswith("f32_") and all(view.dtype in INTS for view in instruction.views.values())
    return name.replace("f32_", "i32_") if integer else name


def _elements(operands: Mapping[str, int]) -> int:
    if "k" in operands:
        return operands.get("b", 1) * operands["m"] * operands["n"] * operands["k"]
    return operands.get("planes", 1) * operands.get("rows", 0) * operands.get("cols", 0)


def _traffic(instruction: Dispatch, chip: Chip) -> list[tuple[Space, float]]:
    """(memory, bytes) of every on-chip operand."""
    row, op = instruction.inst.row, instruction.operands
    moves: list[tuple[Space, float]] = []
    for field in row.views:
        view = instruction.views.get(field.name)
        if view is None or view.space is Space.DRAM:
            continue
        access = access_of(field, op)
        once = _bytes(view, instruction.extents(field))
        reads, writes = float(access is not Access.W), float(access is not Access.R)
        if row.cost.formula == "mxu":
            folds, across = ceil_div(op["k"], chip.mxu.rows), ceil_div(op["n"], chip.mxu.cols)
            reads, writes = {"c": (folds - 1 + reads, folds), "a": (across, 0)}.get(field.name, (reads, writes))
        elif reads and row.cost.passes > 1 and SAVED_PASS not in instruction.views:
            reads *= row.cost.passes
        moves.append((view.space, once * (reads + writes)))
    return moves


def _bytes(view: View, extents: Extents) -> float:
    """Distinct bytes, as far as strides of 0 tell."""
    strides = (view.ps, view.rs, view.cs)
    count = prod(extent if stride or not extent else 1 for extent, stride in zip(extents, strides, strict=True))
    return count * view.dtype.bits / 8
