"""Functions that the chip's engine does not have, made of those that it has and of rounded float32 arithmetic: the
formulas of docs/numerics.md, section 4, as decompositions (`composed`).

    before   %y = log(%x)          after    m * 2**e = %x by comparisons with powers of two; a polynomial of m; + e * log 2

Polynomials are words of float32, the highest power first; `tools/fit_functions.py` fits them.
"""

import math
import struct
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from compiler.ops import library as ops
from compiler.passes.composed import Answer, Composed, nearest, single
from isa import constants

aten = torch.ops.aten
INF, NAN = math.inf, math.nan

LOG_P = (0x3D89E137, 0xBDEECE0D, 0x3DF36E64, 0xBDFE1EE6, 0x3E119D7B, 0xBE2AADC7, 0x3E4CD23C, 0xBE800004, 0x3EAAAAA4)
EXPM1_P = (0x348F1C43, 0x363A9CF5, 0x37D0397E, 0x39501201, 0x3AB60B02, 0x3C08886F, 0x3D2AAAAB, 0x3E2AAAAB, 0x3F000000)
SINH_P = (0x363AB658, 0x3950115D, 0x3C088870, 0x3E2AAAAB, 0x00000000)
SIN_P = (0x363E1A17, 0xB9502CB0, 0x3C0888BA, 0xBE2AAAAB, 0x00000000)
COS_P = (0x37CCF488, 0xBAB60615, 0x3D2AAAA5)
TAN_P = (
    0x3B0AB1C0, 0xBA4AB4D3, 0x3BA923B4, 0x3C0723F0, 0x3CB44814, 0x3D5CFC2B, 0x3E0888CB, 0x3EAAAAAA, 0x00000000,
)  # fmt: skip
ATAN_P = (0xBD7973AF, 0x3DD91249, 0xBE11DCD2, 0x3E4CC8F1, 0xBEAAAAA5, 0x00000000)
ATANH_P = (0x3DF89E05, 0x3E11E9F0, 0x3E4CCE13, 0x3EAAAAAA)
ASIN_P = (0x3D19F21A, 0x3C6BAC42, 0x3D0259F0, 0x3D365509, 0x3D999C51, 0x3E2AAAA6, 0x00000000)

SHIFT = 1.5 * 2.0**23  # added and taken off again: rounds a smaller number to an integer
LARGEST = 128  # of the exponents of floats


def _float(word: int) -> float:
    """The value of a float32 bit pattern."""
    return float(struct.unpack("<f", struct.pack("<I", word))[0])


def _pieces(value: int, shift: int, bits: int, count: int) -> tuple[float, ...]:
    """value / 2**shift cut into numbers of so many bits, the last of 24, which add up to it."""
    found = []
    top = value.bit_length()
    for number in range(count):
        keep = bits if number < count - 1 else 24
        low = max(top - bits * number - keep, 0)
        part = (value >> low) << low
        found.append(math.ldexp(part, -shift))
        value -= part
    return tuple(found)


PI_BITS = 0x3243F6A8885A308D313198A2E03707344A409382229  # pi * 2**168
HALF_PI = _pieces(PI_BITS, 169, 24, 2)
PI_HIGH, PI_LOW = _pieces(PI_BITS, 168, 24, 2)
LN2_LONG = _pieces(0xB17217F7D1CF79AB, 64, 16, 2)  # log 2: a product of the first with a power of two is exact
LN2_HIGH, LN2_LOW = _float(constants.EXP_C1), _float(constants.EXP_C2)
LOG2_E = 0.44269504088896340736  # of 1 / log 2, without the 1
LOG10_2 = (0.30078125, 2.48745663981195213739e-4)
LOG10_E = (0.43359375, 7.00731903251827651129e-4)


def _horner(words: tuple[int, ...], x: Tensor) -> Tensor:
    y = x * _float(words[0]) + _float(words[1])
    for word in words[2:]:
        y = y * x + _float(word)
    return y


def _exp(x: Tensor) -> Tensor:
    found: Tensor = ops.activation(x, "exp")
    return found


def _sqrt(x: Tensor) -> Tensor:
    found: Tensor = ops.activation(x, "sqrt")
    return found


def _signed(size: Tensor, x: Tensor) -> Tensor:
    """`size` with the sign of x; of zero x itself."""
    return torch.where(x == 0, x, torch.where(x < 0, -size, size))


def _split(x: Tensor) -> tuple[Tensor, Tensor]:
    """x as two numbers of 12 bits: products of such are exact."""
    scaled = x * 4097.0
    high = scaled - (scaled - x)
    return high, x - high


def _product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a * b, and what rounding took from it."""
    p = a * b
    (ah, al), (bh, bl) = _split(a), _split(b)
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


# ---- logarithms


def _parts(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(f, e, c) of a number above zero: x = (1 + f) * 2**e with f in [-0.30, 0.42), and log(1 + f) = f + c."""
    small = x < 1
    m, e = torch.where(small, x * 2.0**126, x), torch.where(small, -126.0, 0.0)
    tiny = m < 1
    m, e = torch.where(tiny, m * 2.0**24, m), torch.where(tiny, e - 24, e)
    for power in (64, 32, 16, 8, 4, 2, 1):
        large = m >= 2.0**power
        m, e = torch.where(large, m * 2.0**-power, m), torch.where(large, e + power, e)
    large = m > math.sqrt(2)
    m, e = torch.where(large, m * 0.5, m), torch.where(large, e + 1, e)
    f = m - 1
    square = f * f
    return f, e, (f * square) * _horner(LOG_P, f) - square * 0.5


def _special_log(y: Tensor, x: Tensor) -> Tensor:
    """-Inf at zero, NaN below, Inf at Inf; NaN stays."""
    y = torch.where(x == 0, -INF, torch.where(x == INF, INF, y))
    return torch.where(x < 0, NAN, y)


def log(x: Tensor) -> Tensor:
    f, e, c = _parts(x)
    return _special_log(((c + e * LN2_LOW) + f) + e * LN2_HIGH, x)


def log2(x: Tensor) -> Tensor:
    f, e, c = _parts(x)
    return _special_log((((c * LOG2_E + f * LOG2_E) + c) + f) + e, x)


def log10(x: Tensor) -> Tensor:
    f, e, c = _parts(x)
    y = ((e * LOG10_2[1] + (f + c) * LOG10_E[1]) + c * LOG10_E[0]) + f * LOG10_E[0]
    return _special_log(y + e * LOG10_2[0], x)


def log1p(x: Tensor) -> Tensor:
    """log(u) of the rounded u = 1 + x, and what rounding took."""
    u = x + 1
    lost = torch.where((u > 0) & (x < 2.0**24), (x - (u - 1)) / u, 0.0)
    return torch.where(x == 0, x, log(u) + lost)


# ---- exponentials


def expm1(x: Tensor) -> Tensor:
    near = (x * x) * _horner(EXPM1_P, x) + x
    return torch.where(x == 0, x, torch.where(x.abs() < 1, near, _exp(x) - 1))


def _half_exp(a: Tensor) -> Tensor:
    """exp(a) / 2 of numbers from zero on, finite up to 89.4."""
    return torch.where(a > 80, _exp(a - 2) * (math.exp(2) / 2), _exp(a) * 0.5)


def sinh(x: Tensor) -> Tensor:
    size = x.abs()
    half = _half_exp(size)
    far = half - torch.full((), 0.25) / half
    return torch.where(size < 1, x * _horner(SINH_P, x * x) + x, _signed(far, x))


def cosh(x: Tensor) -> Tensor:
    half = _half_exp(x.abs())
    return half + torch.full((), 0.25) / half


def asinh(x: Tensor) -> Tensor:
    size = x.abs()
    large = size > 2.0**28
    square = size * size
    sum_ = torch.where(large, size, size + square / (_sqrt(square + 1) + 1))
    y = log1p(sum_)
    return _signed(torch.where(large, y + math.log(2), y), x)


def acosh(x: Tensor) -> Tensor:
    large = x > 2.0**28
    t = x - 1
    y = log1p(torch.where(large, x, t + _sqrt(t * t + (t + t))))
    return torch.where(x < 1, NAN, torch.where(large, y + math.log(2), y))


def atanh(x: Tensor) -> Tensor:
    size = x.abs()
    twice = torch.where(size > 1, NAN, size + size)
    return _signed(log1p(twice + (twice * size) / (torch.full((), 1.0) - size)) * 0.5, x)


# ---- circular functions


def _nearest(x: Tensor) -> Tensor:
    """The integer next to a number below 2**22."""
    return (x + SHIFT) - SHIFT


def _angle(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(q, high, low) of |x|: it is high + low + q * pi/2 modulo 2 pi, where q is one of -2 … 2, and high at most pi/4
    in size.

    The 24 bits of x, as an integer, times 2/pi * 2**e modulo 4, which is looked up (Payne and Hanek): both in pieces of
    12 bits, so that every product is exact, and every sum until the last places.
    """
    size = torch.where(x.abs() == INF, NAN, x.abs())
    below = size < 1
    m, row = torch.where(below, size + size, size), (~below).to(torch.int32)
    for power in (64, 32, 16, 8, 4, 2, 1, 1):
        large = m >= 2.0**power
        m, row = torch.where(large, m * 2.0**-power, m), row + large.to(torch.int32) * power
    digits = torch.embedding(ops.quarter_turns(torch.arange(LARGEST + 1)), row)
    pieces = [part for place in range(4) for part in _halves(digits[..., place], 2.0 ** (-10 - 24 * place))]
    high, low = _halves(m * 2.0**23, 2.0**12)
    first, *rest = [low * a + high * b for a, b in pairwise(pieces)]
    first = first - _nearest(first * 0.25) * 4
    turns = _nearest(first)
    total = (first - turns) + rest[0]
    more = _nearest(total)
    turns, total, left = turns + more, total - more, torch.zeros_like(total)
    for part in rest[1:4]:
        found = total + part
        total, left = found, left + ((total - found) + part)
    left = left + rest[4]
    angle, lost = _product(total, torch.full((), HALF_PI[0]))
    lost = lost + (total * HALF_PI[1] + left * HALF_PI[0])
    near = size < math.pi / 4
    q = torch.where(near, 0.0, turns - _nearest(turns * 0.25) * 4)
    return q, torch.where(near, size, angle), torch.where(near, 0.0, lost)


def _halves(x: Tensor, unit: float) -> tuple[Tensor, Tensor]:
    """x as a multiple of `unit` and the rest, at most half of it."""
    shift = SHIFT * unit
    whole = (x + shift) - shift
    return whole, x - whole


def _sine(high: Tensor, low: Tensor) -> Tensor:
    return (high * _horner(SIN_P, high * high) + low) + high


def _cosine(high: Tensor, low: Tensor) -> Tensor:
    square = high * high
    return ((square * square) * _horner(COS_P, square) - high * low) - square * 0.5 + 1


def sin(x: Tensor) -> Tensor:
    q, high, low = _angle(x)
    y = torch.where(q.abs() == 1, _cosine(high, low), _sine(high, low))
    return _signed(torch.where((q < 0) | (q == 2), -y, y), x)


def cos(x: Tensor) -> Tensor:
    q, high, low = _angle(x)
    y = torch.where(q.abs() == 1, _sine(high, low), _cosine(high, low))
    return torch.where((q.abs() == 2) | (q == 1), -y, y)


def tan(x: Tensor) -> Tensor:
    q, high, low = _angle(x)
    square = high * high
    y = (high * _horner(TAN_P, square) + (low + low * square)) + high
    return _signed(torch.where(q.abs() == 1, torch.full((), -1.0) / y, y), x)


def _atan(size: Tensor) -> tuple[Tensor, Tensor]:
    """The arc of a number from zero on, as a sum."""
    large, middle = size > math.tan(3 * math.pi / 8), size > math.tan(math.pi / 8)
    t = torch.where(middle, (size - 1) / (size + 1), size)
    t = torch.where(large, torch.full((), -1.0) / size, t)
    share = torch.where(large, 0.5, torch.where(middle, 0.25, 0.0))
    return share * PI_HIGH, (t * _horner(ATAN_P, t * t) + share * PI_LOW) + t


def atan(x: Tensor) -> Tensor:
    high, low = _atan(x.abs())
    return _signed(high + low, x)


def atan2(y: Tensor, x: Tensor) -> Tensor:
    """The angle of the point (x, y). Zeros have signs, which their reciprocals tell."""
    high, wide = y.abs(), x.abs()
    steep = torch.where((high == INF) & (wide == INF), 1.0, high / wide)
    base, rest = _atan(torch.where((high == 0) & (wide == 0), 0.0, steep))
    left = _negative(x)
    angle = torch.where(left, ((PI_HIGH - base) - rest) + PI_LOW, base + rest)
    return torch.where(_negative(y), -angle, angle)


def _negative(x: Tensor) -> Tensor:
    return torch.where(x == 0, ops.activation(x, "recip"), x) < 0


def _asin(size: Tensor) -> tuple[Tensor, Tensor]:
    """(large, p): the arc sine is p, or pi/2 - 2p of what is `large`."""
    large = size > 0.5
    square = torch.where(large, (torch.full((), 1.0) - size) * 0.5, size * size)
    root = torch.where(large, _sqrt(square), size)
    return large, root * _horner(ASIN_P, square) + root


def asin(x: Tensor) -> Tensor:
    large, p = _asin(x.abs())
    return _signed(torch.where(large, (PI_HIGH / 2 - (p + p)) + PI_LOW / 2, p), x)


def acos(x: Tensor) -> Tensor:
    large, p = _asin(x.abs())
    twice = p + p
    far = torch.where(x < 0, (PI_HIGH - twice) + PI_LOW, twice)
    return torch.where(large, far, (PI_HIGH / 2 - torch.where(x < 0, -p, p)) + PI_LOW / 2)


# ---- powers


def _long_log(x: Tensor) -> tuple[Tensor, Tensor]:
    """log of a number above zero as a sum: 2 atanh(f / (f + 2)) + e log 2, the quotient in two numbers."""
    f, e, _ = _parts(x)
    d = f + 2
    t = f / d
    p, lost = _product(t, d)
    rest = (((f - p) - lost) - t * (f - (d - 2))) / d
    square = t * t
    high, twice = e * LN2_HIGH, t + t
    total = high + twice
    low = torch.where(e == 0, 0.0, (high - total) + twice)
    rest = (rest + rest) * (square + 1)
    low = low + (((twice * square) * _horner(ATANH_P, square) + rest) + e * LN2_LOW)
    found = total + low
    return found, low - (found - total)


def _power(size: Tensor, y: Tensor) -> Tensor:
    """exp(y * log(size)) of numbers above zero, the exponent as a sum."""
    y = torch.where(y > 2.0**60, 2.0**60, torch.where(y < -(2.0**60), -(2.0**60), y))
    high, low = _long_log(size)
    p, lost = _product(high, y)
    p = torch.where(p > 93, 93.0, torch.where(p < -120, -120.0, p))
    rest = torch.where((p < 93) & (p > -120), lost + low * y, 0.0)
    z = p + rest
    rest = rest - (z - p)
    steps = torch.where(z > 80, 8.0, torch.where(z < -80, -32.0, 0.0))
    r = _exp(z - steps * LN2_LONG[0])
    r = r * (rest - steps * LN2_LONG[1]) + r
    return r * torch.where(z > 80, 2.0**8, torch.where(z < -80, 2.0**-32, 1.0))


def power(x: Tensor, y: Tensor) -> Tensor:
    size, whole, half = x.abs(), nearest(y) == y, y * 0.5
    r = _power(size, y)
    r = torch.where(size == 0, torch.where(y > 0, 0.0, INF), torch.where(size == INF, torch.where(y > 0, INF, 0.0), r))
    r = torch.where(_negative(x) & whole & (nearest(half) != half), -r, r)
    r = torch.where((x < 0) & (x > -INF) & ~whole, NAN, torch.where(y != y, y, r))
    return torch.where((x == 1) | (y == 0), 1.0, r)


def _pow(x: Any, y: Any) -> Answer:
    """What `select` has no rule for: its exponents are products and roots."""
    known = y if isinstance(y, (int, float)) else None
    if not torch.result_type(x, y).is_floating_point or known in (1, 2, 3, 0.5, -0.5):
        return NotImplemented
    if known in (-1, -2):
        return torch.reciprocal(x) if known == -1 else single(lambda x: torch.reciprocal(x * x))(x)
    return of_two(power)(x, y)


def of_two(function: Callable[[Tensor, Tensor], Tensor]) -> Composed:
    """A function of two float32, rounded once to the type of both."""

    def widened(a: Any, b: Any) -> Tensor:
        kind = torch.result_type(a, b)
        kind = kind if kind.is_floating_point else torch.float32
        a, b = (_tensor(given, kind).to(torch.float32) for given in (a, b))
        return function(a, b).to(kind)

    return widened


def _tensor(given: Tensor | float, kind: torch.dtype) -> Tensor:
    return given.to(kind) if isinstance(given, Tensor) else torch.full((), given, dtype=kind)


DECOMPOSITIONS: Mapping[OpOverload, Composed] = {
    **{
        getattr(aten, function.__name__).default: single(function)
        for function in (
            log, log2, log10, log1p, expm1, sinh, cosh, asinh, acosh, atanh, sin, cos, tan, atan, asin, acos,
        )
    },
    aten.atan2.default: of_two(atan2),
    **dict.fromkeys((aten.pow.Tensor_Tensor, aten.pow.Tensor_Scalar, aten.pow.Scalar), _pow),
}  # fmt: skip
