"""What a program does for nothing: waits that others imply, words that are never reached, stores that nobody reads. Warnings only.

Collected over all replays of a program (entries, ends of scalar ranges), because a word is useless only if it is so in all of them.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from isa.check import Findings, Touch
from isa.codec import IllegalWord, Inst, decode
from isa.hazards import Memory, Order, Shadow, Touches, memory_of, runs
from isa.image import Image
from isa.records import Entry
from isa.spec import QUEUES, WORD_BYTES, Access, Region, Space
from isa.trace import Dispatch

_KEPT = (Region.STATE, Region.DEBUG)  # read by the next launch, or by a debugger


class Waste:
    """Feeds on replays; `report` turns what was useless in every one of them into findings."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.reached: set[int] = set()
        self.implied: dict[tuple[int, int], bool] = {}
        self.useful: dict[tuple[int, str], bool] = {}  # (pc, operand written): whether any of it is ever read

    def observe(self, entry: Entry, words: Sequence[Dispatch], touches: Touches, order: Order) -> None:
        self.reached.update(word.pc for word in words)
        for key, implied in order.implied.items():
            self.implied[key] = self.implied.get(key, True) and implied
        for (pc, operand), read in _reads(self.image, entry, words, touches):
            self.useful[pc, operand] = self.useful.get((pc, operand), False) or read

    def report(self, findings: Findings) -> None:
        for (pc, queue), implied in self.implied.items():
            if implied:
                inst = self.image.inst(pc)
                wait = f"{QUEUES[queue].value}<={inst.deps[queue]}"
                message = f"the wait {wait} can never matter: program order and the other waits already imply it"
                findings.add("wait", pc, inst, message, None, wait, severity="warning")
        for first, end in self._unreached():
            message = f"{(end - first) // WORD_BYTES} words from here on are never executed"
            findings.add("unreachable", first, self._inst(first), message, severity="warning")
        for pc, operand in self._dead():
            message = f"operand {operand}: nothing ever reads what this word writes there"
            findings.add("dead", pc, self.image.inst(pc), message, None, operand, severity="warning")

    def _dead(self) -> Iterator[tuple[int, str]]:
        """Words of which no operand is read, and optional operands that are not: the others are written in any case."""
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
        except IllegalWord:
            return None


def _reads(image: Image, entry: Entry, words: Sequence[Dispatch], touches: Touches) -> Iterator[tuple[tuple[int, str], bool]]:
    """Each operand that is written, and whether some byte of it is read before it is overwritten, or outlives the launch."""
    writes: list[tuple[int, str]] = []
    writers: dict[Memory, NDArray[np.int32]] = {}  # per granule the write that it holds, counted from 1
    shadows = {memory: Shadow(image, memory, touches.grains[memory]) for memory in touches.written}
    for memory, shadow in shadows.items():
        writers[memory] = np.zeros(shadow.cells, np.int32)
    alive = np.zeros(1 + sum(t.access is not Access.R for group in touches.by_word.values() for t in group), np.bool_)
    for index, word in enumerate(words):
        mine = [touch for touch in touches.by_word.get(index, ()) if memory_of(touch.view) in shadows]
        for touch in mine:
            if touch.access is not Access.W:
                _mark(alive, shadows, writers, touch)
        for touch in mine:
            if touch.access is not Access.R:
                writes.append((word.pc, touch.field.name))
                memory = memory_of(touch.view)
                for run in runs(touch):
                    shadows[memory].cut(writers[memory], run)[...] = len(writes)
    for memory, held in writers.items():
        alive[_survivors(entry, memory, held, shadows[memory].grain)] = True
    yield from zip(writes, alive[1:].tolist(), strict=False)


def _mark(alive: NDArray[np.bool_], shadows: Mapping[Memory, Shadow], writers: Mapping[Memory, NDArray[np.int32]], touch: Touch) -> None:
    memory = memory_of(touch.view)
    for run in runs(touch):
        alive[shadows[memory].cut(writers[memory], run)] = True


def _survivors(entry: Entry, memory: Memory, held: NDArray[np.int32], grain: int) -> NDArray[np.int32]:
    """Writes whose bytes somebody reads after the launch."""
    if memory[0] is not Space.DRAM:
        return held[:0]
    if memory[1] in _KEPT:
        return held
    parts = [held[t.offset // grain : -(-(t.offset + t.nbytes) // grain)] for t in entry.outputs if t.region is memory[1]]
    return np.concatenate([held[:0], *parts])
