"""Linears of GGUF's block formats, compiled: the chip's program gives the bits of ggml's scalar kernels, and those of
the frozen graph at any size."""

import os

import numpy as np
import pytest
import torch
from ggml_vectors import Vectors, bits, vectors
from grouped_models import random_rows
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec import structs
from torch import Tensor, nn

import llmchip
from compiler.frontend.gguf.blocks import WEIGHT_TYPES
from compiler.frontend.gguf.linear import GroupedLinear
from isa.chip import Acc, Chip, Mxu, Sram, load_chip
from isa.codec import decode
from llmchip import Program

SETS = ("one", "rows", "long", "aligned", "edge")
SMALL = structs.replace(
    load_chip(), name="small", sram=Sram(bytes=1 << 16), acc=Acc(bytes=1 << 13), mxu=Mxu(rows=16, cols=16)
)
EXAMPLES = int(os.environ.get("LLMCHIP_EXAMPLES", "12"))
KINDS = st.sampled_from(list(WEIGHT_TYPES.values()))


def mnemonics(program: Program) -> set[str]:
    code = program.image.code
    return {decode(code[i : i + 16]).mnemonic for i in range(0, len(code), 16)}


@pytest.mark.parametrize("v", [v for v in vectors() if v.name in SETS], ids=str)
def test_compiled_linears_have_ggmls_bits(v: Vectors) -> None:
    """Breaks when capture, tiling, packing of the codes or emission change a bit."""
    assert v.x is not None
    x = torch.from_numpy(v.x)
    program = llmchip.compile(GroupedLinear(v.type, v.blocks).eval(), (x,))
    found = program(x)
    assert isinstance(found, Tensor) and np.array_equal(bits(found.numpy()), v.bits)
    assert "mmg" in mnemonics(program) and "mm" not in mnemonics(program)


@pytest.mark.wide
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    KINDS,
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.integers(1, 90),
    st.integers(1, 3),
    st.sampled_from([load_chip(), SMALL]),
    st.booleans(),
)
@example(WEIGHT_TYPES["Q4_1"], [70], 300, 9, SMALL, True)
@example(WEIGHT_TYPES["Q4_K"], [3], 40, 3, SMALL, False)
@example(WEIGHT_TYPES["Q6_K"], [1], 129, 4, load_chip(), True)
def test_any_size_on_any_chip(kind: object, lead: list[int], n: int, blocks: int, chip: Chip, residual: bool) -> None:
    """Breaks when a tile of columns or of k takes another's scales, or the program has a race."""
    assert kind in WEIGHT_TYPES.values()
    k = blocks * kind.elements  # type: ignore[attr-defined]
    linear = GroupedLinear(kind, random_rows(kind, n, k, n + k))  # type: ignore[arg-type]

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.linear(torch.nn.functional.relu(x))
            return y + x[..., :1] if residual else y

    torch.manual_seed(n)
    x = torch.randn(*lead, k)
    program = llmchip.compile(Model().eval(), (x,), chip=chip)
    found = program.verify(x)
    assert found.bit_exact and found.mismatched_elements == 0, found.first_divergence or found.findings
    assert found.nodes > 0
