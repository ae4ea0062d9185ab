"""The oracle that nobody here wrote: modules quantized by torchao, compiled, give torchao's own eager bits."""

import copy

import pytest
import torch
from torch import nn

import llmchip

torchao = pytest.importorskip("torchao.quantization", reason="torchao is the oracle: make test installs it")

KINDS = ("normal", "outlier", "zeros", "subnormal", "huge", "ties")
SHAPES = ((1, 2, 3), (5, 7, 16), (3, 64, 33), (17, 130, 9))


def values(kind: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    torch.manual_seed(len(kind))
    x = torch.randn(shape)
    if kind == "outlier":
        x[..., 0] *= 1000
    elif kind == "zeros":
        x[0] = 0
    elif kind == "subnormal":
        x *= 1e-39
    elif kind == "huge":
        x *= 1e36
    elif kind == "ties":
        x = torch.randint(-255, 256, shape) / 2.0
    return x.to(dtype)


def quantized(module: nn.Module) -> nn.Module:
    module = copy.deepcopy(module).eval()
    torchao.quantize_(module, torchao.Int8DynamicActivationInt8WeightConfig())
    return module


def bits(tensor: torch.Tensor) -> torch.Tensor:
    same = torch.where(torch.isnan(tensor), torch.nan, tensor)  # NaN has one value
    return same.view(torch.int32 if tensor.dtype is torch.float32 else torch.int16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "k", "n"), SHAPES)
def test_linear_gives_torchaos_bits(rows: int, k: int, n: int, dtype: torch.dtype) -> None:
    """Breaks if scale, rounding, order of the dequantize or the bias differ from torchao's, or if our own quantization
    does."""
    torch.manual_seed(k)
    plain = nn.Sequential(nn.Linear(k, n, dtype=dtype)).eval()
    oracle = quantized(plain)
    example = values("normal", (rows, k), dtype)
    theirs, ours = llmchip.compile(oracle, (example,)), llmchip.compile(plain, (example,))
    for kind in KINDS:
        x = values(kind, (rows, k), dtype)
        with torch.no_grad():
            expected = bits(oracle(x))
        assert torch.equal(bits(theirs(x)), expected), kind
        assert torch.equal(bits(ours(x)), expected), kind


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mlp_gives_torchaos_bits(dtype: torch.dtype) -> None:
    """Breaks if one layer's rounding leaks into the next."""
    torch.manual_seed(1)
    plain = nn.Sequential(nn.Linear(24, 50, dtype=dtype), nn.ReLU(), nn.Linear(50, 10, bias=False, dtype=dtype)).eval()
    oracle, x = quantized(plain), values("outlier", (2, 9, 24), dtype)
    with torch.no_grad():
        expected = bits(oracle(x))
    assert torch.equal(bits(llmchip.compile(oracle, (x,))(x)), expected)
    assert torch.equal(bits(llmchip.compile(plain, (x,))(x)), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torch_compile_takes_torchaos_integers(dtype: torch.dtype) -> None:
    """Breaks if a tensor subclass crashes the backend, is left to PyTorch, quantized again, or baked in."""
    torch.manual_seed(2)
    plain = nn.Sequential(nn.Linear(24, 50, dtype=dtype), nn.ReLU(), nn.Linear(50, 10, bias=False, dtype=dtype)).eval()
    oracle, x = quantized(plain), values("outlier", (9, 24), dtype)
    program = torch.compile(oracle, backend="llmchip", options={"fallback": False})
    with torch.no_grad():
        assert torch.equal(bits(program(x)), bits(oracle(x)))
        oracle[0].weight.qdata.mul_(-1)
        assert torch.equal(bits(program(x)), bits(oracle(x)))


def test_another_configuration_under_torch_compile_is_left_to_pytorch() -> None:
    """Breaks if weights in an arithmetic that is not ours are taken for ours, or run by PyTorch without a word."""
    module, x = nn.Sequential(nn.Linear(16, 8)).eval(), torch.randn(2, 16)
    torchao.quantize_(module, torchao.Int8WeightOnlyConfig())
    with torch.no_grad(), pytest.warns(UserWarning, match="torchao Int8"):
        assert torch.equal(torch.compile(module, backend="llmchip", options={"fallback": True})(x), module(x))


def test_another_configuration_is_refused_by_name() -> None:
    """Breaks if weights in an arithmetic that is not ours are taken for ours."""
    module = nn.Sequential(nn.Linear(16, 8)).eval()
    torchao.quantize_(module, torchao.Int8WeightOnlyConfig())
    with pytest.raises(llmchip.UnsupportedError, match=r"'0\.weight' is a torchao"):
        llmchip.compile(module, (torch.randn(2, 16),))
