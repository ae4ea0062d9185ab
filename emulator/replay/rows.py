"""Row instructions: one kernel for everything that goes along rows of float32, and one for copies.

A step is a table row of integers (`Column`): extents, operands (address and strides in bytes), and a chain of
micro-operations that a buffer of one row (or a stretch of it) goes through: load, add an operand, apply a function,
reduce, store. The buffer stays in the first-level cache, every micro-operation is one loop that LLVM vectorises, and
each rounds on its own.
"""

from enum import IntEnum
from typing import Any, Final

import numpy as np
from numba import carray, njit

from emulator.replay import lanes
from emulator.replay.intrinsics import bits_of, float_of, float_of_half, half_of_float, pointer
from isa.architecture import Dtype
from isa.spec import ACT

jit: Final[Any] = njit(nogil=True, error_model="numpy", boundscheck=False)
STRETCH: Final = 2048  # elements of a row at a time; a multiple of the 64 accumulators of a sum
SLOTS: Final = 8
FIRST_SLOT: Final = 8
SLOT_WIDTH: Final = 5  # address, plane, row and column stride in bytes, dtype
FIRST_MICRO: Final = FIRST_SLOT + SLOTS * SLOT_WIDTH
MICROS: Final = 12
WIDTH: Final = FIRST_MICRO + 2 * MICROS


class Micro(IntEnum):
    """What happens to the buffer; the argument is a slot, a dtype or a function."""

    LOAD = 0
    ADD = 1
    SUB = 2
    MUL = 3
    DIV = 4
    MAX = 5
    MIN = 6
    ROUND = 7
    FUNCTION = 8
    STORE = 9
    SUM = 10  # the reductions: the result goes to the slot
    SUMSQ = 11
    LARGEST = 12
    SMALLEST = 13
    ABSMAX = 14


LOAD, ADD, SUB, MUL, DIV, MAX, MIN, ROUND, FUNCTION, STORE, SUM, SUMSQ, LARGEST, SMALLEST, ABSMAX = (
    int(m) for m in Micro
)
I8, I32, F32, BF16, F16 = (int(d) for d in (Dtype.I8, Dtype.I32, Dtype.F32, Dtype.BF16, Dtype.F16))
ZERO, ONE = lanes.ZERO, lanes.ONE
NAN: Final = np.float32(np.nan)
LOWEST: Final = np.int32(-(2**31))
SIZE: Final = np.int32(2**31 - 1)
INF_BITS: Final = np.int32(0x7F800000)
MINUS_INF: Final = np.float32(-np.inf)
HALF: Final = np.float32(0.5)
NORM, TIES = 1, 3  # bits of a step that quantizes
LEVEL: Final = np.float32(127.5)
MIN_SCALE: Final = np.float32(2.0**-23)
LEAST, MOST = np.float32(-128), np.float32(127)
FUNCTIONS: Final = ACT


@jit
def floats(address, count):
    return carray(pointer(address), count, np.float32)


@lanes.inline
def bf16_bits(x):
    """Bits of the nearest bf16, in the low half."""
    bits = np.int64(np.uint32(bits_of(x)))
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.uint16(rounded if x == x else 0x7FC0)


@lanes.inline
def rounded(x, kind):
    if kind == BF16:
        return float_of(np.int32(np.uint32(bf16_bits(x)) << np.uint32(16)))
    if kind == F16:
        return float_of_half(half_of_float(x))
    return x


@jit
def element(address, kind):
    """One element as float32."""
    if kind == F32:
        return carray(pointer(address), 1, np.float32)[0]
    if kind == I32:
        return np.float32(carray(pointer(address), 1, np.int32)[0])
    if kind == I8:
        return np.float32(carray(pointer(address), 1, np.int8)[0])
    if kind == BF16:
        return float_of(np.int32(np.uint32(carray(pointer(address), 1, np.uint16)[0]) << np.uint32(16)))
    return float_of_half(carray(pointer(address), 1, np.int16)[0])


@jit
def load(t, n, address, stride, kind):
    """A stretch of a row as float32."""
    if stride == 0:
        t[:n] = element(address, kind)
    elif kind == F32:
        x = carray(pointer(address), n, np.float32)
        for i in range(n):
            t[i] = x[i]
    elif kind == I32:
        x = carray(pointer(address), n, np.int32)
        for i in range(n):
            t[i] = np.float32(x[i])
    elif kind == I8:
        x = carray(pointer(address), n, np.int8)
        for i in range(n):
            t[i] = np.float32(x[i])
    elif kind == BF16:
        x = carray(pointer(address), n, np.uint16)
        for i in range(n):
            t[i] = float_of(np.int32(np.uint32(x[i]) << np.uint32(16)))
    else:
        x = carray(pointer(address), n, np.int16)
        for i in range(n):
            t[i] = float_of_half(x[i])


@jit
def store(t, n, address, kind):
    if kind == F32:
        y = carray(pointer(address), n, np.float32)
        for i in range(n):
            y[i] = t[i]
    elif kind == BF16:
        y = carray(pointer(address), n, np.uint16)
        for i in range(n):
            y[i] = bf16_bits(t[i])
    else:
        y = carray(pointer(address), n, np.int16)
        for i in range(n):
            y[i] = half_of_float(t[i])


@lanes.inline
def larger(a, b):
    """NaN if either is; a zero is +0."""
    return (a if (a > b or a != a) else b) + ZERO


@lanes.inline
def smaller(a, b):
    return (a if (a < b or a != a) else b) + ZERO


@jit
def combine(code, t, n, address, stride, kind, u):  # noqa: C901 - one loop per operation
    if stride == 0:
        scalar(code, t, n, element(address, kind))
        return
    x = carray(pointer(address), n, np.float32) if kind == F32 else u
    if kind != F32:
        load(u, n, address, stride, kind)
    if code == ADD:
        for i in range(n):
            t[i] = t[i] + x[i]
    elif code == SUB:
        for i in range(n):
            t[i] = t[i] - x[i]
    elif code == MUL:
        for i in range(n):
            t[i] = t[i] * x[i]
    elif code == DIV:
        for i in range(n):
            t[i] = t[i] / x[i]
    elif code == MAX:
        for i in range(n):
            t[i] = larger(t[i], x[i])
    else:
        for i in range(n):
            t[i] = smaller(t[i], x[i])


@jit
def scalar(code, t, n, x):
    if code == ADD:
        for i in range(n):
            t[i] = t[i] + x
    elif code == SUB:
        for i in range(n):
            t[i] = t[i] - x
    elif code == MUL:
        for i in range(n):
            t[i] = t[i] * x
    elif code == DIV:
        for i in range(n):
            t[i] = t[i] / x
    elif code == MAX:
        for i in range(n):
            t[i] = larger(t[i], x)
    else:
        for i in range(n):
            t[i] = smaller(t[i], x)


def _mapped(function: Any) -> Any:
    @jit
    def along(t, n):
        for i in range(n):
            t[i] = function(t[i])

    return along


_exp, _gelu_erf, _gelu_tanh, _silu, _sigmoid, _tanh, _rsqrt, _recip, _sqrt, _erf, _relu = (
    _mapped(lanes.BY_NAME[f]) for f in ACT
)


@jit
def apply(f, t, n):
    if f == 0:
        _exp(t, n)
    elif f == 1:
        _gelu_erf(t, n)
    elif f == 2:
        _gelu_tanh(t, n)
    elif f == 3:
        _silu(t, n)
    elif f == 4:
        _sigmoid(t, n)
    elif f == 5:
        _tanh(t, n)
    elif f == 6:
        _rsqrt(t, n)
    elif f == 7:
        _recip(t, n)
    elif f == 8:
        _sqrt(t, n)
    elif f == 9:
        _erf(t, n)
    else:
        _relu(t, n)


@jit
def accumulate(sums, t, n, squared):
    """Element i to accumulator i mod 64; n is a multiple of 64 except at the end of a row."""
    whole = n // 64 * 64
    if squared:
        for start in range(0, whole, 64):
            for j in range(64):
                sums[j] += t[start + j] * t[start + j]
        for j in range(n - whole):
            sums[j] += t[whole + j] * t[whole + j]
    else:
        for start in range(0, whole, 64):
            for j in range(64):
                sums[j] += t[start + j]
        for j in range(n - whole):
            sums[j] += t[whole + j]


@jit
def halved(sums):
    half = 32
    while half:
        for j in range(half):
            sums[j] += sums[j + half]
        half //= 2
    return sums[0]


@jit
def extremes(t, n, best, size, flip):
    """Largest element (of -t if flip) as an ordered integer, and largest absolute value's bits, which show a NaN."""
    sign = LOWEST if flip else np.int32(0)
    for i in range(n):
        bits = np.int32(bits_of(t[i]) ^ sign)
        ordered = np.int32(bits ^ np.int32(np.int32(bits >> 31) & SIZE))
        best = ordered if ordered > best else best
        absolute = np.int32(bits & SIZE)
        size = absolute if absolute > size else size
    return best, size


@jit
def largest_size(t, n, size):
    for i in range(n):
        absolute = np.int32(bits_of(t[i]) & SIZE)
        size = absolute if absolute > size else size
    return size


@jit
def put(address, kind, x, u):
    u[0] = x
    store(u, 1, address, kind)


@jit
def run_rows(step, first, last, t, u, sums):  # noqa: C901 - the interpreter of micro-operations
    """Rows [first, last) of a step, counted over all planes."""
    rows, cols, micros = step[2], step[3], step[4]
    has_sum = step[FIRST_MICRO + 2 * micros - 2] in (SUM, SUMSQ)
    for number in range(first, last):
        plane, row = number // rows, number % rows
        if has_sum:
            sums[:] = ZERO
        best, size = LOWEST, np.int32(0)
        for start in range(0, cols, STRETCH):
            n = min(STRETCH, cols - start)
            for m in range(micros):
                code, argument = step[FIRST_MICRO + 2 * m], step[FIRST_MICRO + 2 * m + 1]
                if code == ROUND:
                    for i in range(n):
                        t[i] = rounded(t[i], argument)
                    continue
                if code == FUNCTION:
                    apply(argument, t, n)
                    continue
                if code in (SUM, SUMSQ):
                    accumulate(sums, t, n, code == SUMSQ)
                    continue
                if code == ABSMAX:
                    size = largest_size(t, n, size)
                    continue
                if code in (LARGEST, SMALLEST):
                    best, size = extremes(t, n, best, size, code == SMALLEST)
                    continue
                s = FIRST_SLOT + SLOT_WIDTH * argument
                stride, kind = step[s + 3], step[s + 4]
                address = step[s] + plane * step[s + 1] + row * step[s + 2] + start * stride
                if code == LOAD:
                    load(t, n, address, stride, kind)
                elif code == STORE:
                    store(t, n, address, kind)
                else:
                    combine(code, t, n, address, stride, kind, u)
        code, argument = step[FIRST_MICRO + 2 * micros - 2], step[FIRST_MICRO + 2 * micros - 1]
        if code >= SUM:
            s = FIRST_SLOT + SLOT_WIDTH * argument
            address = step[s] + plane * step[s + 1] + row * step[s + 2]
            if code in (SUM, SUMSQ):
                put(address, step[s + 4], halved(sums), u)
            elif size > INF_BITS:
                put(address, step[s + 4], NAN, u)
            elif code == ABSMAX:
                put(address, step[s + 4], float_of(size), u)
            else:
                value = float_of(np.int32(best ^ np.int32(np.int32(best >> 31) & SIZE)))
                put(address, step[s + 4], (-value if code == SMALLEST else value) + ZERO, u)


@lanes.inline
def finite(x):
    """x, or 0 where it is infinite or NaN."""
    return x if np.int32(bits_of(x) & SIZE) < INF_BITS else ZERO


@lanes.inline
def away_from_zero(x):
    """The nearest integer, halves away from zero: what was cut off is exact."""
    whole = np.trunc(x)
    far = ONE if abs(x - whole) >= HALF else ZERO
    return whole + (far if x > ZERO else -far)


@jit
def run_quantize(step, first, last, t, u):
    """Slots: d, s, a, then the multipliers and am. step[5] multipliers; step[6]: am is given, NORM and TIES. t holds a
    whole row."""
    rows, cols = step[2], step[3]
    norm, away = (step[6] >> NORM) & 3, (step[6] >> TIES) & 1
    for number in range(first, last):
        plane, row = number // rows, number % rows
        s = FIRST_SLOT + SLOT_WIDTH * 2
        load(t, cols, step[s] + plane * step[s + 1] + row * step[s + 2], step[s + 3], step[s + 4])
        for _ in range(step[5]):
            s += SLOT_WIDTH
            combine(MUL, t, cols, step[s] + plane * step[s + 1] + row * step[s + 2], step[s + 3], step[s + 4], u)
        if step[6] & 1:
            s += SLOT_WIDTH
            top = element(step[s] + plane * step[s + 1] + row * step[s + 2], step[s + 4])
        else:
            size = largest_size(t, cols, np.int32(0))
            top = NAN if size > INF_BITS else float_of(size)
        s = FIRST_SLOT + SLOT_WIDTH
        kind = step[s + 4]
        if norm == 0:
            scale = rounded(top / LEVEL, kind)
            scale = MIN_SCALE if scale < MIN_SCALE else scale
            inverse = ONE / scale
        elif norm == 1:
            scale = top / MOST
            inverse = finite(ONE / scale)
        else:
            inverse = MOST / top
            scale = ONE / inverse
            inverse = finite(inverse)
        put(step[s] + plane * step[s + 1] + row * step[s + 2], kind, scale, u)
        s = FIRST_SLOT
        d = carray(pointer(step[s] + plane * step[s + 1] + row * step[s + 2]), cols, np.int8)
        if away:
            for i in range(cols):
                t[i] = away_from_zero(t[i] * inverse)
            inverse = ONE
        for i in range(cols):
            x = np.rint(t[i] * inverse)
            x = LEAST if x < LEAST else (MOST if x > MOST else x)
            d[i] = np.int8(np.int32(x if x == x else ZERO))


@jit
def run_copy(step, first, last):
    """Rows of bytes; step[3] is their length."""
    rows, length = step[2], step[3]
    d, a = FIRST_SLOT, FIRST_SLOT + SLOT_WIDTH
    for number in range(first, last):
        plane, row = number // rows, number % rows
        target = carray(pointer(step[d] + plane * step[d + 1] + row * step[d + 2]), length, np.uint8)
        source = carray(pointer(step[a] + plane * step[a + 1] + row * step[a + 2]), length, np.uint8)
        for i in range(length):
            target[i] = source[i]
