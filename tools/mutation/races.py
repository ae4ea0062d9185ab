"""Races by brute force: every pair of instructions, every byte. Slow, obvious, and sharing nothing with `lint.races`.

`complete[i]` is the set (bits of an integer) of instructions that are certainly complete when instruction i starts,
straight from the rules: a count leaves all but its last n instructions of an engine complete; a complete instruction
means that all it waited for is complete, and on every engine all instructions before it; compute engines run one
instruction after the other; DMA instructions start in order.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from isa.architecture import DMA_ENGINES, NO_WAIT, QUEUES, Engine, Region, Space
from isa.fields import Access
from isa.image.image import Image
from isa.replay import Dispatch, ReplayError, trace
from isa.views import Extents, View, access_of

Use = tuple[tuple[Space, Region], NDArray[np.int64], bool]  # memory, sorted addresses, writes


def races(image: Image) -> list[tuple[int, int]]:
    """Pairs of pcs that touch the same byte, one writing, with nothing to order them. ReplayError: no pairs, it never
    runs."""
    try:
        instructions = list(trace(image, control=True))
    except ReplayError:
        return []
    complete = completed_before(instructions)
    uses = [_uses(instruction) if instruction.engine is not Engine.CTL else [] for instruction in instructions]
    found = []
    for later in range(len(instructions)):
        for earlier in range(later):
            ordered = complete[later] >> earlier & 1 or not uses[later] or not uses[earlier]
            if not ordered and any(_conflict(a, b) for a in uses[earlier] for b in uses[later]):
                found.append((instructions[earlier].pc, instructions[later].pc))
    return found


def completed_before(instructions: Sequence[Dispatch]) -> list[int]:
    complete: list[int] = []
    queues: dict[Engine, list[int]] = {engine: [] for engine in QUEUES}
    dispatcher = 0
    for number, instruction in enumerate(instructions):
        mine = dispatcher
        mask = instruction.operands.get("mask", 0) if instruction.inst.mnemonic == "fence" else 0
        for i, engine in enumerate(QUEUES):
            count = 0 if mask >> i & 1 else instruction.inst.deps[i]
            if count != NO_WAIT:
                for other in queues[engine][: len(queues[engine]) - count]:
                    mine |= 1 << other | complete[other]
        if instruction.engine is Engine.CTL:
            dispatcher = mine
        else:
            for other in queues[instruction.engine]:
                mine |= complete[other] if instruction.engine in DMA_ENGINES else complete[other] | 1 << other
            queues[instruction.engine].append(number)
        for engine in QUEUES:  # a complete instruction has complete predecessors
            last = max((i for i, other in enumerate(queues[engine]) if mine >> other & 1), default=-1)
            for other in queues[engine][: last + 1]:
                mine |= 1 << other | complete[other] if other != number else 0
        complete.append(mine)
    return complete


def _uses(instruction: Dispatch) -> list[Use]:
    uses = []
    for field in instruction.inst.row.views:
        view = instruction.views.get(field.name)
        if view is not None:
            memory = view.space, view.region if view.space is Space.DRAM else Region.WEIGHTS
            uses.append(
                (
                    memory,
                    _bytes(view, instruction.extents(field)),
                    access_of(field, instruction.operands) is not Access.R,
                )
            )
    return uses


def _bytes(view: View, extents: Extents) -> NDArray[np.int64]:
    steps = zip(extents, (view.ps, view.rs, view.cs), strict=True)
    planes, rows, cols = (np.arange(n if stride else min(n, 1), dtype=np.int64) * stride for n, stride in steps)
    elements = (planes[:, None, None] + rows[:, None] + cols).ravel()
    bits = view.dtype.bits
    return np.unique((view.base * 8 + elements[:, None] * bits + np.arange(0, bits, min(bits, 8))) // 8)


def _conflict(a: Use, b: Use) -> bool:
    if a[0] != b[0] or not (a[2] or b[2]) or not a[1].size or not b[1].size or a[1][-1] < b[1][0] or b[1][-1] < a[1][0]:
        return False
    return bool(np.intersect1d(a[1], b[1], assume_unique=True).size)
