"""The formulas of docs/numerics.md in numpy, for the worked examples: slow, plain, and nothing of the emulator in
it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
F32 = np.float32
_EXP = tuple(
    np.array([bits], np.uint32).view(np.float32)[0]
    for bits in (0x39506967, 0x3AB743CE, 0x3C088908, 0x3D2AA9C1, 0x3E2AAAAA, 0x3F000000)
)


def exp(x: Array) -> Array:
    z = np.clip(x, F32(-87), F32(88))
    n = np.rint(z * F32(1.44269504088896341))
    r = (z - n * F32(0.693359375)) - n * F32(-2.12194440e-4)
    p = np.full_like(r, _EXP[0])
    for coefficient in _EXP[1:]:
        p = p * r + coefficient
    y = ((p * (r * r)) + r) + F32(1)
    y = np.ldexp(y, n.astype(np.int32)).astype(F32)
    return np.where(x < F32(-87), F32(0), np.where(x > F32(88), F32(np.inf), y))


def row_sum(row: Array) -> np.float32:
    """64 accumulators in turns, then halved."""
    lanes = np.zeros(64, F32)
    for i, value in enumerate(row):
        lanes[i % 64] = lanes[i % 64] + value
    step = 32
    while step:
        for i in range(step):
            lanes[i] = lanes[i] + lanes[i + step]
        step //= 2
    return F32(lanes[0])


def exp_rows(x: Array) -> tuple[Array, Array]:
    """exp(x - max) and the reciprocals of the rows' sums."""
    e = exp(x - (x.max(axis=-1, keepdims=True) + F32(0)))
    totals = np.array([row_sum(row) for row in e], F32)
    return e, F32(1) / totals


def softmax(x: Array) -> Array:
    e, r = exp_rows(x)
    return e * r[:, None]


def quantize_rows(x: Array) -> tuple[Array, Array]:
    m = np.abs(x).max(axis=-1)
    s = np.maximum(m / F32(127.5), F32(2.0**-23))
    q = np.clip(np.rint(x * (F32(1) / s)[:, None]), -128, 127)
    return q.astype(np.int8), s


def attention(q: Array, k: Array, v: Array) -> Array:
    (qi, sq), (ki, sk), (vi, sv) = quantize_rows(q), quantize_rows(k), quantize_rows(v)
    scores = (qi.astype(np.int64) @ ki.T.astype(np.int64)).astype(F32)
    s = (scores * (sq * F32(1 / np.sqrt(q.shape[1])))[:, None]) * sk[None, :]
    e, r = exp_rows(s)
    pi, sp = quantize_rows((e * r[:, None]) * sv[None, :])
    return (pi.astype(np.int64) @ vi.astype(np.int64)).astype(F32) * sp[:, None]
