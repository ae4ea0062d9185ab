"""Weights of read-only memory, packed for the kernel and kept with their piece, and where the steps find them."""

from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np

from emulator.pieces import Bytes, Piece
from emulator.replay import executor
from emulator.replay import layout as col
from emulator.replay.gemm import packed_bytes
from emulator.replay.recipes import Table
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
            source, ps, ks, ns, k, n, planes, number = map(int, row[: col.PANEL_PIECE + 1])
            asked = any((entry[: col.PANEL_KEY] == row[: col.PANEL_KEY]).all() for _, entry in self._kept[before:])
            if asked or self._bytes > most:
                continue
            piece = pieces[number]
            panels, stride = packed(piece, source - piece.data.ctypes.data, ps, ks, ns, k, n, planes)
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
