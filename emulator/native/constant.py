"""Which bytes of SRAM are a copy of read-only memory at the moment, and packed weights that were made of such."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emulator.memory import Memory
from emulator.native import executor
from emulator.native.gemm import packed_bytes
from emulator.plan import Recorded
from isa.spec import Access, Dtype, Space
from isa.views import Extents, View


@dataclass(slots=True)
class _Copied:
    """Bytes [low, high) of SRAM hold what lies at `source`, as long as they are all `left`."""

    word: int
    low: int
    high: int
    source: int
    left: list[tuple[int, int]]
    read: bool = False

    @property
    def whole(self) -> bool:
        return self.left == [(self.low, self.high)]

    def meets(self, low: int, high: int) -> bool:
        return any(begin < high and low < end for begin, end in self.left)

    def overwritten(self, low: int, high: int) -> None:
        pieces = [piece for begin, end in self.left for piece in ((begin, min(end, low)), (max(begin, high), end))]
        self.left = [(begin, end) for begin, end in pieces if begin < end]


class Origins:
    """Follows the words of a launch in order."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._live: list[_Copied] = []
        self._all: list[_Copied] = []

    def of(self, view: View, extents: Extents) -> int | None:
        """The address in read-only memory whose bytes a block of SRAM holds, with the same strides."""
        low, high = view.span(extents)
        for copied in self._live:
            if copied.whole and copied.low <= low and high <= copied.high:
                return copied.source + low - copied.low
        return None

    def executed(self, number: int, item: Recorded, is_copy: bool, bypassed: frozenset[str]) -> None:
        """Take note of what word `number` read (but for operands that are `bypassed`) and wrote."""
        call = item.call
        for operand in item.word.views:
            name = operand.field.name
            view = call.views[name]
            if view.space is not Space.SRAM or name in bypassed:
                continue
            low, high = view.span(call.extents[name])
            for copied in self._live:
                if copied.meets(low, high):
                    copied.read |= operand.access is not Access.W
                    if operand.access is not Access.R:
                        self._write(copied, low, high, _dense(view, call.extents[name]))
        self._live = [copied for copied in self._live if copied.left]
        if is_copy:
            self._copied(number, item)

    @staticmethod
    def _write(copied: _Copied, low: int, high: int, dense: bool) -> None:
        """Gaps of a block that is not dense keep what they had, so those bytes may be read yet; but the copy is no longer whole."""
        if dense:
            copied.overwritten(low, high)
        else:
            copied.left.append((copied.low, copied.low + 1))

    def _copied(self, number: int, item: Recorded) -> None:
        source, target, extents = item.call.views["a"], item.call.views["d"], item.call.extents["d"]
        store = self._memory.store_of(source)
        if source.space is Space.DRAM and not store.data.flags.writeable and _dense(source, extents) and _dense(target, extents):
            low, high = target.span(extents)
            self._live.append(_Copied(number, low, high, store.data.ctypes.data + source.base, [(low, high)]))
            self._all.append(self._live[-1])

    def unread(self) -> frozenset[int]:
        """Copies that need not be made."""
        return frozenset(copied.word for copied in self._all if not copied.read)


def _dense(view: View, extents: Extents) -> bool:
    planes, rows, cols = extents
    return (cols == 1 or view.cs == 1) and (rows == 1 or view.rs == cols) and (planes == 1 or view.ps == rows * cols) and view.dtype is not Dtype.I4


class Weights:
    """Packed weights by where they come from. As many bytes as the weights themselves, padded to whole panels."""

    def __init__(self) -> None:
        self._packed: dict[tuple[int, ...], NDArray[np.uint8]] = {}

    def packed(self, source: int, ps: int, ks: int, ns: int, k: int, n: int, planes: int) -> tuple[int, int]:
        """Address and bytes from plane to plane."""
        key = (source, ps, ks, ns, k, n, planes)
        size = packed_bytes(k, n)
        found = self._packed.get(key)
        if found is None:
            count = planes if ps else 1
            found = self._packed[key] = np.empty(count * size, np.uint8)
            for plane in range(count):
                executor.pack(found.ctypes.data + plane * size, source + plane * ps, ks, ns, k, n)
        return found.ctypes.data, size if ps else 0
