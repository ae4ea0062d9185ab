"""The formulas of docs/numerics.md once more, one plain Python number at a time.

A float32 operation is a float64 operation rounded once more to float32 (exact for + - * /: float64 has more than twice
the bits). Written from the page; shares nothing with compiler/reference but the constants.
"""

import math
import struct
from collections.abc import Callable, Sequence

from isa import constants

NAN = float("nan")
INF = float("inf")


def from_bits(word: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", word))[0])


def to_bits(value: float) -> int:
    return 0x7FC00000 if math.isnan(value) else int(struct.unpack("<I", struct.pack("<f", value))[0])


def f32(value: float) -> float:
    """Round a float64 to float32, to nearest even, overflowing to Inf."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(INF, value)


def bf16(value: float) -> float:
    """Round a float32 to bfloat16, on the integer: half of the last place, minus one, plus the last bit kept."""
    word = to_bits(value)
    return value if math.isnan(value) else from_bits((word + 0x7FFF + (word >> 16 & 1)) & 0xFFFF0000)


def add(a: float, b: float) -> float:
    return f32(a + b)


def mul(a: float, b: float) -> float:
    return f32(a * b)


def div(a: float, b: float) -> float:
    if b == 0:
        return NAN if a == 0 or math.isnan(a) else math.copysign(INF, a) * math.copysign(1.0, b)
    return f32(a / b)


def horner(words: Sequence[int], r: float) -> float:
    y = from_bits(words[0])
    for word in words[1:]:
        y = add(mul(y, r), from_bits(word))
    return y


def exp(x: float) -> float:
    if math.isnan(x) or x < -87 or x > 88:
        return NAN if math.isnan(x) else 0.0 if x < 0 else INF
    n = float(round(mul(x, from_bits(constants.LOG2E))))
    r = add(add(x, -mul(n, from_bits(constants.EXP_C1))), -mul(n, from_bits(constants.EXP_C2)))
    y = add(add(mul(horner(constants.EXP_P, r), mul(r, r)), r), 1.0)
    return f32(math.ldexp(y, int(n)))


def erf(x: float) -> float:
    a = abs(x)
    if a < 1:
        return add(mul(x, horner(constants.ERF_P, mul(x, x))), x)
    b = 4.0 if a > 4 else a
    return math.copysign(add(1.0, -mul(exp(-mul(b, b)), horner(constants.ERF_R, add(b, -2.0)))), x)


def tanh(x: float) -> float:
    a = abs(x)
    if a < 0.625:
        return add(mul(x, horner(constants.TANH_P, mul(x, x))), x)
    return math.copysign(add(1.0, -mul(2.0, div(1.0, add(1.0, exp(add(a, a)))))), x)


def sigmoid(x: float) -> float:
    return div(1.0, add(1.0, exp(-x)))


def silu(x: float) -> float:
    return mul(x, sigmoid(x))


def gelu_erf(x: float) -> float:
    return mul(mul(x, 0.5), add(1.0, erf(mul(x, from_bits(constants.SQRT_HALF)))))


def gelu_tanh(x: float) -> float:
    cubic = mul(mul(mul(x, x), x), from_bits(constants.GELU_CUBIC))
    return mul(mul(x, 0.5), add(1.0, tanh(mul(add(x, cubic), from_bits(constants.SQRT_2_OVER_PI)))))


def sqrt(x: float) -> float:
    return x if x == 0 or math.isnan(x) else NAN if x < 0 else f32(math.sqrt(x))


def rsqrt(x: float) -> float:
    return div(1.0, sqrt(x))


def recip(x: float) -> float:
    return div(1.0, x)


def relu(x: float) -> float:
    return 0.0 if x <= 0 else x


FUNCTIONS: dict[str, Callable[[float], float]] = {
    f.__name__: f for f in (exp, gelu_erf, gelu_tanh, silu, sigmoid, tanh, rsqrt, recip, sqrt, erf, relu)
}


def tree_sum(values: Sequence[float]) -> float:
    lanes = [0.0] * 64
    for i, value in enumerate(values):
        lanes[i % 64] = add(lanes[i % 64], value)
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [add(lanes[j], lanes[j + half]) for j in range(half)]
    return lanes[0]


def quantize(values: Sequence[float], narrow: Callable[[float], float] = f32) -> tuple[list[int], float]:
    """One row: integers and scale. `narrow` rounds to the type of the row."""
    if any(math.isnan(v) for v in values):
        return [0] * len(values), NAN
    largest = max((abs(v) for v in values), default=0.0)
    scale = max(narrow(f32(largest / 127.5)), 2.0**-23)
    inverse = div(1.0, scale)
    scaled = [mul(v, inverse) for v in values]
    return [0 if math.isnan(v) else max(-128, min(127, round(v))) for v in scaled], scale


def softmax(values: Sequence[float], zero_masked_rows: bool = False) -> list[float]:
    if any(math.isnan(v) for v in values):
        return [NAN] * len(values)
    top = max(values)
    if zero_masked_rows and top == -INF:
        return [0.0] * len(values)
    weights = [exp(f32(v - top)) for v in values]
    inverse = div(1.0, tree_sum(weights))
    return [mul(w, inverse) for w in weights]


def layer_norm(values: Sequence[float], weight: Sequence[float], bias: Sequence[float], eps: float) -> list[float]:
    share = f32(1 / len(values))
    mean = mul(tree_sum(values), share)
    centred = [add(v, -mean) for v in values]
    variance = mul(tree_sum([mul(d, d) for d in centred]), share)
    r = rsqrt(add(variance, f32(eps)))
    return [add(mul(mul(d, r), w), b) for d, w, b in zip(centred, weight, bias, strict=True)]
