"""The arithmetic of docs/numerics.md, one float32 operation after the other."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from isa import constants as k
from isa.architecture import Dtype

F = np.float32


def f32(x: Any) -> np.float32:
    return F(x)


def of_bits(word: int) -> np.float32:
    return F(np.frombuffer(word.to_bytes(4, "little"), F)[0])


def bits_of(x: np.float32) -> int:
    return int.from_bytes(F(x).tobytes(), "little")


def narrow(x: np.float32, dtype: Dtype) -> np.float32:
    """Round to a type and widen again. bf16 by integers: half of the dropped part is a tie, which goes to even."""
    if dtype is Dtype.F16:
        return f32(np.float16(x))
    if dtype is not Dtype.BF16 or x != x:
        return f32(x)
    word = bits_of(x)
    high, low = word >> 16, word & 0xFFFF
    if low > 0x8000 or (low == 0x8000 and high % 2):
        high += 1
    return of_bits(high << 16)


def ordered_sum(row: Sequence[np.float32]) -> np.float32:
    lanes = [f32(0)] * 64
    for i, x in enumerate(row):
        lanes[i % 64] = f32(lanes[i % 64] + x)
    for half in (32, 16, 8, 4, 2, 1):
        lanes = [f32(lanes[j] + lanes[j + half]) for j in range(half)]
    return lanes[0]


def reduce_row(f: str, row: Sequence[np.float32]) -> Any:
    if f == "sum":
        return ordered_sum(row)
    if f == "sumsq":
        return ordered_sum([f32(x * x) for x in row])
    nan = [i for i, x in enumerate(row) if x != x]
    if f == "argmax":
        return nan[0] if nan else next(i for i, x in enumerate(row) if x == max(row))
    if nan:
        return f32(math.nan)
    values = [abs(x) for x in row] if f == "absmax" else row
    return f32(min(values) if f == "min" else max(values)) + f32(0)


def horner(words: Sequence[int], r: np.float32) -> np.float32:
    y = of_bits(words[0])
    for word in words[1:]:
        y = f32(f32(y * r) + of_bits(word))
    return y


def exp(x: np.float32) -> np.float32:
    z = x if x > -87 else f32(-87)
    z = z if z < 88 else f32(88)
    n = f32(round(float(f32(z * of_bits(k.LOG2E)))))
    r = f32(f32(z - f32(n * of_bits(k.EXP_C1))) - f32(n * of_bits(k.EXP_C2)))
    p = horner(k.EXP_P, r)
    y = f32(f32(f32(p * f32(r * r)) + r) + f32(1))
    y = of_bits(bits_of(y) + (int(n) << 23))
    if x != x:
        return x
    return f32(0) if x < -87 else f32(math.inf) if x > 88 else y


def erf(x: np.float32) -> np.float32:
    a = abs(x)
    if a < 1:
        return f32(f32(x * horner(k.ERF_P, f32(x * x))) + x)
    b = f32(4) if a > 4 else a
    far = f32(-f32(exp(-f32(b * b)) * horner(k.ERF_R, f32(b - f32(2)))) + f32(1))
    return -far if x < 0 else far


def tanh(x: np.float32) -> np.float32:
    a = abs(x)
    if a < 0.625:
        return f32(f32(x * horner(k.TANH_P, f32(x * x))) + x)
    e = f32(f32(f32(1) / f32(exp(f32(a + a)) + f32(1))) * f32(2))
    far = f32(-e + f32(1))
    return -far if x < 0 else far


def sigmoid(x: np.float32) -> np.float32:
    return f32(f32(1) / f32(exp(-x) + f32(1)))


def gelu_erf(x: np.float32) -> np.float32:
    return f32(f32(x * f32(0.5)) * f32(erf(f32(x * of_bits(k.SQRT_HALF))) + f32(1)))


def gelu_tanh(x: np.float32) -> np.float32:
    cube = f32(f32(f32(x * x) * x) * of_bits(k.GELU_CUBIC))
    return f32(f32(x * f32(0.5)) * f32(tanh(f32(f32(x + cube) * of_bits(k.SQRT_2_OVER_PI))) + f32(1)))


def sqrt(x: np.float32) -> np.float32:
    return f32(np.sqrt(np.float64(x)))


FUNCTIONS: dict[str, Callable[[np.float32], np.float32]] = {
    "exp": exp,
    "gelu_erf": gelu_erf,
    "gelu_tanh": gelu_tanh,
    "silu": lambda x: f32(x * sigmoid(x)),
    "sigmoid": sigmoid,
    "tanh": tanh,
    "rsqrt": lambda x: f32(f32(1) / sqrt(x)),
    "recip": lambda x: f32(f32(1) / x),
    "sqrt": sqrt,
    "erf": erf,
    "relu": lambda x: f32(0) if x <= 0 else x,
}
