"""Random weights in GGUF's block formats."""

import numpy as np
from numpy.typing import NDArray

from compiler.frontend.gguf.blocks import WeightType


def random_rows(kind: WeightType, n: int, k: int, seed: int) -> NDArray[np.uint8]:
    """Block bytes of n rows of k weights: any code and sub-scale, scales that are numbers of an ordinary size."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 256, (n, k // kind.elements, kind.nbytes), np.uint8)
    scale = rng.uniform(-1, 1, (n, k // kind.elements, 2)).astype("<f2").view(np.uint8)
    if kind.name == "MXFP4":
        rows[..., 0] = rng.integers(118, 134, rows.shape[:2])
    elif kind.name == "Q6_K":
        rows[..., 208:] = scale[..., :2]
    else:
        fields = 4 if kind.name in ("Q4_1", "Q5_1", "Q4_K", "Q5_K") else 2
        rows[..., :fields] = scale[..., :fields]
    return rows.reshape(n, -1)
