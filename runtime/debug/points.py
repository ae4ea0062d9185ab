"""Where to stop: breakpoints on a pc, a node, a source line or a memory write, and watches of bytes.

A breakpoint looks at an instruction before it executes; memory breakpoints and watches look at what an instruction has
done.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from emulator.memory import Memory
from isa.architecture import Region, Space
from isa.views import Extents, View
from runtime.debug.stepper import Block, Effect


@dataclass(frozen=True)
class Range:
    """Bytes low <= address < high of one memory."""

    space: Space
    region: Region
    low: int
    high: int

    def __str__(self) -> str:
        place = f"dram.{self.region.name.lower()}" if self.space is Space.DRAM else self.space.name.lower()
        return f"{place}[{self.low:#x}..{self.high:#x})"

    def touched_by(self, block: Block) -> bool:
        """Whether an element of the block lies in the range; exact, strides included."""
        view = block.view
        if view.space is not self.space or (view.space is Space.DRAM and view.region is not self.region):
            return False
        low, high = view.span(block.extents)
        if high <= self.low or self.high <= low:
            return False
        return any_element_in(view, block.extents, self.low, self.high)


def any_element_in(view: View, extents: Extents, low: int, high: int) -> bool:
    """Whether a byte of an element of the block lies in [low, high)."""
    starts = element_bits(view, extents)
    return bool(((starts < high * 8) & (starts + view.dtype.bits > low * 8)).any())


def element_bits(view: View, extents: Extents) -> NDArray[np.int64]:
    """The address in bits of every element."""
    planes, rows, cols = (
        np.arange(n if s else 1, dtype=np.int64) for n, s in zip(extents, (view.ps, view.rs, view.cs), strict=True)
    )
    return view.base * 8 + view.dtype.bits * (
        planes[:, None, None] * view.ps + rows[:, None] * view.rs + cols * view.cs
    )


class Condition(Protocol):
    """What must hold for a point to stop (runtime/debug/formula.py)."""

    @property
    def text(self) -> str: ...

    def holds(self, session: Any) -> bool: ...


Holds = Callable[[Condition], bool]


@dataclass
class Point:
    """A breakpoint or watch. Of what it looks for one is set; it stops where its condition holds, too."""

    number: int
    text: str
    pc: int | None = None
    mnemonic: str = ""
    nodes: frozenset[int] = frozenset()
    writes: Range | None = None
    watch: Range | None = None
    seen: NDArray[np.uint8] | None = None
    condition: Condition | None = None

    def __str__(self) -> str:
        return self.text + (f" if {self.condition.text}" if self.condition is not None else "")

    def stops(self, holds: Holds) -> bool:
        return self.condition is None or holds(self.condition)

    def bytes_of(self, memory: Memory) -> NDArray[np.uint8]:
        assert self.watch is not None
        return memory.data(self.watch.space, self.watch.region)[self.watch.low : self.watch.high]


@dataclass
class Points:
    """All breakpoints and watches of a session."""

    points: list[Point] = field(default_factory=list)
    _next: int = 1

    def add(
        self, text: str, memory: Memory, *, pc: int | None = None, mnemonic: str = "", nodes: Sequence[int] = (),
        writes: Range | None = None, watch: Range | None = None, condition: Condition | None = None,
    ) -> Point:  # fmt: skip
        point = Point(self.number(), text, pc, mnemonic, frozenset(nodes), writes, watch, condition=condition)
        if watch is not None:
            point.seen = point.bytes_of(memory).copy()
        self.points.append(point)
        return point

    def number(self) -> int:
        """The next number; what is shown at each stop, and what was set, share the numbers."""
        self._next += 1
        return self._next - 1

    def number_from(self, other: "Points") -> None:
        """Go on with the numbers of another session's points."""
        self._next = other._next

    def find(self, number: int) -> Point | None:
        return next((p for p in self.points if p.number == number), None)

    def delete(self, number: int) -> Point | None:
        found = self.find(number)
        if found is not None:
            self.points.remove(found)
        return found

    def before(self, pc: int, mnemonic: str, node: int | None, holds: Holds) -> Point | None:
        """The point that stops in front of an instruction. `node` if the instruction is the first ever to work for
        it."""
        for p in self.points:
            if (p.pc == pc or node in p.nodes or (mnemonic and p.mnemonic == mnemonic)) and p.stops(holds):
                return p
        return None

    def after(self, effect: Effect, memory: Memory, holds: Holds) -> tuple[Point, str] | None:
        """The point that stops behind an instruction, and what happened."""
        found = None
        for point in self.points:
            wanted = point.writes or point.watch
            if wanted is None or not any(wanted.touched_by(block) for block in effect.writes):
                continue
            what = f"write to {wanted}" if point.watch is None else self._change(point, memory)
            if what and found is None and point.stops(holds):
                found = point, what
        return found

    def refresh(self, memory: Memory) -> None:
        """After a jump in time, watches compare with what is there now."""
        for point in self.points:
            if point.watch is not None:
                point.seen = point.bytes_of(memory).copy()

    @staticmethod
    def _change(point: Point, memory: Memory) -> str:
        now, old = point.bytes_of(memory).copy(), point.seen
        point.seen = now
        if old is None or point.watch is None or np.array_equal(now, old):
            return ""
        where = int(np.argmax(now != old))
        count = int(np.count_nonzero(now != old))
        return f"{point.watch}: {count} bytes changed, first {point.watch.low + where:#x}: {old[where]:#04x} -> {now[where]:#04x},"
