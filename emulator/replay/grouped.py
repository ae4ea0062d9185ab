"""The grouped matrix instruction for a few rows, as operands lie: integers exactly, then one rounding after each
operation, in the order of the manual. A row of w is unpacked once and meets all rows of a.

More rows, and weights that are constant, go by panels (grouped_panels.py).
"""

from typing import Final

import numpy as np
from numba import carray

from emulator.replay.intrinsics import dot32, fold16, pointer
from emulator.replay.rows import F16, F32, FIRST_MICRO, FIRST_SLOT, SLOT_WIDTH, ZERO, element, jit, load, put, rounded
from isa.architecture import Dtype
from isa.constants import E2M1_TWICE
from isa.constants import GROUP_LANES as LANES
from isa.spec import NIBBLES
from isa.views import PARTS

ACC, PRE, HALF = 1, 2, 4  # flags of a step
GROUP_SHIFT: Final = 4  # where the logarithms begin, two bits each
SUB_SHIFT: Final = 6
NIBBLE_SHIFT: Final = 8
GROUP_LEAST, SUB_LEAST = PARTS["g"][1], PARTS["j"][1]
SIGNED, E2M1 = NIBBLES.index("i4"), NIBBLES.index("e2m1")
TWICE: Final = np.array(E2M1_TWICE, np.int8)
I4: Final = int(Dtype.I4)
NAMES: Final = ("c", "a", "w", "sa", "sw", "zw", "ss", "sm")  # by slot
PACKING: Final = 3 << GROUP_SHIFT | 3 << NIBBLE_SHIFT  # flags that packed weights depend on
PANELS: Final = FIRST_MICRO  # constant panels, or 0
FEW: Final = 4  # rows; more are worth packing the weights for one instruction
C, A, W, SA, SW, ZW, SS, SM = (FIRST_SLOT + SLOT_WIDTH * slot for slot in range(len(NAMES)))


@jit
def group_size(step):
    """Elements of k in a group."""
    return GROUP_LEAST << ((step[6] >> GROUP_SHIFT) & 3)


@jit
def _dot(x, y, count):
    """The exact product of `count` bytes."""
    total, whole = np.int32(0), count // 32 * 32
    for at in range(0, whole, 32):
        total += dot32(x + at, y + at)
    a, b = carray(pointer(x), count, np.int8), carray(pointer(y), count, np.int8)
    for i in range(whole, count):
        total += np.int32(a[i]) * np.int32(b[i])
    return total


@jit
def _unpack(address, first, count, out):
    """Nibbles from number `first` on, as 0 to 15."""
    for i in range(count):
        at = first + i
        byte = carray(pointer(address + (at >> 1)), 1, np.uint8)[0]
        out[i] = np.int8(byte >> 4) if at & 1 else np.int8(byte & 15)


@jit
def _unpack_even(address, count, out):
    """The same from the start of a byte, two at a time."""
    packed = carray(pointer(address), (count + 1) // 2, np.uint8)
    for i in range(count // 2):
        out[2 * i] = np.int8(packed[i] & 15)
        out[2 * i + 1] = np.int8(packed[i] >> 4)
    if count & 1:
        out[count - 1] = np.int8(packed[count // 2] & 15)


@jit
def _decode(codes, count, kind):
    """What nibbles of 0 to 15 stand for."""
    if kind == SIGNED:
        for i in range(count):
            codes[i] = np.int8((codes[i] ^ 8) - 8)
    elif kind == E2M1:
        for i in range(count):
            codes[i] = TWICE[codes[i]]


@jit
def unpacked(step, column, k, codes):
    """The codes of a column as signed bytes."""
    first = column * step[W + 2]  # strides of nibbles are in elements
    if step[W + 4] != I4:
        codes[:k] = carray(pointer(step[W] + first), k, np.int8)
        return
    if first & 1:
        _unpack(step[W], first, k, codes)
    else:
        _unpack_even(step[W] + (first >> 1), k, codes)
    _decode(codes, k, (step[6] >> NIBBLE_SHIFT) & 3)


@jit
def _sums(step, k, unit, sums):
    """Sums of a over each unit of k, row by row."""
    units = (k + unit - 1) // unit
    for row in range(step[2]):
        for u in range(units):
            count = min(unit, k - u * unit)
            x = carray(pointer(step[A] + row * step[A + 2] + u * unit), count, np.int8)
            total = np.int32(0)
            for i in range(count):
                total += np.int32(x[i])
            sums[row * units + u] = total


@jit
def _scale(step, slot, row, group):
    return element(step[slot] + row * step[slot + 2] + group * step[slot + 3], step[slot + 4])


@jit
def _groups(step, row, column, weights, k, size, sums, t, u, start):
    """One element of the result, groups ascending from `start`. t and u are the scales of w and a."""
    flags, total, groups = step[6], start, (k + size - 1) // size
    left = step[A] + row * step[A + 2]
    for g in range(groups):
        scale = rounded(u[g], F16) if flags & HALF else u[g]
        product = np.float32(_dot(left + g * size, weights + g * size, min(size, k - g * size)))
        product = (product * t[g]) * scale if flags & PRE else product * (t[g] * scale)
        if step[ZW]:
            unit = np.float32(sums[row * groups + g]) * u[g]
            unit = rounded(unit, F16) if flags & HALF else unit
            product = product + _scale(step, ZW, column, g) * unit
        total = total + product
    return total


@jit
def _folded(x, y, codes, stride, sub, first, last, parts):
    """parts[:8]: of each lane the exact sum over elements [first, last) of a group."""
    for lane in range(LANES):
        parts[lane] = 0
    for begin in range(first, last, sub):
        code = np.int32(carray(pointer(codes + begin // sub * stride), 1, np.int8)[0])
        end = min(begin + sub, last)
        whole = begin + (end - begin) // 16 * 16
        for at in range(begin, whole, 16):
            fold16(x + at, y + at, code, parts.ctypes.data)
        a, b = carray(pointer(x), end, np.int8), carray(pointer(y), end, np.int8)
        for at in range(whole, end):
            parts[(at - whole) % LANES] += code * np.int32(a[at]) * np.int32(b[at])


@jit
def _lanes(step, row, column, weights, k, size, sub, sums, lanes, parts, t, u):
    """One element of the result with sub-scales: element k belongs to lane k mod 8; minima first, then the lanes."""
    units, low = (k + sub - 1) // sub, ZERO
    for lane in range(LANES):
        lanes[lane] = ZERO
    codes = step[SS] + column * step[SS + 2]
    for g in range((k + size - 1) // size):
        first, last = g * size, min(g * size + size, k)
        _folded(step[A] + row * step[A + 2], weights, codes, step[SS + 3], sub, first, last, parts)
        scale = t[g] * u[g]
        for lane in range(LANES):
            lanes[lane] = lanes[lane] + np.float32(parts[lane]) * scale
        if step[ZW]:
            factor = np.int32(0)
            for j in range(first // sub, (last + sub - 1) // sub):
                code = carray(pointer(step[SM] + column * step[SM + 2] + j * step[SM + 3]), 1, np.int8)[0]
                factor += np.int32(code) * sums[row * units + j]
            low = low + np.float32(factor) * (_scale(step, ZW, column, g) * u[g])
    for lane in range(LANES):
        low = low + lanes[lane]
    return low


@jit
def run_grouped(step, sums, parts, codes, lanes, t, u, part, threads):
    """step[2:4] = m, n; step[5] = k; step[6] = flags. Of `threads` threads, each with its own memory, number `part`
    does its share of the columns."""
    m, n, k, flags = step[2], step[3], step[5], step[6]
    size = group_size(step)
    sub = SUB_LEAST << ((flags >> SUB_SHIFT) & 3)
    if step[ZW]:
        _sums(step, k, sub if step[SS] else size, sums)
    groups = (k + size - 1) // size
    for column in range(n * part // threads, n * (part + 1) // threads):
        weights = step[W] + column * step[W + 2]
        if step[W + 4] == I4:
            unpacked(step, column, k, codes)
            weights = codes.ctypes.data
        load(t, groups, step[SW] + column * step[SW + 2], step[SW + 3], step[SW + 4])
        for row in range(m):
            load(u, groups, step[SA] + row * step[SA + 2], step[SA + 3], step[SA + 4])
            target = step[C] + row * step[C + 2] + column * step[C + 3]
            if step[SS]:
                total = _lanes(step, row, column, weights, k, size, sub, sums, lanes, parts, t, u)
            else:
                start = element(target, F32) if flags & ACC else ZERO
                total = _groups(step, row, column, weights, k, size, sums, t, u, start)
            put(target, F32, total, lanes)
