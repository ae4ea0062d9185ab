"""What the chip's operations mean, in stock PyTorch operations that give the same bits on every CPU.

Only operations that docs/numerics.md lists as reproducible are used: no torch.exp, sum, softmax, addcmul or `alpha`, no
float32 sqrt. Functions are pure, tensor in, tensor out, without data-dependent Python, so they trace with fake tensors.
The elementwise functions take and return float32; `activation` widens and rounds for the other types.
"""

import math
import struct
from collections.abc import Callable

import torch
from torch import Tensor

from isa import constants


def _float(word: int) -> float:
    """The value of a float32 bit pattern."""
    return float(struct.unpack("<f", struct.pack("<I", word))[0])


NAN, INF, FLT_MAX = _float(constants.NAN), _float(constants.INF), _float(constants.FLT_MAX)


TWO_OVER_PI = 0xA2F9836E4E441529FC2757D1F534DDC0DB6295993C439041FE5163ABDEBBC561B7246E3A424DD2E00649  # * 2**336
CAUSAL_BLOCK = 128  # new tokens of a step over a cache that are taken at a time: none sees the keys behind its block


def _horner(words: tuple[int, ...], x: Tensor) -> Tensor:
    """The polynomial with these coefficients: every product and every sum rounds to float32."""
    y = x * _float(words[0]) + _float(words[1])
    for word in words[2:]:
        y = y * x + _float(word)
    return y


def exp(x: Tensor) -> Tensor:
    low, high = _float(constants.EXP_MIN), _float(constants.EXP_MAX)
    z = torch.where(x > low, x, low)  # written so that NaN becomes `low`: the integer below is always defined
    z = torch.where(z < high, z, high)
    n = torch.round(z * _float(constants.LOG2E))
    r = (z - n * _float(constants.EXP_C1)) - n * _float(constants.EXP_C2)
    y = ((_horner(constants.EXP_P, r) * (r * r)) + r) + 1.0
    y = (y.view(torch.int32) + (n.to(torch.int32) << 23)).view(torch.float32)
    y = torch.where(x < low, 0.0, y)
    y = torch.where(x > high, INF, y)
    return torch.where(torch.isnan(x), NAN, y)


def _odd(x: Tensor, magnitude: Tensor, split: int, near_zero: tuple[int, ...], rest: Tensor) -> Tensor:
    """x + x*P(x*x) where |x| < split, else 1 - rest with the sign of x. NaN takes the second path."""
    near = x * _horner(near_zero, x * x) + x
    far = -rest + 1.0
    far = torch.where(x < 0, -far, far)
    return torch.where(magnitude < _float(split), near, far)


def erf(x: Tensor) -> Tensor:
    magnitude = torch.abs(x)
    b = torch.where(magnitude > _float(constants.ERF_MAX), _float(constants.ERF_MAX), magnitude)
    rest = exp(-(b * b)) * _horner(constants.ERF_R, b - _float(constants.ERF_CENTRE))
    return _odd(x, magnitude, constants.ERF_SPLIT, constants.ERF_P, rest)


def tanh(x: Tensor) -> Tensor:
    magnitude = torch.abs(x)
    rest = recip(1.0 + exp(magnitude + magnitude)) * 2.0  # torch's 2.0 / t is this too: reciprocal, then product
    return _odd(x, magnitude, constants.TANH_SPLIT, constants.TANH_P, rest)


def sigmoid(x: Tensor) -> Tensor:
    return recip(1.0 + exp(-x))


def silu(x: Tensor) -> Tensor:
    return x * sigmoid(x)


def gelu_erf(x: Tensor) -> Tensor:
    return (x * 0.5) * (1.0 + erf(x * _float(constants.SQRT_HALF)))


def gelu_tanh(x: Tensor) -> Tensor:
    cube = (x * x) * x
    return (x * 0.5) * (1.0 + tanh((x + cube * _float(constants.GELU_CUBIC)) * _float(constants.SQRT_2_OVER_PI)))


def relu(x: Tensor) -> Tensor:
    return torch.where(x <= 0, 0.0, x)


def recip(x: Tensor) -> Tensor:
    return torch.reciprocal(x)


def sqrt(x: Tensor) -> Tensor:
    return torch.sqrt(x.to(torch.float64)).to(
        torch.float32
    )  # float32 sqrt is not correctly rounded in torch's vector code


def rsqrt(x: Tensor) -> Tensor:
    return recip(sqrt(x))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    f.__name__: f for f in (exp, gelu_erf, gelu_tanh, silu, sigmoid, tanh, rsqrt, recip, sqrt, erf, relu)
}


def activation(x: Tensor, kind: str) -> Tensor:
    """The function named `kind` (`isa.spec.ACT`), float32 inside, rounded once to the type of x."""
    return ACTIVATIONS[kind](x.to(torch.float32)).to(x.dtype)


def quarter_turns(exponents: Tensor) -> Tensor:
    """2/pi * 2**(e - 24) modulo 4 for int64 exponents e [n], as the sum of 4 float32 [n, 4] of 24 bits each, of which
    the last is 2**-94: what numbers of so many bits are in quarters of a turn. Computed when packing."""
    rows = []
    for exponent in exponents.tolist():
        shift = TWO_OVER_PI.bit_length() - (exponent - 24) - 94
        value = (TWO_OVER_PI >> shift) % (1 << 96)
        row = []
        for low in (72, 48, 24, 0):
            part = (value + (1 << low >> 1)) >> low
            row.append(math.ldexp(part, low - 94))
            value -= part << low
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 4).to(torch.float32)


def tree_sum(x: Tensor, dim: int = -1) -> Tensor:
    """Float32 sum over `dim` (-1 or -2) in the chip's order: element i adds to accumulator i mod 64, then halving."""
    x = x.to(torch.float32)
    if dim == -2:
        x = x.transpose(-1, -2)
    count = x.shape[-1]
    if padding := -count % constants.SUM_LANES:
        x = torch.cat([x, x.new_zeros((*x.shape[:-1], padding))], dim=-1)
    blocks = x.reshape(*x.shape[:-1], -(-count // constants.SUM_LANES), constants.SUM_LANES)
    total = x.new_zeros((*x.shape[:-1], constants.SUM_LANES))
    for i in range(blocks.shape[-2]):
        total = total + blocks[..., i, :]
    while (width := total.shape[-1] // 2) > 0:
        total = total[..., :width] + total[..., width:]
    return total[..., 0]


def reduce(x: Tensor, kind: str, dim: int, keepdim: bool) -> Tensor:
    """sum, sumsq, max, min or absmax over dim -1 or -2, float32 inside, rounded to the type of x; -0 becomes +0."""
    y = x.to(torch.float32)
    if kind == "sumsq":
        y = y * y
    y = tree_sum(y, dim) if kind in ("sum", "sumsq") else _extreme(y, kind, dim)
    return (y.unsqueeze(dim) if keepdim else y).to(x.dtype)


def _extreme(x: Tensor, kind: str, dim: int) -> Tensor:
    if x.shape[dim] == 0:
        shape = list(x.shape)
        del shape[dim]
        return x.new_full(shape, {"max": -INF, "min": INF, "absmax": 0.0}[kind])
    if kind == "min":
        return torch.amin(x, dim) + 0.0
    return torch.amax(torch.abs(x) if kind == "absmax" else x, dim) + 0.0


def clamp(x: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    """Bounds are float32 constants; NaN stays; a zero result is +0."""
    y = x.to(torch.float32)
    if min is not None:
        y = torch.where(y < min, min, y)
    if max is not None:
        y = torch.where(y > max, max, y)
    return (y + 0.0).to(x.dtype)


def softmax(x: Tensor, zero_masked_rows: bool = False) -> Tensor:
    """Over the last dim, float32. With `zero_masked_rows` a row of -Inf only gives zeros, else NaN."""
    x = x.to(torch.float32)
    m = _extreme(x, "max", -1).unsqueeze(-1)
    if zero_masked_rows:
        m = torch.where(m < -FLT_MAX, -FLT_MAX, m)
    e = exp(x - m)
    t = tree_sum(e).unsqueeze(-1)
    if zero_masked_rows:
        t = torch.where(t < 1.0, 1.0, t)
    return e * recip(t)


def layer_norm(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, center: bool = True
) -> Tensor:
    """Over the last dim, float32 inside, rounded once to the type of x. Not centered, it is the root mean square
    norm."""
    y = x.to(torch.float32)
    share = 1.0 / x.shape[-1] if x.shape[-1] else 0.0
    d = y - (tree_sum(y) * share).unsqueeze(-1) if center else y
    variance = tree_sum(d * d) * share
    y = d * rsqrt(variance + eps).unsqueeze(-1)
    if weight is not None:
        y = y * weight.to(torch.float32)
    if bias is not None:
        y = y + bias.to(torch.float32)
    return y.to(x.dtype)


def quantize_rows(x: Tensor, col: Tensor | None = None, absmax: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Symmetric int8 per row, as torchao computes it: (int8 of x's shape, scale of x's type per row). Static where
    `absmax` [1] is given for all rows, else dynamic."""
    y = x.to(torch.float32)
    if col is not None:
        y = y * col.to(torch.float32)
    m = _extreme(y, "absmax", -1) if absmax is None else absmax.to(torch.float32).expand(y.shape[:-1])
    s = (m / _float(constants.Q_LEVELS)).to(x.dtype).to(torch.float32)
    s = torch.where(s < _float(constants.Q_MIN_SCALE), _float(constants.Q_MIN_SCALE), s)
    q = torch.round(y * recip(s).unsqueeze(-1))
    q = torch.where(torch.isnan(q), 0.0, torch.clamp(q, -128.0, 127.0))
    return q.to(torch.int8), s.to(x.dtype)


def calibrated(x: Tensor, col: Tensor | None = None, absmax: Tensor | None = None) -> Tensor:
    """x with its columns multiplied, in float32. `absmax` says nothing of the value."""
    return x if col is None else (x.to(torch.float32) * col.to(torch.float32)).to(x.dtype)


def matmul_i8(a: Tensor, b: Tensor, transpose_b: bool = False) -> Tensor:
    """Exact int32 product of int8 tensors: float matmul of integers this small rounds nowhere, in any order."""
    if transpose_b:
        b = b.transpose(-1, -2)
    exact = torch.float32 if a.shape[-1] <= 1024 else torch.float64
    return torch.matmul(a.to(exact), b.to(exact)).to(torch.int32)


def matmul_float(a: Tensor, w: Tensor, transpose_b: bool = False) -> Tensor:
    """Product of floats (w: or int8, as floats), float32: from +0 on, k ascending, product and sum each rounded."""
    left, right = a.to(torch.float32), w.to(torch.float32)
    if transpose_b:
        right = right.transpose(-1, -2)
    batch = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    total = torch.zeros((*batch, left.shape[-2], right.shape[-1]), dtype=torch.float32)
    for k in range(left.shape[-1]):
        total = total + left[..., k, None] * right[..., k, None, :]
    return total


def matmul_chosen(a: Tensor, w: Tensor, chosen: Tensor) -> Tensor:
    """Each row of int8 a [S, K] times blocks of a table of its own choice: int8 w [B, G, K], chosen [S, T]; exact int32
    [S, T * G]."""
    rows, count = chosen.shape
    blocks = w.flatten(1).index_select(0, chosen.reshape(-1)).reshape(rows, count * w.shape[1], w.shape[2])
    return matmul_i8(a.unsqueeze(1), blocks, True).squeeze(1)


def dequantize(
    c: Tensor, row: Tensor, col: Tensor | None = None, bias: Tensor | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """((f32(c)*row)*col) + bias, rounded to `dtype` after the row scale and at the end."""
    t = (c.to(torch.float32) * row.to(torch.float32).unsqueeze(-1)).to(dtype).to(torch.float32)
    if col is not None:
        t = t * col.to(torch.float32)
    if bias is not None:
        t = t + bias.to(torch.float32)
    return t.to(dtype)


def cached_attention(
    q: Tensor,
    sq: Tensor,
    k: Tensor | None,
    sk: Tensor | None,
    v: Tensor | None,
    sv: Tensor | None,
    keys: Tensor,
    key_scales: Tensor,
    values: Tensor,
    value_scales: Tensor,
    positions: Tensor,
    mask: Tensor | None = None,
    old_mask: Tensor | None = None,
    bias: Tensor | None = None,
    by_distance: bool = False,
    window: int = 0,
    softcap: float = 0.0,
    block: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Attention of T new tokens over a cache of C tokens, into which it writes them first.

    int8 q [B, H, G, T, D] with scales sq [B, H, G, T]; k [B, H, T, D] and v [B, H, T, E] with scales [B, H, T]; the
    cache keys and values int8 [B, H, C, D] and [B, H, C, E] with float32 scales [B, H, C], changed in place; positions
    int32 [B]: how many tokens of each sequence are in the cache. A new token sees them all, and the new ones as `mask`
    [T, T] says, which is added to its scores. With a `block`, new tokens are taken so many at a time, and none sees the
    new keys behind its block, whatever they are. With a `window`, it sees the last so many alone, itself included;
    `old_mask` is the table from which the chip takes what to add to the scores of old keys. `bias` float32 [H, G, N] is
    added to all scores: N is C, and element j belongs to key j; or, `by_distance`, N is 2*C - 1, and element C-1-n
    belongs to a key n tokens before the query (those behind C-1 are of keys that are not seen). Without k and v nothing
    is written, and `positions` names the last key that there is, of those that all tokens see. Result [B, H, G, T, E] of
    type `dtype`.
    """
    tokens, capacity = q.shape[-2], keys.shape[-2]
    place = torch.arange(capacity, dtype=torch.int32) - positions.unsqueeze(-1)  # [B, C], among the new tokens
    new, old = (place >= 0) & (place < tokens), place < 0
    if k is None or sk is None or v is None or sv is None:
        new, old = torch.zeros_like(new), place <= 0
    number = torch.where(new, place, 0).to(torch.int64)  # [B, C]
    for cache, rows in ((keys, k), (values, v)):
        if rows is not None:
            found = rows.gather(2, number[:, None, :, None].expand(cache.shape))
            cache.copy_(torch.where(new[:, None, :, None], found, cache))
    for cache, rows in ((key_scales, sk), (value_scales, sv)):
        if rows is not None:
            found = rows.to(torch.float32).gather(2, number[:, None, :].expand(cache.shape))
            cache.copy_(torch.where(new[:, None, :], found, cache))
    batch, heads, group, _, size = q.shape
    sums = matmul_i8(q.reshape(batch, heads, group * tokens, size), keys, True)
    scores = dequantize(
        sums.reshape(batch, heads, group, tokens, capacity), sq.to(torch.float32), key_scales[:, :, None, None, :]
    )
    if softcap:
        scores = tanh(scores * (1.0 / softcap)) * softcap
    if bias is not None:
        scores = scores + _placed(bias, positions, tokens, capacity, by_distance)
    seen = scores
    if mask is not None:
        added = mask.to(torch.float32).index_select(1, number.reshape(-1)).reshape(tokens, batch, capacity)
        seen = scores + added.permute(1, 0, 2)[:, None, None]
    row, place = torch.arange(tokens, dtype=torch.int32).unsqueeze(-1), place.unsqueeze(-2)  # [T, 1] and [B, 1, C]
    if window:
        scores = torch.where((row - place >= window)[:, None, None], scores + -INF, scores)
        old = old & (place[:, 0] > -window)
    near = new.unsqueeze(-2) & (place < ((row // block + 1) * block if block else tokens))  # [B, T, C]
    counts = (near | old.unsqueeze(-2))[:, None, None]
    scores = torch.where(counts, torch.where(new[:, None, None, None, :], seen, scores), -INF)
    weights = torch.where(counts, softmax(scores) * value_scales[:, :, None, None, :], 0.0)
    codes, scale = quantize_rows(weights)
    sums = matmul_i8(codes.reshape(batch, heads, group * tokens, capacity), values)
    return dequantize(sums.reshape(*q.shape[:-1], values.shape[-1]), scale, dtype=dtype)


def _placed(bias: Tensor, positions: Tensor, tokens: int, capacity: int, by_distance: bool) -> Tensor:
    """What is added to the scores [B, H, G, T, C] of every key."""
    if not by_distance:
        return bias[None, :, :, None]
    query = positions.to(torch.int64)[:, None, None] + torch.arange(tokens)[:, None]
    number = (capacity - 1 - query + torch.arange(capacity)).clamp(0, bias.shape[-1] - 1)  # [B, T, C]
    return bias[:, :, number].permute(2, 0, 1, 3, 4)


def attention_in_cache(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keys: Tensor,
    key_scales: Tensor,
    values: Tensor,
    value_scales: Tensor,
    positions: Tensor,
    scale: float,
    window: int,
    softcap: float,
    bias: Tensor | None = None,
    by_distance: bool = False,
) -> Tensor:
    """`cached_attention` of floats q [B, Hq, T, D], k and v [B, H, T, D], quantized by rows: [B, Hq, T, width of v];
    `bias` is [Hq, C]."""
    batch, heads, tokens, _ = q.shape
    (qq, sq), (qk, sk), (qv, sv) = (quantize_rows(x) for x in (q, k, v))
    grouped = batch, k.shape[1], heads // k.shape[1], tokens
    later = torch.full((tokens, tokens), -INF).triu(1)
    if window:
        later = later + torch.full((tokens, tokens), -INF).tril(-window)
    table = None if bias is None else bias.reshape(grouped[1], grouped[2], -1)
    if table is not None and by_distance:
        table = torch.nn.functional.pad(table, (0, table.shape[-1] - 1))
    out = cached_attention(
        qq.reshape(*grouped, -1), (sq.to(torch.float32) * scale).reshape(grouped), qk, sk, qv, sv,
        keys, key_scales, values, value_scales, positions, later, None, table, by_distance, window, softcap,
        CAUSAL_BLOCK, q.dtype,
    )  # fmt: skip
    return out.reshape(batch, heads, tokens, v.shape[-1])


def attention_over_cache(
    q: Tensor, keys: Tensor, key_scales: Tensor, values: Tensor, value_scales: Tensor, last: Tensor, scale: float
) -> Tensor:
    """`cached_attention` of floats q [B, Hq, T, D] over keys that are all there, up to the last: [B, Hq, T, E]."""
    batch, heads, tokens, _ = q.shape
    qq, sq = quantize_rows(q)
    grouped = batch, keys.shape[1], heads // keys.shape[1], tokens
    out = cached_attention(
        qq.reshape(*grouped, -1), (sq.to(torch.float32) * scale).reshape(grouped), None, None, None, None,
        keys, key_scales, values, value_scales, last, dtype=q.dtype,
    )  # fmt: skip
    return out.reshape(batch, heads, tokens, values.shape[-1])
