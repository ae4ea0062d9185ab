"""The chip's functions in float32, one rounded operation after the other, as docs/numerics.md defines them.

The constants are words of `isa.constants`; the arithmetic here is the emulator's own. Every function takes a contiguous
float32 array and may overwrite it. Selections of special values are skipped when a minimum and a maximum show that no
element needs them.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from emulator.formats import Floats, float_of_bits
from isa import constants


def _row(words: tuple[int, ...]) -> tuple[np.float32, ...]:
    return tuple(float_of_bits(word) for word in words)


ONE: Final = np.float32(1)
TWO: Final = np.float32(2)
HALF: Final = np.float32(0.5)
ZERO: Final = np.float32(0)
INF: Final = np.float32(np.inf)
EXP_MIN, EXP_MAX = _row((constants.EXP_MIN, constants.EXP_MAX))
LOG2E, EXP_C1, EXP_C2 = _row((constants.LOG2E, constants.EXP_C1, constants.EXP_C2))
EXP_P: Final = _row(constants.EXP_P)
ERF_SPLIT, ERF_MAX, ERF_CENTRE = _row((constants.ERF_SPLIT, constants.ERF_MAX, constants.ERF_CENTRE))
ERF_P, ERF_R = _row(constants.ERF_P), _row(constants.ERF_R)
TANH_SPLIT, SQRT_HALF, SQRT_2_OVER_PI, GELU_CUBIC = _row(
    (constants.TANH_SPLIT, constants.SQRT_HALF, constants.SQRT_2_OVER_PI, constants.GELU_CUBIC)
)
TANH_P: Final = _row(constants.TANH_P)


def horner(x: Floats, coefficients: tuple[np.float32, ...]) -> Floats:
    """p = c0; p = p*x + c for each further c, product and sum each rounded."""
    p = np.multiply(x, coefficients[0])
    np.add(p, coefficients[1], out=p)
    for c in coefficients[2:]:
        np.multiply(p, x, out=p)
        np.add(p, c, out=p)
    return p


def exp(x: Floats) -> Floats:
    y = _exp_inside(np.clip(x, EXP_MIN, EXP_MAX))
    if not (x.min() >= EXP_MIN):
        np.copyto(y, ZERO, where=x < EXP_MIN)
        np.copyto(y, x, where=np.isnan(x))
    if not (x.max() <= EXP_MAX):
        np.copyto(y, INF, where=x > EXP_MAX)
    return y


def _exp_inside(r: Floats) -> Floats:
    """exp on the range where 2**n is a normal number; overwrites r. NaN stays NaN."""
    n = np.multiply(r, LOG2E)
    np.rint(n, out=n)
    t = np.multiply(n, EXP_C1)
    np.subtract(r, t, out=r)
    np.multiply(n, EXP_C2, out=t)
    np.subtract(r, t, out=r)
    p = horner(r, EXP_P)
    np.multiply(r, r, out=t)
    np.multiply(p, t, out=p)
    np.add(p, r, out=p)
    np.add(p, ONE, out=p)
    power = t.view(np.int32)
    np.copyto(power, n, casting="unsafe")  # of NaN: -2**31 on x86, 0 on Arm; shifted, both are 0
    np.left_shift(power, 23, out=power)
    bits = p.view(np.int32)
    np.add(bits, power, out=bits)
    return p


def _odd(x: Floats, size: Floats, near: Floats, far: Floats, split: np.float32) -> Floats:
    """near where |x| < split, else far with the sign of x. By bits, as masked copies cost ten times as much.

    Bits of non-negative floats order as integers do, and those of NaN lie above all others, so NaN takes far.
    """
    sign = np.bitwise_and(x.view(np.uint32), np.uint32(0x80000000))
    chosen = far.view(np.uint32)
    np.bitwise_or(chosen, sign, out=chosen)
    mask = np.subtract(size.view(np.int32), split.view(np.int32))
    np.right_shift(mask, 31, out=mask)
    other = near.view(np.uint32)
    np.bitwise_xor(other, chosen, out=other)
    np.bitwise_and(other, mask.view(np.uint32), out=other)
    np.bitwise_xor(other, chosen, out=other)
    return near


def _near(x: Floats, coefficients: tuple[np.float32, ...]) -> Floats:
    y = horner(np.multiply(x, x), coefficients)
    np.multiply(x, y, out=y)
    return np.add(y, x, out=y)


def erf(x: Floats) -> Floats:
    """A polynomial near 0; beyond the split 1 - exp(-b*b)*R(b - 2), with the sign of x."""
    size, near = np.abs(x), _near(x, ERF_P)
    if size.max() < ERF_SPLIT:
        return near
    b = np.minimum(size, ERF_MAX)
    square = np.multiply(b, b)
    far = _exp_inside(np.negative(square, out=square))
    np.subtract(b, ERF_CENTRE, out=b)
    np.multiply(far, horner(b, ERF_R), out=far)
    np.subtract(ONE, far, out=far)
    return _odd(x, size, near, far, ERF_SPLIT)


def tanh(x: Floats) -> Floats:
    """A polynomial near 0; beyond the split 1 - 2/(1 + exp(2|x|)), with the sign of x. Beyond 88 that is 1 without any
    selection."""
    size, near = np.abs(x), _near(x, TANH_P)
    if size.max() < TANH_SPLIT:
        return near
    twice = np.add(size, size)
    far = _exp_inside(np.minimum(twice, EXP_MAX, out=twice))
    np.add(far, ONE, out=far)
    np.divide(ONE, far, out=far)
    np.multiply(far, TWO, out=far)
    np.subtract(ONE, far, out=far)
    return _odd(x, size, near, far, TANH_SPLIT)


def sigmoid(x: Floats) -> Floats:
    y = exp(np.negative(x))
    np.add(y, ONE, out=y)
    return np.divide(ONE, y, out=y)


def silu(x: Floats) -> Floats:
    y = sigmoid(x)
    return np.multiply(x, y, out=y)


def gelu_erf(x: Floats) -> Floats:
    y = erf(np.multiply(x, SQRT_HALF))
    np.add(y, ONE, out=y)
    np.multiply(x, HALF, out=x)
    return np.multiply(x, y, out=x)


def gelu_tanh(x: Floats) -> Floats:
    t = np.multiply(x, x)
    np.multiply(t, x, out=t)
    np.multiply(t, GELU_CUBIC, out=t)
    np.add(x, t, out=t)
    np.multiply(t, SQRT_2_OVER_PI, out=t)
    y = tanh(t)
    np.add(y, ONE, out=y)
    np.multiply(x, HALF, out=x)
    return np.multiply(x, y, out=x)


def sqrt(x: Floats) -> Floats:
    return np.sqrt(x.astype(np.float64)).astype(np.float32)


def rsqrt(x: Floats) -> Floats:
    return np.divide(ONE, sqrt(x))


def recip(x: Floats) -> Floats:
    return np.divide(ONE, x, out=x)


def relu(x: Floats) -> Floats:
    np.copyto(x, ZERO, where=x <= 0)
    return x


FUNCTIONS: Final[Mapping[str, Callable[[Floats], Floats]]] = {
    "exp": exp,
    "gelu_erf": gelu_erf,
    "gelu_tanh": gelu_tanh,
    "silu": silu,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "rsqrt": rsqrt,
    "recip": recip,
    "sqrt": sqrt,
    "erf": erf,
    "relu": relu,
}
