"""Which bytes of SRAM are a copy of read-only memory at the moment, and packed weights that were made of such."""

from dataclasses import dataclass
from functools import partial

from emulator.memory import Memory
from emulator.pieces import Bytes, Piece
from emulator.replay import executor
from emulator.replay.gemm import packed_bytes
from emulator.replay.recording import Recorded
from isa.architecture import Dtype, Space
from isa.fields import Access
from isa.views import Extents, View


@dataclass(slots=True)
class _Copied:
    """Bytes [low, high) of SRAM hold what lies at `source` of a piece, as long as they are all `left`."""

    instruction: int
    low: int
    high: int
    piece: Piece
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


class WeightTracker:
    """Follows the instructions of a launch in order."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._live: list[_Copied] = []
        self._all: list[_Copied] = []

    def of(self, view: View, extents: Extents) -> tuple[Piece, int] | None:
        """Where in read-only memory the bytes of a block of SRAM lie, with the same strides."""
        low, high = view.span(extents)
        for copied in self._live:
            if copied.whole and copied.low <= low and high <= copied.high:
                return copied.piece, copied.source + low - copied.low
        return None

    def executed(self, number: int, item: Recorded, is_copy: bool, bypassed: frozenset[str]) -> None:
        """Take note of what instruction `number` read (but for operands that are `bypassed`) and wrote."""
        call = item.call
        named = [
            (operand, operand.field.name) for operand in item.instruction.views if operand.field.name not in bypassed
        ]
        operands = [
            (operand.access, call.views[name], call.extents[name])
            for operand, name in named
            if call.views[name].space is Space.SRAM
        ]
        for copied in self._live:  # an instruction reads all its sources before it writes
            copied.read |= any(
                access is not Access.W and copied.meets(*view.span(extents)) for access, view, extents in operands
            )
        for access, view, extents in operands:
            low, high = view.span(extents)
            for copied in self._live if access is not Access.R else ():
                if copied.meets(low, high):
                    self._write(copied, low, high, _dense(view, extents))
        self._live = [copied for copied in self._live if copied.left]
        if is_copy:
            self._copied(number, item)

    @staticmethod
    def _write(copied: _Copied, low: int, high: int, dense: bool) -> None:
        """Gaps of a block that is not dense keep what they had, so those bytes may be read yet; but the copy is no
        longer whole."""
        if dense:
            copied.overwritten(low, high)
        else:
            copied.left.append((copied.low, copied.low + 1))

    def _copied(self, number: int, item: Recorded) -> None:
        source, target, extents = item.call.views["a"], item.call.views["d"], item.call.extents["d"]
        store = self._memory.store_of(source)
        if store.pieces is not None and _dense(source, extents) and _dense(target, extents):
            low, high = target.span(extents)
            piece, start = store.pieces.at(*source.span(extents))
            self._live.append(_Copied(number, low, high, piece, start, [(low, high)]))
            self._all.append(self._live[-1])

    def unread(self) -> frozenset[int]:
        """Copies that need not be made."""
        return frozenset(copied.instruction for copied in self._all if not copied.read)


def _dense(view: View, extents: Extents) -> bool:
    planes, rows, cols = extents
    return (
        (cols == 1 or view.cs == 1)
        and (rows == 1 or view.rs == cols)
        and (planes == 1 or view.ps == rows * cols)
        and view.dtype is not Dtype.I4
    )


def packed(piece: Piece, source: int, ps: int, ks: int, ns: int, k: int, n: int, planes: int) -> tuple[Bytes, int]:
    """Weights of a piece, packed for the kernel and kept with it, and bytes from plane to plane. As many as the
    weights, padded to whole panels."""
    size, count = packed_bytes(k, n), planes if ps else 1
    key = ("panels", source, ps, ks, ns, k, n, count)
    fill = partial(_fill, piece.data.ctypes.data + source, size, ps, ks, ns, k, n, count)
    return piece.derived(key, count * size, fill), size if ps else 0


def _fill(source: int, size: int, ps: int, ks: int, ns: int, k: int, n: int, count: int, made: Bytes) -> None:
    for plane in range(count):
        executor.pack(made.ctypes.data + plane * size, source + plane * ps, ks, ns, k, n)
