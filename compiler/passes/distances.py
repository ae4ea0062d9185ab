"""Distances between all pairs of rows, from their differences.

    before   %d = _euclidean_dist(%a, %b)
    after    %c = unsqueeze(%a, -2) - unsqueeze(%b, -3);  %d = sqrt(sum(%c * %c, -1))

PyTorch takes |a|^2 + |b|^2 - 2 a.b, a product. In int8 the three do not cancel as they should: what is left for rows
near each other is the rounding of the largest, and a distance of .3 became .4.
"""

from collections.abc import Mapping
from math import inf
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from compiler.passes.composed import PAIRS, Composed

aten = torch.ops.aten


def _distances(a: Tensor, b: Tensor, p: float = 2.0, compute_mode: int | None = None) -> Any:
    """[..., m, k] and [..., n, k] to [..., m, n] in the norm `p`, which is 0, 1, 2 or infinity. `compute_mode` says
    from how many rows on PyTorch multiplies."""
    del compute_mode
    if a.shape[-2] * b.shape[-2] * a.shape[-1] > PAIRS:
        return NotImplemented
    apart = a.unsqueeze(-2) - b.unsqueeze(-3)
    if p == 2:
        return (apart * apart).sum(-1).sqrt()
    if p == 1:
        return apart.abs().sum(-1)
    if p == 0:
        return (apart != 0).to(a.dtype).sum(-1)
    return apart.abs().amax(-1) if p == inf and a.shape[-1] else NotImplemented


DECOMPOSITIONS: Mapping[OpOverload, Composed] = {
    aten._euclidean_dist.default: _distances,
    aten._cdist_forward.default: _distances,
}
