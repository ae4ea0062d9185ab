"""The grouped operations against ggml's scalar kernels, an oracle that nobody in this project wrote, and by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from ggml_vectors import Vectors, bits, vectors
from numpy.typing import NDArray
from torch import Tensor

from compiler.frontend.gguf.blocks import pack_i4
from compiler.reference import groups

VECTORS = list(vectors())
NAN, INF = float("nan"), float("inf")


def tensor(x: NDArray[Any] | None) -> Tensor | None:
    return None if x is None else torch.from_numpy(np.ascontiguousarray(x))


def product(v: Vectors, a: Tensor, sa: Tensor) -> NDArray[np.float32]:
    w, p = v.type.decode(v.blocks), v.type.product
    packed = w.codes if p.storage == "i8" else pack_i4(w.codes, p.storage)
    codes, scales = map(torch.from_numpy, (packed, w.scales))
    zw, ss, sm = map(tensor, (w.minima, w.sub_scales, w.sub_minima))
    return groups.matmul_groups(a, codes, sa, scales, zw, ss, sm, p.group, p.sub, p.storage, p.pre, p.half).numpy()


@pytest.mark.parametrize("v", [v for v in VECTORS if v.x is not None], ids=str)
def test_from_activations_to_results_nothing_differs_from_ggml(v: Vectors) -> None:
    """Breaks on another order of scales or groups, a wrong reciprocal or tie, a fused or missing rounding."""
    rule = v.type.activations
    scale = torch.float16 if rule.scale == "float16" else torch.float32
    assert v.x is not None
    a, sa = groups.quantize_groups(torch.from_numpy(v.x), rule.group, rule.norm, rule.ties, scale)
    assert v.quantized(a.numpy(), sa.numpy())
    assert np.array_equal(bits(product(v, a, sa)), v.bits)


@pytest.mark.parametrize("v", [v for v in VECTORS if v.name == "raw"], ids=str)
def test_codes_that_no_quantizer_makes(v: Vectors) -> None:
    """Breaks on -128, on negative and subnormal scales."""
    assert np.array_equal(bits(product(v, torch.from_numpy(v.codes), torch.from_numpy(v.scales))), v.bits)


@pytest.mark.parametrize(
    ("norm", "ties", "row", "codes", "scale"),
    [
        ("scale", "away", [127, 0.5, 1.5, -0.5, -2.5], [127, 1, 2, -1, -3], 1.0),
        ("scale", "even", [127, 0.5, 1.5, -0.5, -2.5], [127, 0, 2, 0, -2], 1.0),
        ("scale", "away", [127, 0.49999997], [127, 0], 1.0),
        ("multiplier", "even", [1e-38, 1e-37], [0, 0], 0.0),
        ("multiplier", "even", [0.0, -0.0], [0, 0], 0.0),
        ("scale", "away", [0.0, -0.0], [0, 0], 0.0),
        ("scale", "away", [1.0, NAN], [0, 0], NAN),
        ("multiplier", "even", [1.0, NAN], [0, 0], NAN),
        ("scale", "away", [1.0, INF], [0, 0], INF),
        ("multiplier", "even", [1.0, INF], [0, 0], INF),
    ],
)
def test_scales_multipliers_and_ties(norm: str, ties: str, row: list[float], codes: list[int], scale: float) -> None:
    """Breaks on ties the other way, a multiplier that is not finite and still used, or a NaN that is lost."""
    q, s = groups.quantize_groups(torch.tensor([row]), len(row), norm, ties)
    assert q[0].tolist() == codes
    assert np.array_equal(bits(s.numpy()), bits(np.array([[scale]])))


def test_groups_must_fill_a_row() -> None:
    with pytest.raises(ValueError, match="groups of 32 do not fill rows of 40"):
        groups.quantize_groups(torch.zeros(2, 40), 32, "scale", "away")


def test_leading_dimensions_are_kept() -> None:
    """Breaks when a batch is folded into rows and not unfolded."""
    x = torch.randn(2, 3, 64)
    a, sa = groups.quantize_groups(x, 32, "scale", "away")
    w, sw = groups.quantize_groups(torch.randn(5, 64), 32, "scale", "away")
    whole = groups.matmul_groups(a, w, sa, sw)
    assert whole.shape == (2, 3, 5) and torch.equal(whole[1], groups.matmul_groups(a[1], w, sa[1], sw))


def test_weights_become_int4_as_q4_0_takes_them() -> None:
    """Breaks when the peak is not -8, a zero group divides by zero, or a code is rounded to the wrong side. By hand:
    scale 8 / -8 = -1, codes trunc(-x + 8.5) - 8."""
    w = torch.zeros(2, 32)
    w[0, :7] = torch.tensor([8.0, -7.0, -7.5, -7.6, 0.5, 0.49, -0.5])
    packed, scale = groups.quantize_weights(w, 32)
    nibbles = torch.stack([packed & 15, (packed >> 4) & 15], -1).flatten(-2)
    codes = torch.where(nibbles > 7, nibbles - 16, nibbles)
    assert scale.tolist() == [[-1.0], [0.0]]
    assert codes[0, :8].tolist() == [-8, 7, 7, 7, 0, 0, 1, 0]
    assert codes[1].tolist() == [0] * 32
    with pytest.raises(ValueError, match="groups of 32 do not fill rows of 40"):
        groups.quantize_weights(torch.zeros(2, 40), 32)
