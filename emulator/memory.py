"""The chip's memories as byte arrays, and checked access to strided blocks of them.

A block is a numpy array that aliases the memory, shaped (planes, rows, cols). A source dimension of stride 0 comes back
with extent 1, so that numpy's broadcasting repeats it without work. Every access is checked: range, alignment, and for
memories that start out undefined a shadow byte per byte that says whether it was ever written.
"""

from collections.abc import Collection, Iterator, Mapping
from mmap import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from emulator.formats import STORAGE, Block, unpack_i4
from emulator.lazy import lazy_bytes
from emulator.pieces import Bytes, Piece, Pieces
from emulator.threads import Lock
from isa.architecture import KEPT_REGIONS, Dtype, Region, Space
from isa.views import Extents, View


class Fault(Exception):
    """Something a program may not do; the machine turns it into a Trap that says where."""


class Store:
    """One memory: its bytes and, unless it starts initialised, its shadow. One that is read-only lies in pieces, maybe
    one."""

    __slots__ = ("_data", "_end", "name", "pieces", "shadow", "size", "written")

    def __init__(self, name: str, data: Bytes | Pieces, initialised: bool) -> None:
        if not isinstance(data, Pieces) and not data.flags.writeable:
            data = Pieces(data.size, {0: Piece(data)})
        self.name, self.size, self._data = name, int(data.size), data
        self.pieces = data if isinstance(data, Pieces) else None
        # A bytearray because its find() scans for a zero byte much faster than numpy reduces.
        self.shadow: bytearray | mmap | None = None if initialised else lazy_bytes(self.size)
        self.written: Bytes | None = None if self.shadow is None else np.frombuffer(self.shadow, np.uint8)
        self._end = 0  # nothing behind it was ever written: pages that are never touched cost nothing

    @property
    def data(self) -> Bytes:
        """All bytes; of several pieces a copy."""
        return self._data.whole() if isinstance(self._data, Pieces) else self._data

    def at(self, low: int, high: int) -> tuple[Bytes, int]:
        """An array that has bytes [low, high), and where they begin in it."""
        if not isinstance(self._data, Pieces):
            return self._data, low
        piece, start = self._data.at(low, high)
        return piece.data, start

    def forget(self) -> None:
        if self.written is not None:
            self.written[: self._end].fill(0)
            self._end = 0

    def edges(self) -> NDArray[np.intp]:
        """Where what was written begins and ends, by turns."""
        assert self.written is not None
        return np.flatnonzero(np.diff(self.written[: self._end], prepend=0, append=0))

    def restore(self, edges: NDArray[np.intp], keep: bool) -> None:
        """Make what counted as written then count as written now; with `keep` beside what does already."""
        assert self.written is not None
        end = int(edges[-1]) if edges.size else 0
        mask = np.zeros(end, np.uint8)
        if end:
            mask[edges[:-1]] = 1
            np.bitwise_xor.accumulate(mask, out=mask)
        if not keep:
            self.forget()
        np.maximum(self.written[:end], mask, out=self.written[:end])
        self._end = max(self._end, end)

    def check(self, view: View, extents: Extents) -> tuple[int, int]:
        """Range and alignment; gives the first byte and one past the last. Raises Fault for an access that leaves the
        memory or is not aligned."""
        low, high = view.span(extents)
        if low < 0 or high > self.size:
            raise Fault(f"access to bytes {low:#x} to {high:#x} of {self.name}, which has {self.size:#x}")
        if view.dtype is not Dtype.I4 and low % (view.dtype.bits // 8):
            raise Fault(
                f"base {low:#x} in {self.name} is not aligned to the {view.dtype.bits // 8} bytes of {view.dtype.name.lower()}"
            )
        return low, high

    def require_written(self, view: View, extents: Extents, low: int, high: int) -> None:
        """The whole span first, which is nearly always enough and one fast scan; only then element by element. Raises
        Fault for bytes that were never written."""
        if self.shadow is None or self.shadow.find(b"\0", low, high) < 0:
            return
        for begin, end, bytes_ in self._touched(view, extents):
            if not bytes_.all():
                raise Fault(f"read of bytes between {begin:#x} and {end:#x} of {self.name} that were never written")

    def grew(self, end: int) -> None:
        """Someone else marked bytes below `end` as written."""
        self._end = max(self._end, end)

    def mark_written(self, view: View, extents: Extents) -> None:
        self._end = max(self._end, view.span(extents)[1])
        for _, _, bytes_ in self._touched(view, extents):
            bytes_.fill(1)

    def _touched(self, view: View, extents: Extents) -> Iterator[tuple[int, int, Bytes]]:
        """The shadow bytes of a block. i4 rows may start in the middle of a byte, so they are taken one by one."""
        if self.written is None:
            return
        planes, rows, cols = extents
        if view.dtype is Dtype.I4:
            for plane in range(planes):
                for row in range(rows):
                    first = view.base * 2 + plane * view.ps + row * view.rs
                    begin, end = first // 2, (first + (cols - 1) * view.cs) // 2 + 1
                    yield begin, end, self.written[begin:end]
            return
        size = view.dtype.bits // 8
        low, high = view.span(extents)
        shape = (planes if view.ps else 1, rows if view.rs else 1, cols * size if view.cs else size)
        yield low, high, np.ndarray(shape, np.uint8, self.written, low, (view.ps * size, view.rs * size, 1))


class Scratch:
    """Temporaries that live as long as the bank: fresh large arrays would cost more in page faults than in
    arithmetic."""

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[np.uint8]] = {}

    def get(self, slot: str, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """An uninitialised array; asking for the slot again gives the same memory."""
        dtype = np.dtype(dtype)
        size = dtype.itemsize
        for extent in shape:
            size *= extent
        buffer = self._buffers.get(slot)
        if buffer is None or buffer.size < size:
            buffer = self._buffers[slot] = np.empty(size, np.uint8)
        return np.ndarray(shape, dtype, buffer)


class Bank:
    """SRAM, ACC and temporaries. No launch relies on what another left there, so machines may have one in common, if
    they take turns."""

    def __init__(self, sram_bytes: int, acc_bytes: int) -> None:
        self.sram = Store("sram", np.zeros(sram_bytes, np.uint8), False)
        self.acc = Store("acc", np.zeros(acc_bytes, np.uint8), False)
        self.scratch = Scratch()
        self.lock = Lock()
        self._regions: dict[tuple[Region, int], Bytes] = {}

    def region(self, region: Region, size: int) -> Bytes:
        """DRAM that no launch relies on to hold what another left there. A power of two, so that all sizes together
        take little more than the largest."""
        rounded = 1 << max(size - 1, 0).bit_length()
        return self._regions.setdefault((region, rounded), np.zeros(rounded, np.uint8))[:size]


class Memory:
    """SRAM, ACC and the DRAM regions. `regions` are shared with the caller, never copied."""

    def __init__(self, bank: Bank, regions: Mapping[Region, Bytes | Pieces], initialised: Collection[Region]) -> None:
        self._sram, self._acc = bank.sram, bank.acc
        empty = np.zeros(0, np.uint8)
        self._dram = {r: Store(f"dram.{r.name.lower()}", regions.get(r, empty), r in initialised) for r in Region}

    def launch(self) -> None:
        """A launch may not rely on what an earlier one left behind, except in STATE."""
        self._sram.forget()
        self._acc.forget()
        self.forget_dram()

    def shadows(self) -> dict[Region, NDArray[np.intp]]:
        """What counts as written now in DRAM that starts undefined."""
        return {region: store.edges() for region, store in self._dram.items() if store.shadow is not None}

    def restore(self, shadows: Mapping[Region, NDArray[np.intp]]) -> None:
        """Make what counted as written then count as written now. What persists between launches is never forgotten."""
        for region, edges in shadows.items():
            self._dram[region].restore(edges, region in KEPT_REGIONS)

    @property
    def stores(self) -> tuple[Store, ...]:
        """SRAM, ACC, then the regions of DRAM."""
        return self._sram, self._acc, *(self._dram[region] for region in Region)

    def forget_dram(self) -> None:
        """What `launch` forgets of DRAM."""
        for region, store in self._dram.items():
            if region not in KEPT_REGIONS:
                store.forget()

    def store_of(self, view: View) -> Store:
        if view.space is Space.SRAM:
            return self._sram
        return self._acc if view.space is Space.ACC else self._dram[view.region]

    def data(self, space: Space, region: Region = Region.WEIGHTS) -> Bytes:
        """The bytes of a memory, for tests and debuggers."""
        return self.store_of(View(space, region, Dtype.I8, 0)).data

    def source(self, view: View, extents: Extents, unwritten: bool = False) -> Block:
        """A block to read; dimensions of stride 0 have extent 1. `unwritten`: leave the shadow to the caller. i4 comes
        unpacked."""
        store = self.store_of(view)
        low, high = store.check(view, extents)
        if not unwritten:
            store.require_written(view, extents, low, high)
        planes, rows, cols = extents
        extents = (planes if view.ps else 1, rows if view.rs else 1, cols if view.cs else 1)
        return _nibbles(store, view, extents) if view.dtype is Dtype.I4 else _block(store, view, extents)

    def target(self, view: View, extents: Extents) -> Block:
        """A block to write; it counts as written from now on. i4 targets are written with `put_i4` instead. Raises
        Fault where the memory is read-only, and for a block that overlaps itself."""
        store = self.store_of(view)
        store.check(view, extents)
        if store.pieces is not None:
            raise Fault(f"{store.name} is read-only")
        if _overlaps_itself(view, extents):
            raise Fault(f"destination {view} with row stride {view.rs}, plane stride {view.ps} overlaps itself")
        store.mark_written(view, extents)
        return np.zeros(extents, np.int8) if view.dtype is Dtype.I4 else _block(store, view, extents)

    def load(self, view: View, extents: Extents) -> Block:
        """A copy of a block in its full extents: what debuggers and comparers read."""
        block: Block = np.broadcast_to(self.source(view, extents), extents).copy()
        return block

    def put_i4(self, view: View, extents: Extents, values: Block) -> None:
        """Write nibbles; the other half of a byte that is only half covered stays."""
        where = _positions(view, extents)
        data, _ = self.store_of(view).at(*view.span(extents))
        nibbles = np.broadcast_to(values, extents).astype(np.uint8) & 15
        for half in (0, 1):
            chosen = (where & 1) == half
            spots = where[chosen] >> 1
            data[spots] = (data[spots] & (0xF0 >> (4 * half))) | (nibbles[chosen] << (4 * half))


def _block(store: Store, view: View, extents: Extents) -> Block:
    dtype = STORAGE[view.dtype]
    size = dtype.itemsize
    data, start = store.at(*view.span(extents))
    return np.ndarray(extents, dtype, data, start, (view.ps * size, view.rs * size, view.cs * size))


def _nibbles(store: Store, view: View, extents: Extents) -> Block:
    planes, rows, cols = extents
    data, start = store.at(*view.span(extents))
    if view.cs and not (view.rs % 2 and rows > 1) and not (view.ps % 2 and planes > 1):
        shape = (planes, rows, (cols + 1) // 2)
        return unpack_i4(np.ndarray(shape, np.uint8, data, start, (view.ps // 2, view.rs // 2, 1)), cols)
    where = _positions(view, extents) + 2 * (start - view.base)
    low = data[where >> 1] >> ((where & 1) * 4).astype(np.uint8)
    signed: Block = ((low & 15) ^ 8).astype(np.int8) - np.int8(8)
    return signed


def _positions(view: View, extents: Extents) -> NDArray[np.int64]:
    planes, rows, cols = (np.arange(n, dtype=np.int64) for n in extents)
    return view.base * 2 + planes[:, None, None] * view.ps + rows[:, None] * view.rs + cols * view.cs


def _overlaps_itself(view: View, extents: Extents) -> bool:
    """Whether two elements may share an address: each stride must exceed the reach of all smaller ones."""
    reach = 0
    for stride, extent in sorted(zip((view.ps, view.rs, view.cs), extents, strict=True)):
        if extent > 1:
            if stride <= reach:
                return True
            reach += stride * (extent - 1)
    return False
