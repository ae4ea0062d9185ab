"""Our own int4: linear layers with weights of four bits in groups of 32, quantized when the image is packed."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import llmchip
from compiler.reference import groups
from isa.codec import decode
from isa.errors import CompileError

INT4: dict[str, Any] = {"quantization": "w4a8-g32"}


def mnemonics(program: llmchip.Program) -> set[str]:
    code = program.image.code
    return {decode(code[i : i + 16]).mnemonic for i in range(0, len(code), 16)}


def test_a_linear_is_q4_0_times_q8_0_and_its_bias() -> None:
    """Breaks when weights are quantized otherwise than Q4_0 does, or the bias is added before the last group."""
    torch.manual_seed(0)
    linear, x = nn.Linear(96, 50).eval(), torch.randn(3, 5, 96)
    program = llmchip.compile(linear, (x,), **INT4)
    w, sw = groups.quantize_weights(linear.weight.detach(), 32)
    a, sa = groups.quantize_groups(x, 32, "scale", "away", torch.float16)
    want = groups.matmul_groups(a, w, sa, sw, codes="i4", pre=True) + linear.bias.detach()
    found = program(x)
    assert isinstance(found, Tensor) and torch.equal(found.view(torch.int32), want.view(torch.int32))
    assert "mmg" in mnemonics(program) and "mm" not in mnemonics(program)
    assert torch.nn.functional.cosine_similarity(found.flatten(), linear(x).flatten(), 0) > 0.98


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_is_bit_exact_and_smaller(dtype: torch.dtype) -> None:
    """Breaks when a layer whose rows are no whole groups is refused, or weights keep eight bits."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 40), nn.ReLU(), nn.Linear(40, 8)  # 40 is no whole group
    ).to(dtype).eval()  # fmt: skip
    x = torch.randn(7, 256, dtype=dtype)
    eight, four = (llmchip.compile(model, (x,), **options) for options in ({}, INT4))
    assert {"mm", "mmg"} <= mnemonics(four) and "mmg" not in mnemonics(eight)
    found = four.verify(x)
    assert found.bit_exact and found.mismatched_elements == 0, found.first_divergence or found.findings
    assert len(four.image.weights) < 0.6 * len(eight.image.weights)


def test_weights_that_are_computed_stay_int8() -> None:
    """Breaks when what is only known at run time is taken for a constant."""

    class Product(nn.Module):
        def forward(self, x: Tensor, w: Tensor) -> Tensor:
            return torch.nn.functional.linear(x, w)

    x, w = torch.randn(3, 32), torch.randn(5, 32)
    program = llmchip.compile(Product().eval(), (x, w), **INT4)
    assert "mmg" not in mnemonics(program) and program.verify(x, w).bit_exact


def test_under_torch_compile() -> None:
    """Breaks when the option does not reach the backend, or weights that change are not packed again."""
    torch.manual_seed(2)
    linear, x = nn.Linear(64, 16).eval(), torch.randn(4, 64)
    compiled = torch.compile(linear, backend="llmchip", options=INT4)
    with torch.no_grad():
        for _ in range(2):
            w, sw = groups.quantize_weights(linear.weight.detach(), 32)
            a, sa = groups.quantize_groups(x, 32, "scale", "away", torch.float16)
            want = groups.matmul_groups(a, w, sa, sw, codes="i4", pre=True) + linear.bias
            assert torch.equal(compiled(x).view(torch.int32), want.view(torch.int32))
            linear.weight.mul_(1.5)


def test_another_arithmetic_is_refused() -> None:
    with pytest.raises(CompileError, match="write one of w8a8-dynamic, .*w4a8-g32"):
        llmchip.compile(nn.Linear(4, 4), (torch.randn(1, 4),), quantization="w2")
