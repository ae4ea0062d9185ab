"""What a program does for nothing: waits and fences that others imply, instructions that are never reached, stores that
nobody reads. Warnings only.

Collected over all replays of a program (entries, ends of scalar ranges), because an instruction is useless only if it
is so in all of them.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from isa.architecture import QUEUES, REGIONS, WORD_BYTES, Space
from isa.codec import IllegalInstruction, Inst, decode
from isa.fields import Access
from isa.image.image import Image
from isa.image.records import Entry
from isa.replay import Dispatch
from lint.check import Findings, Touch
from lint.races import Proof, Touches, needless_fences
from lint.shadow_memory import Budget, Memory, TooLarge, blocks, memory_of, shadow_of
from lint.sweeps import OperandSweep

_FENCES = 16  # of a program that are looked at: each costs a pass over the instructions


class DeadCode:
    """Feeds on replays; `report` turns what was useless in every one of them into findings."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.reached: set[int] = set()
        self.implied: dict[tuple[int, int], bool] = {}
        self.fences: dict[int, bool] = {}  # by pc, whether it orders nothing
        self.useful: dict[tuple[int, str], bool] = {}  # (pc, operand written): whether any of it is ever read

    def observe(self, entry: Entry, instructions: Sequence[Dispatch], touches: Touches, proof: Proof) -> None:
        self.reached.update(instruction.pc for instruction in instructions)
        for key, implied in proof.order.implied.items():
            self.implied[key] = self.implied.get(key, True) and implied
        needless = needless_fences(instructions, proof, _FENCES)
        for pc in {instruction.pc for instruction in instructions if instruction.inst.mnemonic == "fence"}:
            self.fences[pc] = pc in needless and self.fences.get(pc, True)
        try:
            for (pc, operand), read in _reads(self.image, entry, instructions, touches, proof.sweeps):
                self.useful[pc, operand] = self.useful.get((pc, operand), False) or read
        except TooLarge:
            self.useful = dict.fromkeys(self.useful, True)  # dead stores are not looked for

    def report(self, findings: Findings) -> None:
        for (pc, queue), implied in self.implied.items():
            if implied:
                inst = self.image.inst(pc)
                wait = f"{QUEUES[queue].value}<={inst.deps[queue]}"
                message = f"the wait {wait} can never matter: program order and the other waits already imply it"
                findings.add("wait", pc, inst, message, None, wait, severity="warning")
        for pc, useless in self.fences.items():
            if useless:
                message = "the fence can never matter: what follows is ordered without it"
                findings.add("wait", pc, self.image.inst(pc), message, None, "fence", severity="warning")
        for first, end in self._unreached():
            message = f"{(end - first) // WORD_BYTES} instructions from here on are never executed"
            findings.add("unreachable", first, self._inst(first), message, severity="warning")
        for pc, operand in self._dead():
            message = f"operand {operand}: nothing ever reads what this instruction writes there"
            findings.add("dead", pc, self.image.inst(pc), message, None, operand, severity="warning")

    def _dead(self) -> Iterator[tuple[int, str]]:
        """Instructions of which no operand is read, and optional operands that are not: the others are written in any
        case."""
        used = {pc for (pc, _), read in self.useful.items() if read}
        for (pc, operand), read in self.useful.items():
            optional = self.image.inst(pc).row.field(operand).default is not None
            if not read and (optional or pc not in used):
                yield pc, operand

    def _unreached(self) -> Iterator[tuple[int, int]]:
        start = None
        for pc in range(0, len(self.image.code) + WORD_BYTES, WORD_BYTES):
            inside = pc < len(self.image.code) and pc not in self.reached
            if inside and start is None:
                start = pc
            elif not inside and start is not None:
                yield start, pc
                start = None

    def _inst(self, pc: int) -> Inst | None:
        try:
            return decode(self.image.word(pc))
        except IllegalInstruction:
            return None


def _reads(
    image: Image,
    entry: Entry,
    instructions: Sequence[Dispatch],
    touches: Touches,
    sweeps: Mapping[int, Sequence[OperandSweep]],
) -> Iterator[tuple[tuple[int, str], bool]]:
    """Each operand that is written, and whether some byte of it is read before it is overwritten, or outlives the
    launch."""
    budget = Budget()
    shadows = {
        memory: shadow_of(image, memory, touches.grains[memory], touches.ends[memory], budget)
        for memory in touches.written
    }
    writes: list[tuple[int, str]] = []
    writers: dict[Memory, NDArray[np.int32]] = {}  # per granule the write that it holds, counted from 1
    for memory, shadow in shadows.items():
        budget.take(4 * shadow.cells)
        writers[memory] = np.zeros(shadow.cells, np.int32)
    swept = [sweep for found in sweeps.values() for sweep in found if sweep.writes]
    alive = np.zeros(
        1 + len(swept) + sum(t.access is not Access.R for group in touches.by_instruction.values() for t in group),
        np.bool_,
    )
    for index, instruction in enumerate(instructions):
        for sweep in sweeps.get(index, ()):  # the iterations of a loop that were left out
            if sweep.stride_per_period and sweep.memory in shadows:
                shadow, held = shadows[sweep.memory], writers[sweep.memory]
                cells = [shadow.part(held, sweep) for sweep in sweep.sweeps()]
                _follow(sweep.touch.instruction.pc, sweep.touch, cells, writes, alive)
        mine = [touch for touch in touches.by_instruction.get(index, ()) if memory_of(touch.view) in shadows]
        for touch in sorted(mine, key=lambda touch: touch.access is Access.W):  # an instruction reads before it writes
            memory = memory_of(touch.view)
            _follow(
                instruction.pc,
                touch,
                [shadows[memory].part(writers[memory], block) for block in blocks(touch)],
                writes,
                alive,
            )
    for memory, held in writers.items():
        alive[_survivors(entry, memory, held, shadows[memory].grain)] = True
    yield from zip(writes, alive[1:].tolist(), strict=False)


def _follow(
    pc: int, touch: Touch, cells: Sequence[NDArray[np.int32]], writes: list[tuple[int, str]], alive: NDArray[np.bool_]
) -> None:
    """One operand: the writes that it reads are of use, and what it writes is a new one."""
    if touch.access is not Access.W:
        for block in cells:
            alive[block] = True
    if touch.access is not Access.R:
        writes.append((pc, touch.field.name))
        for block in cells:
            block[...] = len(writes)


def _survivors(entry: Entry, memory: Memory, held: NDArray[np.int32], grain: int) -> NDArray[np.int32]:
    """Writes whose bytes somebody reads after the launch."""
    if memory[0] is not Space.DRAM:
        return held[:0]
    if REGIONS[memory[1]].read_later:
        return held
    parts = [
        held[t.offset // grain : -(-(t.offset + t.nbytes) // grain)] for t in entry.outputs if t.region is memory[1]
    ]
    return np.concatenate([held[:0], *parts])
