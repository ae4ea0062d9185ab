"""Weights of read-only memory, packed for the kernel and kept with their piece, and where the steps find them."""

from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np

from emulator.pieces import Bytes, Piece
from emulator.replay import executor
from emulator.replay import layout as col
from emulator.replay.gemm import packed_bytes
from emulator.replay.grouped import SW, ZW, W
from emulator.replay.grouped_panels import packed_group_bytes
from emulator.replay.recipes import Table
from emulator.replay.rows import WIDTH
from emulator.replay.steps import place_of

ROOM: Final = 1 << 24  # bytes that packed weights may take beyond four times the weights: programs may read any block


class Panels:
    """Those of one machine. `table` is a hash table for `steps.use_panels`, `missing` is where it asks."""

    def __init__(self) -> None:
        self.table: Table = np.zeros((256, col.PANEL_WIDTH), np.int64)
        self.missing: Table = np.zeros((256, col.PANEL_WIDTH), np.int64)
        self._kept: list[tuple[Bytes, Table]] = []
        self._bytes = 0

    def add(self, count: int, pieces: Sequence[Piece]) -> bool:
        """Pack the first `count` of those that are missing; false if there is no room for any."""
        before, most = len(self._kept), 4 * sum(piece.data.size for piece in set(pieces)) + ROOM
        for row in self.missing[:count]:
            asked = any((entry[: col.PANEL_KEY] == row[: col.PANEL_KEY]).all() for _, entry in self._kept[before:])
            if asked or self._bytes > most:
                continue
            own, *others = (
                pieces[number] if number >= 0 else None for number in map(int, row[col.PANEL_PIECES : col.PANEL_WIDTH])
            )
            assert own is not None
            if row[col.PANEL_FLAGS]:
                panels, stride = packed_groups(own, [piece for piece in others if piece], row), 0
            else:
                source, *numbers = map(int, row[: col.PANEL_FLAGS])
                panels, stride = packed(own, source - own.data.ctypes.data, *numbers)
            entry = row.copy()
            entry[col.PANEL_ADDRESS], entry[col.PANEL_STRIDE] = panels.ctypes.data, stride
            self._kept.append((panels, entry))
            self._bytes += panels.size
        if len(self._kept) == before:
            self.missing = self.missing[:0]  # so that nobody asks again
            return False
        while 2 * len(self._kept) > len(self.table):
            self.table = np.zeros((2 * len(self.table), col.PANEL_WIDTH), np.int64)
            before = 0
        for _, entry in self._kept[before:]:
            self.table[place_of(self.table, entry)] = entry
        return True


def packed(piece: Piece, source: int, ps: int, ks: int, ns: int, k: int, n: int, planes: int) -> tuple[Bytes, int]:
    """Packed weights, and bytes from plane to plane. As many as the weights, padded to whole panels."""
    size, count = int(packed_bytes(k, n)), planes if ps else 1
    key = ("panels", source, ps, ks, ns, k, n, count)
    fill = partial(_fill, piece.data.ctypes.data + source, size, ps, ks, ns, k, n, count)
    return piece.derived(key, count * size, fill), size if ps else 0


def _fill(source: int, size: int, ps: int, ks: int, ns: int, k: int, n: int, count: int, made: Bytes) -> None:
    for plane in range(count):
        executor.pack(made.ctypes.data + plane * size, source + plane * ps, ks, ns, k, n)


def packed_groups(piece: Piece, others: Sequence[Piece], row: Table) -> Bytes:
    """Packed weights of a grouped product: codes of `piece`, and what scales them, of `others` perhaps."""
    step = np.zeros(WIDTH, np.int64)
    step[3], step[5], step[6] = row[col.PANEL_N], row[col.PANEL_K], row[col.PANEL_FLAGS]
    step[[W, W + 2, W + 4]] = row[[col.PANEL_SOURCE, col.PANEL_NS, col.PANEL_DTYPE]]
    for at, slot in enumerate((SW, ZW)):
        step[[slot, slot + 2, slot + 3, slot + 4]] = row[col.PANEL_SCALES + 4 * at : col.PANEL_SCALES + 4 * at + 4]
    others = [other for other in dict.fromkeys(others) if other is not piece]
    key = "groups", *map(int, row[: col.PANEL_KEY])
    return piece.derived(key, int(packed_group_bytes(step)), partial(_fill_groups, (piece, *others), step), others)


def _fill_groups(_alive: Sequence[Piece], step: Table, made: Bytes) -> None:
    executor.pack_grouped(made.ctypes.data, step)
