"""Pages of memory that remember who touched them last. Written for numba, runs without it (`jit`).

Row q of `pages`, one of two rows for each queue, has for each page the number of the last instruction of queue q that
wrote it, row `queues` + q that of the last one that read it; -1: there was none.
"""

from numpy import int32
from numpy.typing import NDArray

from compiler.plan.jit import Vector, compiled

Pages = NDArray[int32]


@compiled("void(int32[:, ::1], int64, int64, boolean, V)")
def last_before(pages: Pages, first: int, end: int, writes: bool, needs: Vector) -> None:
    """Raises needs[q] to the last instruction of queue q that conflicts with an access to pages first .. end: that wrote
    one of them or, if the access writes, read one."""
    queues = len(needs)
    for row in range(2 * queues if writes else queues):
        queue = row % queues
        latest = needs[queue]
        for page in range(max(first, 0), min(end, pages.shape[1])):
            latest = max(latest, int(pages[row, page]))
        needs[queue] = latest


@compiled("void(int32[:, ::1], int64, int64, int64, int64)")
def mark(pages: Pages, row: int, first: int, end: int, number: int) -> None:
    """Instruction `number` has touched pages first .. end."""
    for page in range(max(first, 0), min(end, pages.shape[1])):
        pages[row, page] = number
