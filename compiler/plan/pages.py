"""Pages of memory that remember who touched them last. Written for numba, runs without it (`jit`).

Row q of the table, one of two rows for each queue, has for each page one more than the number of the last instruction
of queue q that wrote it, row `queues` + q that of the last one that read it; 0: there was none. Tables of zeros that
nobody writes to take no memory.

    pages    0 0 0 7 7 7 9 0     instruction 6 touched pages 3, 4 and 5, then 8 page 6
    blocks   0   7   7   9       the largest of each block (here of two pages)
"""

import numpy as np
from numpy import int32
from numpy.typing import NDArray

from compiler.plan.jit import Vector, compiled

Table = NDArray[int32]
BLOCK = 64  # pages: an access to many looks at whole blocks at once


class Pages:
    """A memory of `count` pages, touched by `queues` queues."""

    def __init__(self, count: int, queues: int) -> None:
        self.pages: Table = np.zeros((2 * queues, count), np.int32)
        self.blocks: Table = np.zeros((2 * queues, -(-count // BLOCK)), np.int32)

    def last_before(self, first: int, end: int, writes: bool, needs: Vector) -> None:
        """Raises needs[q] to the last instruction of queue q that conflicts with an access to pages first .. end: that
        wrote one of them or, if the access writes, read one."""
        _last_before(self.pages, self.blocks, first, end, writes, needs)

    def mark(self, row: int, first: int, end: int, number: int) -> None:
        """Instruction `number` has touched pages first .. end; in its row none has had a larger number."""
        _mark(self.pages, self.blocks, row, first, end, number)


@compiled("int64(int32[:, ::1], int64, int64, int64)")
def _largest(table: Table, row: int, first: int, end: int) -> int:
    found = 0
    for value in table[row, first:end]:
        found = max(found, value)
    return found


@compiled("void(int32[:, ::1], int32[:, ::1], int64, int64, boolean, V)")
def _last_before(pages: Table, blocks: Table, first: int, end: int, writes: bool, needs: Vector) -> None:
    queues = len(needs)
    first, end = max(first, 0), min(end, pages.shape[1])
    begin, behind = (first + BLOCK - 1) // BLOCK, end // BLOCK  # the blocks that lie between, whole
    for row in range(2 * queues if writes else queues):
        if begin < behind:
            latest = max(
                _largest(pages, row, first, begin * BLOCK),
                _largest(blocks, row, begin, behind),
                _largest(pages, row, behind * BLOCK, end),
            )
        else:
            latest = _largest(pages, row, first, end)
        needs[row % queues] = max(needs[row % queues], latest - 1)


@compiled("void(int32[:, ::1], int32[:, ::1], int64, int64, int64, int64)")
def _mark(pages: Table, blocks: Table, row: int, first: int, end: int, number: int) -> None:
    first, end = max(first, 0), min(end, pages.shape[1])
    if first < end:
        pages[row, first:end] = number + 1
        blocks[row, first // BLOCK : (end - 1) // BLOCK + 1] = number + 1  # the largest so far
