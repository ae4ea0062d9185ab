"""Traces: a launch that was interpreted once, recorded, so that later ones decode and check nothing. For machines without
compiled kernels; those with them do better (`plans`).

A program's control flow, views and extents depend on its instructions and on the scalars that it loads, never on
tensors. So the instructions that the first launch executed, with the blocks of memory that they named, are the
instructions of every launch with the same scalars; and so is what was proved on the way: ranges, alignment, and that no
byte is read before it is written (of a table, whose rows data choose: that all of it was written; else there is no
trace). Kept for each instruction is what is left to do: its handler's call.

What depends on data is checked again: rows of a table that `gather` fetches, and scalars that `sld` loads, before
anything else.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emulator.context import Call, Core
from emulator.decoded import Decoded, bind
from emulator.memory import Fault, Memory
from isa.architecture import GIVEN_REGIONS, KEPT_REGIONS, Engine, Region, Space
from isa.fields import Access
from isa.views import View

MAX_TRACES: Final = 16  # per machine
LONGEST: Final = 1 << 18  # instructions; a longer launch is interpreted every time


@dataclass(frozen=True, slots=True)
class Recorded:
    """One engine instruction as it was executed, at instruction `at` of the program."""

    at: int
    instruction: Decoded
    call: Call


@dataclass(slots=True)
class Recording:
    """What one launch executed. `reads` are the scalars that it loaded; None of it is of use once `unusable`."""

    instructions: list[Recorded] = field(default_factory=list)
    reads: list[tuple[View, int]] = field(default_factory=list)
    unusable: bool = False

    def add(self, core: Core, at: int, instruction: Decoded, call: Call) -> None:
        if instruction.inst.mnemonic == "sld":
            view = call.views["v"]
            self.unusable |= view.space is not Space.DRAM or view.region not in (*GIVEN_REGIONS, *KEPT_REGIONS)
            self.reads.append((moved(view, call.operands["off"]), core.scalars[call.operands["d"]]))
        elif instruction.engine is not Engine.CTL:
            self.unusable |= len(self.instructions) >= LONGEST or not _whole_tables(core.memory, instruction, call)
            if not self.unusable:
                self.instructions.append(Recorded(at, instruction, call))

    @property
    def usable(self) -> bool:
        """Not if a scalar was loaded from what the program itself wrote."""
        written = {
            view.region
            for item in self.instructions
            for name, view in item.call.views.items()
            if _writes_dram(item.instruction, name, view)
        }
        return not self.unusable and not any(view.region in written for view, _ in self.reads)


def _whole_tables(memory: Memory, instruction: Decoded, call: Call) -> bool:
    """Whether rows that data choose can be any, because the whole table has been written by now."""
    try:
        for name in (operand.field.name for operand in instruction.views if operand.lazy):
            memory.source(call.views[name], call.extents[name])
    except Fault:
        return False
    return True


def moved(view: View, elements: int) -> View:
    return View(view.space, view.region, view.dtype, view.base + elements * view.cs * (view.dtype.bits // 8))


def _writes_dram(instruction: Decoded, name: str, view: View) -> bool:
    return view.space is Space.DRAM and any(
        o.field.name == name and o.access is not Access.R for o in instruction.views
    )


@dataclass(slots=True)
class Trace:
    """One recorded launch, and the loaded scalars that it holds for."""

    memory: Memory
    recording: Recording
    exit: int
    shadows: dict[Region, NDArray[np.intp]]  # what was written at the end of the launch
    runs: "list[Handled] | None" = None

    def fits(self) -> bool:
        return all(
            int(self.memory.source(view, (1, 1, 1), True)[0, 0, 0]) == value for view, value in self.recording.reads
        )

    def handlers(self) -> "list[Handled]":
        if self.runs is None:
            self.runs = [
                Handled(item.at, item.instruction, item.call, not aliased(self.memory, item.call))
                for item in self.recording.instructions
            ]
            self.recording.instructions.clear()
        return self.runs


Key = tuple[bytes, int, tuple[int, ...]]  # the program, where it starts, the scalars


class TraceCache:
    """The launches of one machine so far."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._traces: dict[Key, list[Trace]] = {}
        self._latest: Trace | None = None  # whose shadows the memory has

    def find(self, key: Key) -> Trace | None:
        """The launch that this one would repeat."""
        return next((trace for trace in self._traces.get(key, ()) if trace.fits()), None)

    def keep(self, key: Key, recording: Recording, exit_code: int) -> None:
        """Remember a launch that ended well, if it can be repeated."""
        if not recording.usable:
            return
        if sum(map(len, self._traces.values())) >= MAX_TRACES:
            self._traces.clear()
        self._latest = Trace(self._memory, recording, exit_code, self._memory.shadows())
        self._traces.setdefault(key, []).append(self._latest)

    def forget_shadows(self) -> None:
        """Something else is going to run."""
        self._latest = None

    def execute(self, trace: Trace, core: Core) -> Iterator[int]:
        """Run everything; gives the instruction that is about to execute wherever one could trap."""
        if self._latest is not trace:
            self._latest = None
            self._memory.restore(trace.shadows)
            self._latest = trace
        for run in trace.handlers():
            yield run.at
            run(core)


@dataclass(slots=True)
class Handled:
    """An instruction that its handler executes, with the blocks of the recorded launch, or bound anew where these are
    copies."""

    at: int
    instruction: Decoded
    call: Call
    again: bool

    def __call__(self, core: Core) -> None:
        if self.again:
            call = Call(self.call.operands, self.call.views, self.call.extents, {})
            bind(core, self.instruction, call)
            self.instruction.handler(core, call)
        else:
            self.instruction.handler(core, self.call)


def aliased(memory: Memory, call: Call) -> bool:
    """Whether all blocks are the memory itself: none was unpacked, or copied because a destination lies over part of
    it."""
    return all(_is_memory(memory, call, name, block) for name, block in call.blocks.items())


def _is_memory(memory: Memory, call: Call, name: str, block: Any) -> bool:
    view = call.views[name]
    data, _ = memory.store_of(view).at(*view.span(call.extents[name]))
    start, size = data.ctypes.data, data.size
    return bool(block.size) and not block.flags.owndata and start <= block.ctypes.data < start + size
