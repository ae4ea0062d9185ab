"""The linear layer equals torchao's dynamic int8 linear, bit for bit: an oracle that nobody here wrote."""

import copy

import pytest
import torch
from numerics_helpers import bits
from torch import Tensor

from compiler.reference import functions as reference

torchao = pytest.importorskip(
    "torchao.quantization", reason="torchao is not installed: the oracle of the W8A8 linear is missing"
)

SHAPES = [(1, 2, 1), (3, 7, 5), (17, 64, 33), (2, 1025, 9), (4, 384, 96)]


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Quantize, multiply, dequantize: what the compiler emits for nn.Linear."""
    qx, sx = reference.quantize_rows(x)
    qw, sw = reference.quantize_rows(weight)
    return reference.dequantize(reference.matmul_i8(qx, qw, True), sx, sw, bias, x.dtype)


def _input(kind: str, rows: int, k: int) -> Tensor:
    x = torch.randn(rows, k, generator=torch.Generator().manual_seed(rows * k))
    if kind == "outlier":
        x[:, ::5] *= 1000
    elif kind == "zero":
        x[0] = 0.0
        x[-1] = -0.0
    elif kind == "subnormal":
        x *= 1e-40
    elif kind == "huge":
        x *= 1e37
    elif kind == "tie":
        x = torch.round(x * 40) / 2
        x[:, 0] = 127.5
    return x


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["normal", "outlier", "zero", "subnormal", "huge", "tie"])
def test_linear_equals_torchao(kind: str, dtype: torch.dtype) -> None:
    """Breaks when a scale, a rounding or the order of scales and bias differs from torchao's eager CPU path."""
    for rows, k, n in SHAPES:
        for with_bias in (False, True):
            torch.manual_seed(k)
            linear = torch.nn.Linear(k, n, bias=with_bias).to(dtype)
            with torch.no_grad():
                linear.weight[0] = 0.0
            oracle = copy.deepcopy(linear)
            torchao.quantize_(oracle, torchao.Int8DynamicActivationInt8WeightConfig())
            x = _input(kind, rows, k).to(dtype)
            with torch.no_grad():
                assert bits(_linear(x, linear.weight, linear.bias)) == bits(oracle(x)), (rows, k, n, with_bias)
