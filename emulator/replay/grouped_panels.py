"""Grouped products by panels of 32 columns: of each group the exact sums of a register block of rows, then the scales,
element by element in the order of the manual.

A panel is, for each group of k: its codes as the matrix kernel wants them (k/4, 32, 4), 32 scales, and 32 of what is
added per unit of a, if there is any; all float32. Codes that k lacks are 0, as are those of columns that n lacks.
Panels are packed once if the weights are constant, else each for one instruction.
"""

from typing import Final

import numpy as np
from numba import carray

from emulator.replay.blocks import COLUMNS, QUAD, grouped_block
from emulator.replay.gemm import BLOCK, FLIP, WIDTH, prepare, row_sums
from emulator.replay.grouped import ACC, HALF, PANELS, PRE, SA, SW, ZW, A, C, group_size, unpacked
from emulator.replay.intrinsics import pointer
from emulator.replay.rows import F16, ZERO, element, floats, jit, rounded

FLOATS: Final = 4 * COLUMNS  # bytes
_block, _block2, _block1 = grouped_block(BLOCK), grouped_block(2), grouped_block(1)


@jit
def group_bytes(size, minima):
    """Bytes of a group in a panel."""
    return size * COLUMNS + FLOATS * (2 if minima else 1)


@jit
def packed_group_bytes(step):
    """Bytes of all panels."""
    size = group_size(step)
    groups = (step[5] + size - 1) // size
    return (step[3] + COLUMNS - 1) // COLUMNS * groups * group_bytes(size, step[ZW] != 0)


@jit
def pack_panels(target, step, codes, first, last):
    """Panels [first, last) of the weights of a step, the first of them at `target`. `codes` is memory for whole groups."""
    n, k, minima = step[3], step[5], step[ZW] != 0
    size = group_size(step)
    groups, each = (k + size - 1) // size, group_bytes(size, minima)
    for panel in range(first, last):
        base = target + (panel - first) * groups * each
        for column in range(COLUMNS):
            number = panel * COLUMNS + column
            if number >= n:
                codes[: groups * size] = 0
            else:
                unpacked(step, number, k, codes)
                codes[k : groups * size] = 0
            _column(base + column * QUAD, codes, groups, size, each)
            scales = base + size * COLUMNS + 4 * column
            _scales(scales, step, SW, number, n, groups, each)
            if minima:
                _scales(scales + FLOATS, step, ZW, number, n, groups, each)


@jit
def _column(target, codes, groups, size, each):
    quads = carray(pointer(codes.ctypes.data), groups * size // QUAD, np.uint32)
    for g in range(groups):
        out = carray(pointer(target + g * each), size * COLUMNS // QUAD, np.uint32)
        for quad in range(size // QUAD):
            out[quad * COLUMNS] = quads[g * (size // QUAD) + quad] ^ FLIP


@jit
def _scales(target, step, slot, number, n, groups, each):
    for g in range(groups):
        source = step[slot] + number * step[slot + 2] + g * step[slot + 3]
        carray(pointer(target + g * each), 1, np.float32)[0] = element(source, step[slot + 4]) if number < n else ZERO


@jit
def _rows(step, rows, lda, size, groups, start, scales, units):
    """Of each group and row: the start of the sums, the scale of a, and the scaled sum of a."""
    m, half = step[2], step[6] & HALF
    for g in range(groups):
        row_sums(rows + g * size * WIDTH, lda, m, size, start[g * m :])
        for row in range(m):
            scale = element(step[SA] + row * step[SA + 2] + g * step[SA + 3], step[SA + 4])
            unit = np.float32(start[g * m + row] // -128) * scale
            scales[g * m + row] = rounded(scale, F16) if half else scale
            units[g * m + row] = rounded(unit, F16) if half else unit


@jit
def _rows_of_panel(step, panel, first, count, rows, lda, size, groups, start, scales, units, target, ldc):
    """Rows [first, first + count) of a panel are added to what is at `target`."""
    m, pre, minima, row = step[2], step[6] & PRE, step[ZW] != 0, first
    quads, each, last = size // QUAD, group_bytes(size, minima), first + count
    a, s, f, u = np.int64(rows), start.ctypes.data, scales.ctypes.data, units.ctypes.data
    while row < last:
        x, at, c = a + row * lda, 4 * row, target + (row - first) * ldc
        if row + BLOCK <= last:
            _block(x, lda, panel, quads, groups, each, s + at, f + at, u + at, 4 * m, pre, minima, c, ldc)
            row += BLOCK
        elif row + 2 <= last:
            _block2(x, lda, panel, quads, groups, each, s + at, f + at, u + at, 4 * m, pre, minima, c, ldc)
            row += 2
        else:
            _block1(x, lda, panel, quads, groups, each, s + at, f + at, u + at, 4 * m, pre, minima, c, ldc)
            row += 1


@jit
def run_panels(step, start, tile, left, packed, scales, units, part, parts):
    """step[2:4] = m, n; step[5] = k; step[6] = flags; step[PANELS] = constant panels, or 0. Of `parts` threads, each
    with its own memory, number `part` does its share of the panels."""
    m, n, k, minima = step[2], step[3], step[5], step[ZW] != 0
    size = group_size(step)
    groups = (k + size - 1) // size
    stride = groups * group_bytes(size, minima)
    count = (n + COLUMNS - 1) // COLUMNS
    low, high = count * part // parts, count * (part + 1) // parts
    if low == high:
        return
    padded = groups * size
    rows, lda = prepare(step[A], step[A + 2], step[A + 3], m, k, padded, left)
    _rows(step, rows, lda, size, groups, start, scales, units)
    codes = left[m * padded * WIDTH :]
    whole = tile[: BLOCK * COLUMNS].view(np.float32)
    for panel in range(low, high):
        if step[PANELS]:
            weights = step[PANELS] + panel * stride
        else:
            weights = np.int64(packed.ctypes.data)
            pack_panels(weights, step, codes, panel, panel + 1)
        width, target = min(COLUMNS, n - panel * COLUMNS), step[C] + panel * COLUMNS * step[C + 3]
        if width == COLUMNS and step[C + 3] == 4:
            if not step[6] & ACC:
                for row in range(m):
                    floats(target + row * step[C + 2], COLUMNS)[:] = ZERO
            _rows_of_panel(step, weights, 0, m, rows, lda, size, groups, start, scales, units, target, step[C + 2])
            continue
        for first in range(0, m, BLOCK):
            count = min(BLOCK, m - first)
            _begin(step, target, first, count, width, whole)
            _rows_of_panel(
                step, weights, first, count, rows, lda, size, groups, start, scales, units,
                np.int64(whole.ctypes.data), FLOATS,
            )  # fmt: skip
            _end(step, target, first, count, width, whole)


@jit
def _begin(step, column, first, count, width, whole):
    """c, or zeros, as rows of a whole panel."""
    whole[: count * COLUMNS] = ZERO
    if step[6] & ACC:
        for row in range(count):
            target = column + (first + row) * step[C + 2]
            for i in range(width):
                whole[row * COLUMNS + i] = floats(target + i * step[C + 3], 1)[0]


@jit
def _end(step, column, first, count, width, whole):
    for row in range(count):
        target = column + (first + row) * step[C + 2]
        for i in range(width):
            floats(target + i * step[C + 3], 1)[0] = whole[row * COLUMNS + i]
