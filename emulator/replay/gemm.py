"""The int8 matrix instruction by dot products of four bytes. Weights are packed once if they are constant, else for
each instruction.

Packed: (panels of 32 columns, k/4, 32, 4) unsigned bytes w + 128; what was added is taken off by starting row m at -128
* sum_k a[m,k]. Everything is exact modulo 2**32, like the instruction itself.
"""

import numpy as np
from numba import carray

from emulator.replay.blocks import COLUMNS, KERNEL, dot_block, widen
from emulator.replay.intrinsics import pointer
from emulator.replay.rows import FIRST_SLOT, SLOT_WIDTH, jit

if KERNEL is None:  # before anything is compiled: LLVM ends the process where it finds no instruction
    raise ImportError("this processor has none of the instructions that the compiled kernels need")

BLOCK, WIDTH = KERNEL.rows, KERNEL.width
FLIP = np.uint32(0x80808080)
_block8, _block4, _block2, _block1 = dot_block(BLOCK), dot_block(4), dot_block(2), dot_block(1)


@jit
def packed_bytes(k, n):
    """Bytes of a packed matrix."""
    return -(-n // COLUMNS) * COLUMNS * (-(-k // 4) * 4)


@jit
def pack(target, source, ks, ns, k, n, first, last):
    """Panels [first, last) of w, whose element (k, n) lies at source + k*ks + n*ns."""
    quads = (k + 3) // 4
    for panel in range(first, last):
        base = target + panel * quads * 128
        width = min(COLUMNS, n - panel * COLUMNS)
        origin = source + panel * COLUMNS * ns
        if ks == 1 and k % 4 == 0:
            _pack_quads(base, origin, ns, quads, width)
            continue
        out = carray(pointer(base), quads * 128, np.uint8)
        for quad in range(quads):
            for part in range(4):
                at = quad * 4 + part
                for column in range(COLUMNS):
                    place = quad * 128 + column * 4 + part
                    if at < k and column < width:
                        out[place] = carray(pointer(origin + at * ks + column * ns), 1, np.uint8)[0] ^ np.uint8(0x80)
                    else:
                        out[place] = np.uint8(0x80)


@jit
def _pack_quads(base, origin, ns, quads, width):
    """w is stored with k along the row: four bytes move together. 16 at a time, so that each cache line is used up."""
    out = carray(pointer(base), quads * COLUMNS, np.uint32)
    for start in range(0, quads, 16):
        stop = min(start + 16, quads)
        for column in range(width):
            row = carray(pointer(origin + column * ns), quads, np.uint32)
            for quad in range(start, stop):
                out[quad * COLUMNS + column] = row[quad] ^ FLIP
        for column in range(width, COLUMNS):
            for quad in range(start, stop):
                out[quad * COLUMNS + column] = FLIP


@jit
def row_sums(a, lda, rows, k, start):
    """What takes 128 off each weight again, from rows as the kernel wants them."""
    for row in range(rows):
        total = np.int32(0)
        if WIDTH == 1:
            x = carray(pointer(a + row * lda), k, np.int8)
            for i in range(k):
                total += np.int32(x[i])
        else:
            wide = carray(pointer(a + row * lda), k, np.int16)
            for i in range(k):
                total += np.int32(wide[i])
        start[row] = np.int32(-128 * total)


@jit
def prepare(a, lda, cs, rows, k, padded, out):
    """Rows as the kernel wants them, with zeros up to `padded` elements: their address, and bytes from row to row."""
    if WIDTH == 1:
        if cs == 1 and padded == k:
            return a, lda
        for row in range(rows):
            for i in range(k):
                out[row * padded + i] = carray(pointer(a + row * lda + i * cs), 1, np.int8)[0]
            for i in range(k, padded):
                out[row * padded + i] = 0
    else:
        for row in range(rows):
            _widen_row(a + row * lda, cs, k, padded, out.ctypes.data + row * padded * WIDTH)
    return np.int64(out.ctypes.data), padded * WIDTH


@jit
def _widen_row(source, cs, k, padded, target):
    whole = k // 16 * 16 if cs == 1 else 0
    for at in range(0, whole, 16):
        widen(source + at, target + at * WIDTH)
    wide = carray(pointer(target), padded, np.int16)
    for i in range(whole, padded):
        x = carray(pointer(source + i * cs), 1, np.int8)[0] if i < k else np.int8(0)
        wide[(i & ~3) + (i & 1) * 2 + ((i >> 1) & 1)] = x


@jit
def dot_rows(a, lda, w, quads, c, ldc, start, rows, adds):
    """Any number of rows by the columns of a panel."""
    row = 0
    while row + BLOCK <= rows:
        _block8(a + row * lda, lda, w, quads, c + row * ldc, ldc, start + 4 * row, adds)
        row += BLOCK
    while row + 4 <= rows:
        _block4(a + row * lda, lda, w, quads, c + row * ldc, ldc, start + 4 * row, adds)
        row += 4
    if row + 2 <= rows:
        _block2(a + row * lda, lda, w, quads, c + row * ldc, ldc, start + 4 * row, adds)
        row += 2
    if row < rows:
        _block1(a + row * lda, lda, w, quads, c + row * ldc, ldc, start + 4 * row, adds)


@jit
def multiply(a, lda, w, k, n, c, ldc, rows, adds, start, tile, first, last):
    """Panels [first, last) of one plane. `tile` is memory for the panel that sticks out."""
    quads = (k + 3) // 4
    for panel in range(first, last):
        width = min(COLUMNS, n - panel * COLUMNS)
        where = c + panel * COLUMNS * 4
        block = w + panel * quads * 128
        if width == COLUMNS:
            dot_rows(a, lda, block, quads, where, ldc, start.ctypes.data, rows, adds)
            continue
        dot_rows(a, lda, block, quads, tile.ctypes.data, COLUMNS * 4, start.ctypes.data, rows, 0)
        for row in range(rows):
            target = carray(pointer(where + row * ldc), width, np.int32)
            for i in range(width):
                target[i] = tile[row * COLUMNS + i] + (target[i] if adds else 0)


@jit
def run_matmul(step, start, tile, left, packed, part, parts):
    """Slots c, a, w (row stride per n, column stride per k), then the packed weights, or 0. step[1:4] = planes, m, n;
    step[5] = k; step[6] = acc.

    Of `parts` threads, each with its own memory, number `part` does its share of the panels.
    """
    planes, m, n, k, adds = step[1], step[2], step[3], step[5], step[6]
    padded = (k + 3) // 4 * 4
    c, a, w, constant = FIRST_SLOT, FIRST_SLOT + SLOT_WIDTH, FIRST_SLOT + 2 * SLOT_WIDTH, FIRST_SLOT + 3 * SLOT_WIDTH
    panels = (n + COLUMNS - 1) // COLUMNS
    low, high = panels * part // parts, panels * (part + 1) // parts
    if low == high:
        return
    rows, lda = step[a], step[a + 2]
    for plane in range(planes):
        if plane == 0 or step[a + 1]:
            rows, lda = prepare(step[a] + plane * step[a + 1], step[a + 2], step[a + 3], m, k, padded, left)
            row_sums(rows, lda, m, padded, start)
        weights = step[constant] + plane * step[constant + 1]
        if step[constant] == 0:
            weights = packed.ctypes.data
            if plane == 0 or step[w + 1]:
                pack(weights, step[w] + plane * step[w + 1], step[w + 3], step[w + 2], k, n, low, high)
        multiply(rows, lda, weights, k, n, step[c] + plane * step[c + 1], step[c + 2], m, adds, start, tile, low, high)
