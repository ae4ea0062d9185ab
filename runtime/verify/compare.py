"""Compares blocks of the emulator's memory, as they are written, with the reference's values; bits as integers."""

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from emulator.formats import STORAGE
from emulator.memory import Memory
from isa.architecture import USER_TYPES, Dtype, Engine, Region, Space
from isa.codec import Inst
from isa.image.image import Image
from isa.image.records import DebugNode, Probe, TensorSpec, pick
from isa.views import Extents, View, extents_of
from runtime.device.arrays import Array, canonical, comparable
from runtime.pytorch.tensors import to_array
from runtime.verify.reference import LazyReference

KEPT_BYTES = 256 << 20  # finished values are kept up to this, so that a second write of a node is compared too
_FLOATS = {name: row.storage for name, row in USER_TYPES.items() if row.storage.is_float}


@dataclass
class _State:
    """A node under comparison: its reference value, and which elements have been seen and found wrong."""

    node: DebugNode
    value: Array
    seen: NDArray[np.bool_]
    wrong: NDArray[np.bool_] | None = None
    left: int = 0
    bits: dict[Dtype, Array] | None = None

    def as_type(self, dtype: Dtype) -> Array:
        """The reference value, flat, as the bits it has when stored in `dtype`."""
        self.bits = self.bits or {}
        if dtype not in self.bits:
            self.bits[dtype] = comparable(converted(self.value, _FLOATS.get(self.node.dtype), dtype).reshape(-1), dtype)
        return self.bits[dtype]


class Comparer:
    """Collects what differs while a program runs. `probe` goes to the machine."""

    def __init__(self, image: Image, reference: LazyReference) -> None:
        self._debug, self._reference = image.debug, reference
        self._probes: dict[int, list[Probe]] = {}
        for probe in image.debug.probes:
            self._probes.setdefault(probe.pc, []).append(probe)
        self._tapped = {node for probe in image.debug.probes for node in probe.nodes}
        reference.want({image.debug.nodes[node].name for node in self._tapped})
        self._states: dict[int, _State] = {}
        self._finished: OrderedDict[int, int] = OrderedDict()  # node: bytes, of states that are complete but still kept
        self._released: set[int] = set()
        self._stores: list[tuple[int, View, Extents]] = []
        self.compared: set[str] = set()
        self.differing: dict[str, int] = {}
        self.first: dict[str, Any] | None = None

    def probe(
        self,
        pc: int,
        indices: tuple[int, ...],
        inst: Inst,
        operands: Mapping[str, int],
        views: Mapping[str, View],
        memory: Memory,
    ) -> None:
        if inst.row.engine is Engine.STO and views["d"].space is Space.DRAM and views["d"].region is Region.OUT:
            self._stores.append((pc, views["d"], extents_of(inst.row.field("d"), operands)))
        for probe in self._probes.get(pc, ()):
            if probe.operand in views:
                view, extents = views[probe.operand], extents_of(inst.row.field(probe.operand), operands)
                self._compare(probe, pc, indices, view.dtype, memory.load(view, extents))

    def _compare(self, probe: Probe, pc: int, indices: tuple[int, ...], dtype: Dtype, block: Array) -> None:
        number = pick(probe.nodes, probe.level, indices)
        if number in self._released:
            return
        state = self._state(number)
        offset = probe.offset + sum(
            s.inc * (i % s.mod if s.mod else i) for s in probe.steps for i in (indices[s.level] // s.div,)
        )
        strides = (probe.ps, probe.rs, probe.cs)
        reach = offset + sum(stride * (extent - 1) for stride, extent in zip(strides, block.shape, strict=True))
        if offset < 0 or reach >= state.seen.size:
            self._differs(state.node, pc, [offset if offset < 0 else reach], None, None, 1)
            return
        expected, actual = _block(state.as_type(dtype), offset, strides, block.shape), comparable(block, dtype)
        seen = _block(state.seen, offset, strides, block.shape)
        state.left -= int(block.size - np.count_nonzero(seen))
        seen[...] = True
        unequal = actual != expected
        if unequal.any():
            self._mark(state, pc, unequal, offset, strides, expected, actual, dtype)
        if state.left <= 0:
            self._complete(number)

    def _state(self, number: int) -> _State:
        if number not in self._states:
            node = self._debug.nodes[number]
            value = to_array(self._reference.value(node.name))
            self._reference.release(node.name)
            self._states[number] = _State(node, value, np.zeros(value.size, np.bool_), left=value.size)
            self.compared.add(node.name)
        return self._states[number]

    def _mark(
        self,
        state: _State,
        pc: int,
        unequal: NDArray[np.bool_],
        offset: int,
        strides: Extents,
        expected: Array,
        actual: Array,
        dtype: Dtype,
    ) -> None:
        """Count every element once, however often it is written."""
        if state.wrong is None:
            state.wrong = np.zeros(state.seen.size, np.bool_)
        wrong = _block(state.wrong, offset, strides, unequal.shape)
        fresh = int(np.count_nonzero(unequal & ~wrong))
        wrong |= unequal
        place = np.unravel_index(int(np.argmax(unequal)), unequal.shape)
        flat = offset + sum(int(i) * s for i, s in zip(place, strides, strict=True))
        index = [int(i) for i in np.unravel_index(flat, state.node.shape)]
        self._differs(state.node, pc, index, _shown(expected[place], dtype), _shown(actual[place], dtype), fresh)

    def _differs(
        self, node: DebugNode, pc: int | None, index: list[int], expected: Any, actual: Any, count: int
    ) -> None:
        self.differing[node.name] = self.differing.get(node.name, 0) + count
        if self.first is None:
            source = f"{node.file}:{node.line}: {node.code}" if node.line else ""
            self.first = {
                "node": node.name,
                "source": source,
                "pc": pc,
                "index": index,
                "expected": expected,
                "actual": actual,
            }

    def _complete(self, number: int) -> None:
        """Keep finished values for a while: a later instruction may write the node again, and wrongly."""
        state = self._states[number]
        self._finished[number] = state.value.nbytes * 2 + state.seen.nbytes
        while sum(self._finished.values()) > KEPT_BYTES:
            oldest, _ = self._finished.popitem(last=False)
            del self._states[oldest]
            self._released.add(oldest)

    def compare_output(self, spec: TensorSpec, stored: Array, expected: Array) -> None:
        """An output as it stands in memory at the end."""
        dtype = spec.storage
        wanted = comparable(converted(expected, _FLOATS.get(spec.dtype), dtype), dtype)
        actual = comparable(stored, dtype)
        unequal = actual != wanted
        if unequal.any():
            place = np.unravel_index(int(np.argmax(unequal)), spec.shape)
            pc = self._writer(spec.offset + int(np.ravel_multi_index(place, spec.shape)) * dtype.bits // 8)
            record = (self._debug.node_at(pc) if pc is not None else None) or DebugNode(spec.name, "output")
            count = int(np.count_nonzero(unequal))
            shown = _shown(wanted[place], dtype), _shown(actual[place], dtype)
            already = record.name in self.differing
            self._differs(record, pc, [int(i) for i in place], *shown, 0 if already else count)

    def _writer(self, address: int) -> int | None:
        """The last instruction that stored to this byte of OUT."""
        for pc, view, extents in reversed(self._stores):
            low, high = view.span(extents)
            if low <= address < high and _touches(view, extents, address):
                return pc
        return None

    def finish(self) -> None:
        """What the program never wrote is as wrong as what it wrote wrongly."""
        for number in sorted(self._tapped - set(self._states) - self._released):
            node = self._debug.nodes[number]
            self._differs(node, None, [], "a value", "never written", max(1, math.prod(node.shape)))
        for state in self._states.values():
            if state.left > 0:
                index = [int(i) for i in np.unravel_index(int(np.argmin(state.seen)), state.node.shape)]
                self._differs(state.node, None, index, "a value", "never written", state.left)
        for node in self._debug.nodes:
            known = node.name in self.compared or node.name in self.differing or 0 in node.shape
            if node.status == "materialized" and not known:
                self._differs(
                    node,
                    None,
                    [],
                    "a value",
                    "no instruction of the program is known to write it",
                    math.prod(node.shape),
                )


def converted(value: Array, source: Dtype | None, target: Dtype) -> Array:
    """A reference value in the type that the chip keeps it in. Only exact conversions occur: widening, and small
    integers."""
    if source is target:
        return value
    if source is Dtype.BF16:
        value = (value.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if target is Dtype.BF16:
        narrow = np.asarray(value, np.float32, order="C").view(np.uint32)
        return (narrow >> np.uint32(16)).astype(np.uint16)
    return canonical(value.astype(STORAGE[target]), target)


def _block(flat: Array, offset: int, strides: Extents, extents: tuple[int, ...]) -> Array:
    return as_strided(flat[offset:], extents, tuple(s * flat.itemsize for s in strides))


def _touches(view: View, extents: Extents, address: int) -> bool:
    size = view.dtype.bits // 8
    planes, rows, cols = (np.arange(n) for n in extents)
    where = view.base + size * (planes[:, None, None] * view.ps + rows[:, None] * view.rs + cols * view.cs)
    return bool(((where <= address) & (address < where + size)).any())


def _shown(bits: Any, dtype: Dtype) -> int | float | str:
    """A value for people and JSON; what JSON cannot say is written out."""
    if not dtype.is_float:
        return int(bits)
    raw = np.asarray(bits)
    value = (
        float((raw.astype(np.uint32) << np.uint32(16)).view(np.float32))
        if dtype is Dtype.BF16
        else float(raw.view(STORAGE[dtype]))
    )
    return value if math.isfinite(value) else str(value)
