"""Runs a table of steps without going back to Python between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emulator import threads
from emulator.replay import gemm
from emulator.replay.blocks import COLUMNS
from emulator.replay.cached import compiled
from emulator.replay.gemm import run_matmul
from emulator.replay.grouped import FEW, PANELS, SS, group_size, run_grouped
from emulator.replay.grouped_panels import pack_panels, run_panels
from emulator.replay.intrinsics import arrive, give_way, look
from emulator.replay.rows import FIRST_SLOT, SLOT_WIDTH, STRETCH, jit, run_copy, run_quantize, run_rows


class Kind(IntEnum):
    """The first column of a step."""

    ROWS = 0
    QUANTIZE = 1
    COPY = 2
    MATMUL = 3
    SKIPPED = 4  # a copy that nobody reads
    GROUPED = 5


ROWS, QUANTIZE, COPY, MATMUL, SKIPPED, GROUPED = (int(kind) for kind in Kind)
SHARED: Final = 1 << 13  # elements of work that are worth the meeting of two threads
CUT: Final = 1 << 13  # elements of the pieces in which one long row is shared
SOLO: Final = 7  # the step is too small to share
PACKED: Final = FIRST_SLOT + 3 * SLOT_WIDTH  # of a matrix instruction: its packed weights, or 0
Steps = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Workspace:
    """Temporary memory for the largest step."""

    row: NDArray[np.float32]
    other: NDArray[np.float32]
    sums: NDArray[np.float32]
    start: NDArray[np.int32]
    tile: NDArray[np.int32]
    left: NDArray[np.int8]
    packed: NDArray[np.uint8]


def workspace(longest: int, rows: int, left: int, packed: int) -> Workspace:
    """For rows to quantize of `longest` elements, products of at most `rows` rows (whole register blocks), `left` bytes
    of left operands and `packed` bytes of weights."""
    return Workspace(
        np.empty(max(longest, STRETCH), np.float32),
        np.empty(max(longest, STRETCH), np.float32),
        np.empty(64, np.float32),
        np.empty(max(rows, 1), np.int32),
        np.empty(max(rows, 1) * COLUMNS, np.int32),
        np.empty(max(left, 1), np.int8),
        np.empty(max(packed, 1), np.uint8),
    )


def run(steps: Steps, spaces: Sequence[Workspace]) -> None:
    """Execute all steps in order, with as many threads as there are workspaces. Each does its share of every step."""
    shared = spaces if bool((steps[:, SOLO] == 0).any()) else spaces[:1]
    barrier = np.zeros(16, np.int64)
    threads.run_all([partial(_one, steps, space, part, len(shared), barrier) for part, space in enumerate(shared)])


def _one(steps: Steps, space: Workspace, part: int, parts: int, barrier: NDArray[np.int64]) -> None:
    _run(
        steps,
        space.row,
        space.other,
        space.sums,
        space.start,
        space.tile,
        space.left,
        space.packed,
        part,
        parts,
        barrier,
    )


SPINS: Final = 4000  # before a waiting thread gives way: longer than most steps differ between threads


@jit
def _wait(barrier, parts, turn):
    """Until all threads have come here for the `turn`th time."""
    address = barrier.ctypes.data
    arrive(address)
    spins = 0
    while look(address) < turn * parts:
        spins += 1
        if spins > SPINS:
            give_way()


@jit
def _execute(step, row, other, sums, start, tile, left, packed, part, parts):
    kind, rows = step[0], step[1] * step[2]
    first, last = rows * part // parts, rows * (part + 1) // parts
    if kind == ROWS:
        run_rows(step, first, last, row, other, sums)
    elif kind == QUANTIZE:
        run_quantize(step, first, last, row, other)
    elif kind == COPY:
        run_copy(step, first, last)
    elif kind == GROUPED and (step[PANELS] or (not step[SS] and step[2] > FEW)):
        run_panels(step, start, tile, left, packed, row, other, part, parts)
    elif kind == GROUPED:
        run_grouped(step, start, tile, left, sums, row, other, part, parts)
    else:
        run_matmul(step, start, tile, left, packed, part, parts)


def _steps(
    steps: Any,
    row: Any,
    other: Any,
    sums: Any,
    start: Any,
    tile: Any,
    left: Any,
    packed: Any,
    part: Any,
    parts: Any,
    barrier: Any,
) -> None:
    """Every thread goes through all steps. Small ones are done by the first thread alone; the others meet it before and
    after."""
    turn = 0
    alone = True  # whether what was done since the last meeting was done by the first thread
    for number in range(steps.shape[0]):
        step = steps[number]
        if step[0] == SKIPPED:
            continue
        solo = step[SOLO] != 0
        if parts > 1 and number and not (solo and alone):
            turn += 1
            _wait(barrier, parts, turn)
        alone = solo
        if not solo:
            _execute(step, row, other, sums, start, tile, left, packed, part, parts)
        elif part == 0:
            _execute(step, row, other, sums, start, tile, left, packed, 0, 1)


def _pack(target: int, source: int, ks: int, ns: int, k: int, n: int, panels: int) -> None:
    gemm.pack(target, source, ks, ns, k, n, 0, panels)


def _pack_groups(target: int, step: Any, codes: Any, panels: int) -> None:
    pack_panels(target, step, codes, 0, panels)


# Explicit types: the compiled code is found on disk without asking what the arguments are.
_run: Final[Any] = compiled(
    _steps,
    "void(int64[:,::1], float32[::1], float32[::1], float32[::1], int32[::1], int32[::1], int8[::1], uint8[::1], int64, int64, int64[::1])",
)
_pack_grouped: Final[Any] = compiled(_pack_groups, "void(int64, int64[::1], int8[::1], int64)")
_pack_all: Final[Any] = compiled(_pack, "void(int64, int64, int64, int64, int64, int64, int64)")


def pack(target: int, source: int, ks: int, ns: int, k: int, n: int) -> None:
    """Pack a whole matrix whose element (k, n) lies at source + k*ks + n*ns."""
    _pack_all(target, source, ks, ns, k, n, -(-n // COLUMNS))


def pack_grouped(target: int, step: NDArray[np.int64]) -> None:
    """Pack all weights of a grouped product, which are described as in a step."""
    size = group_size(step)
    codes = np.empty(-(-int(step[5]) // size) * size, np.int8)
    _pack_grouped(target, step, codes, -(-int(step[3]) // COLUMNS))
