"""Read-only memory in pieces: each is there once, however many chips have it in their DRAM, at whatever address.

    Pieces(96, {0: weight_q, 64: scale})    bytes 0 to 63 are the one piece, 64 to 95 the other; a program sees one
    region

What is made of a piece (weights packed for a kernel) is kept with the piece, so that it, too, is there once and goes
with it.
"""

from bisect import bisect_right
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from emulator.threads import Lock

Bytes = NDArray[np.uint8]
Fill = Callable[[Bytes], None]


class Piece:
    """Bytes that programs read and only the host changes, in place and between launches."""

    __slots__ = ("__weakref__", "_also", "_derived", "_lock", "_own", "data")

    def __init__(self, data: Bytes) -> None:
        self._own, self.data = data, data.view()
        self.data.flags.writeable = False
        self._derived: dict[Hashable, tuple[Bytes, Fill]] = {}
        self._also: dict[Hashable, tuple[Bytes, Fill]] = {}  # made of this piece, too, and kept with another one
        self._lock = Lock()

    def derived(self, key: Hashable, size: int, fill: Fill, others: "Sequence[Piece]" = ()) -> Bytes:
        """`size` bytes that `fill` makes of this piece and `others`, made once."""
        with self._lock:
            if key not in self._derived:
                made = np.empty(size, np.uint8)
                for other in others:
                    other._also[key] = made, fill
                fill(made)
                self._derived[key] = made, fill
            return self._derived[key][0]

    def change(self, data: Bytes) -> None:
        """Other bytes at the same address; what was made of them is made again, where it is."""
        if np.array_equal(data, self.data):
            return
        with self._lock:
            self._own[...] = data
            for made, fill in (*self._derived.values(), *self._also.values()):
                fill(made)

    @property
    def nbytes(self) -> int:
        """With what was made of it."""
        return int(self.data.nbytes) + sum(made.nbytes for made, _ in self._derived.values())


class Pieces:
    """A region by what lies where in it; bytes between are zero. `joined`: some access went over a border, so a copy is
    in use."""

    def __init__(self, size: int, places: Mapping[int, Piece]) -> None:
        self.size = size
        self.offsets = sorted(places)
        self.all = tuple(places[offset] for offset in self.offsets)
        self.joined: Piece | None = None

    def at(self, low: int, high: int) -> tuple[Piece, int]:
        """The piece that has bytes [low, high), and where in it they begin."""
        number = bisect_right(self.offsets, low) - 1
        if number >= 0:
            piece, start = self.all[number], low - self.offsets[number]
            if start + high - low <= piece.data.size:
                return piece, start
        if self.joined is None:
            self.joined = Piece(self.whole())
        return self.joined, low

    def whole(self) -> Bytes:
        """All of it as one array: the only piece, or a copy."""
        if len(self.all) == 1 and self.all[0].data.size == self.size:
            return self.all[0].data
        made = np.zeros(self.size, np.uint8)
        for offset, piece in zip(self.offsets, self.all, strict=True):
            made[offset : offset + piece.data.size] = piece.data
        return made
