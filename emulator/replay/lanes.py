"""The chip's functions for one float32, without branches, so that LLVM turns a loop over them into vector code.

Every step is one rounded operation (no fast-math, nothing is contracted), in the order of docs/numerics.md: the same
bits as emulator/functions.py, which a test proves on all kinds of values.
"""

import math
from typing import Any, Final

import numpy as np
from numba import njit

from emulator import functions as f
from emulator.replay.intrinsics import bits_of, float_of

inline: Final[Any] = njit(nogil=True, forceinline=True)
ZERO, ONE, TWO, HALF, INF = f.ZERO, f.ONE, f.TWO, f.HALF, f.INF
EXP_MIN, EXP_MAX, LOG2E, EXP_C1, EXP_C2 = f.EXP_MIN, f.EXP_MAX, f.LOG2E, f.EXP_C1, f.EXP_C2
P0, P1, P2, P3, P4, P5 = f.EXP_P
ERF_SPLIT, ERF_MAX, ERF_CENTRE = f.ERF_SPLIT, f.ERF_MAX, f.ERF_CENTRE
A0, A1, A2, A3, A4, A5, A6 = f.ERF_P
B0, B1, B2, B3, B4, B5, B6, B7 = f.ERF_R
C0, C1, C2, C3, C4, C5 = f.TANH_P
TANH_SPLIT, SQRT_HALF, SQRT_2_OVER_PI, GELU_CUBIC = f.TANH_SPLIT, f.SQRT_HALF, f.SQRT_2_OVER_PI, f.GELU_CUBIC
SIGN: Final = np.int32(-(2**31))
SIZE: Final = np.int32(2**31 - 1)


@inline
def exp_inside(r):
    n = np.rint(r * LOG2E)
    r = (r - n * EXP_C1) - n * EXP_C2
    p = r * P0 + P1
    p = p * r + P2
    p = p * r + P3
    p = p * r + P4
    p = p * r + P5
    p = (p * (r * r) + r) + ONE
    whole = np.int32(n if n == n else ZERO)
    return float_of(np.int32(bits_of(p) + np.int32(whole << 23)))


@inline
def exp(x):
    y = exp_inside(EXP_MIN if x < EXP_MIN else (EXP_MAX if x > EXP_MAX else x))
    y = ZERO if x < EXP_MIN else y
    y = INF if x > EXP_MAX else y
    return y if x == x else x


@inline
def odd(x, size, near, far, split):
    signed = float_of(np.int32(bits_of(far) | (bits_of(x) & SIGN)))
    return near if size < split else signed


@inline
def absolute(x):
    return float_of(np.int32(bits_of(x) & SIZE))


@inline
def erf(x):
    size = absolute(x)
    z = x * x
    near = x * ((((((z * A0 + A1) * z + A2) * z + A3) * z + A4) * z + A5) * z + A6) + x
    b = ERF_MAX if size > ERF_MAX else size
    far = exp_inside(-(b * b))
    c = b - ERF_CENTRE
    far = ONE - far * (((((((c * B0 + B1) * c + B2) * c + B3) * c + B4) * c + B5) * c + B6) * c + B7)
    return odd(x, size, near, far, ERF_SPLIT)


@inline
def tanh(x):
    size = absolute(x)
    z = x * x
    near = x * (((((z * C0 + C1) * z + C2) * z + C3) * z + C4) * z + C5) + x
    twice = size + size
    far = exp_inside(EXP_MAX if twice > EXP_MAX else twice)
    far = ONE - (ONE / (far + ONE)) * TWO
    return odd(x, size, near, far, TANH_SPLIT)


@inline
def sigmoid(x):
    return ONE / (exp(-x) + ONE)


@inline
def silu(x):
    return x * sigmoid(x)


@inline
def gelu_erf(x):
    return (x * HALF) * (erf(x * SQRT_HALF) + ONE)


@inline
def gelu_tanh(x):
    t = ((x * x) * x) * GELU_CUBIC
    return (x * HALF) * (tanh((x + t) * SQRT_2_OVER_PI) + ONE)


@inline
def sqrt(x):
    return np.float32(math.sqrt(np.float64(x)))


@inline
def rsqrt(x):
    return ONE / np.float32(math.sqrt(np.float64(x)))


@inline
def recip(x):
    return ONE / x


@inline
def relu(x):
    return ZERO if x <= ZERO else x


BY_NAME: Final[dict[str, Any]] = {
    "exp": exp, "gelu_erf": gelu_erf, "gelu_tanh": gelu_tanh, "silu": silu, "sigmoid": sigmoid, "tanh": tanh,
    "rsqrt": rsqrt, "recip": recip, "sqrt": sqrt, "erf": erf, "relu": relu,
}  # fmt: skip
