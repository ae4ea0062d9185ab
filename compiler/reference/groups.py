"""Products of codes with scales per group of k: the bits of ggml's block formats (docs/numerics.md, section 7)."""

import torch
from torch import Tensor

from isa.constants import E2M1_TWICE, GROUP_LANES


def quantize_groups(
    x: Tensor, group: int, norm: str, ties: str, scale: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Symmetric int8 of every `group` elements of the last dimension: (int8 [..., K], scales [..., K / group] of type
    `scale`). `norm` is "scale" or "multiplier", `ties` "even" or "away". Raises ValueError if groups do not fill K."""
    if x.shape[-1] % group:
        raise ValueError(f"groups of {group} do not fill rows of {x.shape[-1]}")
    y = x.to(torch.float32).unflatten(-1, (-1, group))
    m = torch.amax(torch.abs(y), -1) + 0.0
    if norm == "scale":
        s = m / torch.full_like(m, 127.0)
        multiplier = torch.reciprocal(s)
    else:
        multiplier = torch.full_like(m, 127.0) / m
        s = torch.reciprocal(multiplier)
    multiplier = torch.where(torch.isfinite(multiplier), multiplier, 0.0)
    t = y * multiplier.unsqueeze(-1)
    whole = torch.round(t) if ties == "even" else _half_away(t)
    q = torch.where(torch.isnan(whole), 0.0, torch.clamp(whole, -128.0, 127.0))
    return q.to(torch.int8).flatten(-2), s.to(scale)


def _half_away(x: Tensor) -> Tensor:
    """Round to nearest, halves away from zero; the difference is exact."""
    whole = torch.trunc(x)
    more = torch.where(x < 0, -1.0, 1.0)
    return torch.where(torch.abs(x - whole) >= 0.5, whole + more, whole)


def matmul_groups(
    a: Tensor,
    w: Tensor,
    sa: Tensor,
    sw: Tensor,
    zw: Tensor | None = None,
    ss: Tensor | None = None,
    sm: Tensor | None = None,
    group: int = 32,
    sub: int = 0,
    codes: str = "i8",
    pre: bool = False,
    half: bool = False,
) -> Tensor:
    """int8 [..., M, K] times the rows of int8 [N, K], float32 [..., M, N]; scales `sa` [..., M, G] and `sw` [N, G].

    `codes` "i4", "u4" (0 to 15) and "e2m1" (twice its numbers): w is [N, K / 2], two codes in a byte, the even one in
    the low half. `zw` [N, G] is
    what a group adds per unit of a; `ss` and `sm`, int8 [N, K / sub], are sub-scales and factors of zw.
    """
    w = w if codes == "i8" else _unpacked(w, codes)
    rows = a.flatten(0, -2)
    left = sa.to(torch.float32).flatten(0, -2)
    shape = (*a.shape[:-1], w.shape[0])
    if ss is None:
        return _groups(rows, left, w, sw, zw, group, pre, half).reshape(shape)
    return _lanes(rows, left, w, sw, zw, ss, sm, group, sub).reshape(shape)


def _unpacked(w: Tensor, codes: str) -> Tensor:
    nibbles = torch.stack([w & 15, (w >> 4) & 15], -1).flatten(-2)
    if codes == "e2m1":
        return torch.tensor(E2M1_TWICE, dtype=torch.int8)[nibbles.to(torch.int64)]
    return (nibbles ^ 8) - 8 if codes == "i4" else nibbles


_BLOCK = 1 << 19  # elements of a sum that are worked on at a time: they stay in the processor's cache


def _groups(
    a: Tensor, sa: Tensor, w: Tensor, sw: Tensor, zw: Tensor | None, group: int, pre: bool, half: bool
) -> Tensor:
    used = sa.to(torch.float16).to(torch.float32) if half else sa
    units: list[Tensor | None] = [None] * sw.shape[1]
    if zw is not None:
        units = [_total(part) * sa[:, g, None] for g, part in enumerate(a.split(group, dim=1))]
        units = [unit.to(torch.float16).to(torch.float32) if half else unit for unit in units if unit is not None]
    columns = max(1024, _BLOCK // max(a.shape[0], 1))
    acc = torch.zeros((a.shape[0], w.shape[0]), dtype=torch.float32)
    for n in range(0, w.shape[0], columns):
        ns = slice(n, n + columns)
        for g, unit in enumerate(units):
            ks = slice(g * group, (g + 1) * group)
            c = _exact(a[:, ks], w[ns, ks])
            row, column = used[:, g, None], sw[None, ns, g].to(torch.float32)
            t = c.mul_(column).mul_(row) if pre else c.mul_(column * row)
            if zw is not None and unit is not None:
                t = t.add_(zw[None, ns, g].to(torch.float32) * unit)
            acc[:, ns].add_(t)
    return acc


def _lanes(
    a: Tensor,
    sa: Tensor,
    w: Tensor,
    sw: Tensor,
    zw: Tensor | None,
    ss: Tensor,
    sm: Tensor | None,
    group: int,
    sub: int,
) -> Tensor:
    """Element k belongs to sum k mod 8; minima have a sum of their own, which comes first at the end."""
    low = torch.zeros((a.shape[0], w.shape[0]), dtype=torch.float32)
    lanes = [low] * GROUP_LANES
    wide = w.to(torch.int32) * ss.to(torch.int32).repeat_interleave(sub, dim=1)
    for g in range(sw.shape[1]):
        row, column = sa[:, g, None], sw[None, :, g].to(torch.float32)
        scale = column * row
        for lane in range(GROUP_LANES):
            ks = slice(g * group + lane, (g + 1) * group, GROUP_LANES)
            lanes[lane] = lanes[lane] + _exact(a[:, ks], wide[:, ks]) * scale
        if zw is not None and sm is not None:
            js = slice(g * group // sub, (g + 1) * group // sub)
            sums = [_total(part) for part in a[:, g * group : (g + 1) * group].split(sub, dim=1)]
            low = low + _exact(torch.cat(sums, 1), sm[:, js]) * (zw[None, :, g].to(torch.float32) * row)
    for lane_sum in lanes:
        low = low + lane_sum
    return low


_NARROW = 512  # products of two int8 at most whose sum float32 holds exactly, whatever the order


def _exact(a: Tensor, w: Tensor) -> Tensor:
    """Integers [M, K] times rows of integers [N, K], exact before the one rounding to float32."""
    narrow = a.dtype is torch.int8 and w.dtype is torch.int8 and a.shape[1] <= _NARROW
    dtype = torch.float32 if narrow else torch.float64
    return torch.matmul(a.to(dtype), w.to(dtype).transpose(0, 1)).to(torch.float32)


def _total(a: Tensor) -> Tensor:
    """The sum of each row of integers, [M, 1], exact."""
    return _exact(a, torch.ones((1, a.shape[1]), dtype=torch.int8))


def quantize_weights(w: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """int4 codes and scales of every `group` elements of weight rows [N, K], as ggml's Q4_0 takes them: (int8
    [N, K / 2], two codes in a byte; float16 [N, K / group]). Raises ValueError if groups do not fill K.

    The element of largest magnitude becomes -8, so the scale has the other sign.
    """
    if w.shape[-1] % group:
        raise ValueError(f"groups of {group} do not fill rows of {w.shape[-1]}")
    y = w.to(torch.float32).unflatten(-1, (-1, group))
    peak = torch.gather(y, -1, torch.argmax(torch.abs(y), -1, keepdim=True))
    scale = peak / torch.full_like(peak, -8.0)
    inverse = torch.where(scale == 0, 0.0, torch.reciprocal(scale))
    codes = torch.clamp(torch.trunc(y * inverse + 8.5), 0.0, 15.0).to(torch.int8) - 8
    low, high = codes.flatten(-2).unflatten(-1, (-1, 2)).unbind(-1)
    return (low & 15) | (high << 4), scale.squeeze(-1).to(torch.float16)
