"""Graph nodes as the debugger sees them: which instruction works for which, where it starts, and its value put together
from probes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from emulator.formats import STORAGE
from emulator.memory import Memory
from isa.architecture import WORD_BYTES, Dtype
from isa.asm.text import guess
from isa.errors import InputError
from isa.image.records import BY_LINE, DebugMap, DebugNode, Probe, pick
from isa.views import Extents
from runtime.debug.edits import SetMemory, one_element
from runtime.debug.names import Meaning, first_instructions, known, meanings, value_of
from runtime.debug.stepper import Block, Effect, Stepper
from runtime.device.arrays import Array

_LISTED = 8  # of several meanings of a name


@dataclass
class Value:
    """What is known of a node's value: `flat` elements as stored, those in `seen` written so far."""

    dtype: Dtype
    flat: Array
    seen: NDArray[np.bool_]

    @property
    def written(self) -> int:
        return int(np.count_nonzero(self.seen))


class Nodes:
    """Lookups in the debug map."""

    def __init__(self, debug: DebugMap, instructions: int) -> None:
        self.debug = debug
        self.numbers = {node.name: number for number, node in enumerate(debug.nodes)}
        self.probes: dict[int, list[Probe]] = {}
        for probe in debug.probes:
            self.probes.setdefault(probe.pc, []).append(probe)
        self.lines = frozenset(
            span.first for span in debug.spans if debug.nodes[span.nodes[0]].status == BY_LINE
        )  # first instructions of lines
        self._span: list[int] = [-1] * instructions  # of each instruction, its innermost span
        for number in sorted(range(len(debug.spans)), key=lambda n: debug.spans[n].first - debug.spans[n].end):
            span = debug.spans[number]
            first, end = max(span.first // WORD_BYTES, 0), min(span.end // WORD_BYTES, instructions)
            if first < end:
                self._span[first:end] = [number] * (end - first)

    def number(self, name: str) -> int:
        """The number of a node; of what the model calls a module, a call or an operation, that of the node that has its
        value. Raises InputError for a name that means nothing, or several things."""
        if name in self.numbers:
            return self.numbers[name]
        found = self.meanings(name)
        if len(found) > 1:
            listed = ", ".join(meaning.name for meaning in found[:_LISTED])
            more = " …" if len(found) > _LISTED else ""
            raise InputError(f"'{name}' means {len(found)} things, and one is wanted", hint=f"one of {listed}{more}")
        return value_of(self.debug, found[0])

    def meanings(self, name: str) -> list[Meaning]:
        """What a name means that is no node's. Raises InputError for nothing."""
        found = meanings(self.debug, name)
        if not found:
            names = [*self.numbers, *known(self.debug)]
            hint = guess(name, names) if names else "the image has no debug map"
            raise InputError(f"there is no node '{name}'", hint=hint if len(hint) < 80 else "'nodes' lists them")
        return found

    def first(self, meaning: Meaning) -> int | None:
        """The first node of these for which instructions work, by itself or inside another; None if none does."""
        own = first_instructions(self.debug, meaning.numbers)
        if own:
            return own[0][1]
        numbers = [self.numbers[into] for n in meaning.numbers for into in self.debug.nodes[n].into]
        return next((n for _, n in first_instructions(self.debug, numbers)), None)

    def labelled(self, label: str) -> int | None:
        """The first node under a label of a hand-written program."""
        return next(
            (n for n, node in enumerate(self.debug.nodes) if node.status == BY_LINE and label in node.origins), None
        )

    def at(self, pc: int, indices: Sequence[int]) -> int | None:
        """The node that an instruction works for in these loop iterations."""
        index = pc // WORD_BYTES
        number = self._span[index] if 0 <= index < len(self._span) else -1
        if number < 0:
            return None
        span = self.debug.spans[number]
        return pick(span.nodes, span.level, indices)

    def name_at(self, pc: int, indices: Sequence[int]) -> str:
        number = self.at(pc, indices)
        return "" if number is None else self.debug.nodes[number].name

    def of_line(self, file: str, line: int) -> list[int]:
        """Nodes that come from a source line; `file` is the end of its path. Raises InputError when there is none."""
        found = [n for n, node in enumerate(self.debug.nodes) if node.line == line and _same_file(node.file, file)]
        if not found:
            lines = sorted({node.line for node in self.debug.nodes if _same_file(node.file, file)})
            raise InputError(
                f"no instruction comes from {file}:{line}",
                hint=_lines(lines) if lines else "no node comes from that file",
            )
        return found

    def explain(self, number: int) -> str:
        """Why a node has no value of its own."""
        node = self.debug.nodes[number]
        return f"{node.name} is {node.status}" + (f": {node.reason}" if node.reason else "")

    def place(self, number: int) -> str:
        node = self.debug.nodes[number]
        return f"{short_path(node.file)}:{node.line}" if node.line else ""


def short_path(path: str) -> str:
    """The end of a path, enough to name it in `break FILE:LINE`."""
    parts = path.split("/")
    return path if len(parts) <= 3 else "/".join(parts[-2:])


def _same_file(path: str, wanted: str) -> bool:
    return path == wanted or path.endswith("/" + wanted)


def _lines(lines: list[int]) -> str:
    shown = ", ".join(map(str, lines[:12]))
    return f"lines with code: {shown}{' …' if len(lines) > 12 else ''}"


@dataclass
class Collector:
    """Puts one node's value together while instructions execute."""

    nodes: Nodes
    number: int
    values: dict[Dtype, Value] = field(default_factory=dict)
    wanted: int | None = None  # the element that is looked for in memory
    found: Block | None = None  # where it was written last

    @property
    def node(self) -> DebugNode:
        return self.nodes.debug.nodes[self.number]

    @property
    def value(self) -> Value | None:
        """The most complete one, where a node is stored in several types."""
        return max(self.values.values(), key=lambda v: v.written, default=None)

    @property
    def complete(self) -> bool:
        return any(v.written == v.seen.size for v in self.values.values())

    def see(self, effect: Effect, memory: Memory) -> bool:
        """Take over what an instruction wrote of the node; says whether it did."""
        taken = False
        for probe in self.nodes.probes.get(effect.pc, ()):
            block = next((w for w in effect.writes if w.name == probe.operand), None)
            if block is not None and pick(probe.nodes, probe.level, effect.indices) == self.number:
                self._take(probe, effect.indices, block.view.dtype, memory.load(block.view, block.extents))
                self._look(probe, effect.indices, block)
                taken = True
        return taken

    def see_edits(self, stepper: Stepper) -> None:
        """Take over what the user has set of the value at this moment."""
        for time, edit in stepper.edits:
            if time == stepper.time and isinstance(edit, SetMemory) and edit.node == self.number:
                value = self.values.get(edit.block.view.dtype)
                if value is not None:
                    value.flat[edit.flat] = edit.values.reshape(())

    def _look(self, probe: Probe, indices: tuple[int, ...], block: Block) -> None:
        if self.wanted is None:
            return
        planes, rows, cols = np.ix_(*(np.arange(n) for n in block.extents))
        flat = offset_of(probe, indices) + planes * probe.ps + rows * probe.rs + cols * probe.cs
        for index in np.argwhere(flat == self.wanted)[-1:].tolist():
            self.found = one_element(block.view, tuple(index), block.extents)

    def _take(self, probe: Probe, indices: tuple[int, ...], dtype: Dtype, block: Array) -> None:
        size = math.prod(self.node.shape)
        if dtype not in self.values:
            try:
                self.values[dtype] = Value(
                    dtype, np.zeros(size, STORAGE.get(dtype, np.dtype(np.int8))), np.zeros(size, np.bool_)
                )
            except MemoryError:
                raise InputError(
                    f"node {self.node.name} with {size} elements does not fit this computer's memory"
                ) from None
        value, offset = self.values[dtype], offset_of(probe, indices)
        strides = probe.ps, probe.rs, probe.cs
        reach = offset + sum(stride * (extent - 1) for stride, extent in zip(strides, block.shape, strict=True))
        if offset >= 0 and reach < size:
            strided(value.flat, offset, strides, block.shape)[...] = block
            strided(value.seen, offset, strides, block.shape)[...] = True


def offset_of(probe: Probe, indices: Sequence[int]) -> int:
    """The flat position of a probe's first element in these loop iterations."""
    offset = probe.offset
    for step in probe.steps:
        moved = indices[step.level] // step.div
        offset += step.inc * (moved % step.mod if step.mod else moved)
    return offset


def strided(flat: Array, offset: int, strides: Extents, extents: tuple[int, ...]) -> Array:
    return as_strided(flat[offset:], extents, tuple(s * flat.itemsize for s in strides))


@dataclass(frozen=True)
class Comparison:
    """A node beside its reference, over the elements that the chip has written so far."""

    node: str
    compared: int
    elements: int
    differing: int
    first: dict[str, Any] | None

    @property
    def equal(self) -> bool:
        return not self.differing and self.compared > 0
