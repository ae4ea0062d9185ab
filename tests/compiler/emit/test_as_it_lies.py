"""What an elementwise operation reads through a permute comes on chip in the order in which it lies in DRAM: whole bursts,
the right bits."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import llmchip
from isa.chip import load_chip

SMALL = load_chip("edge").replace({"sram.bytes": "128KiB", "acc.bytes": "64KiB", "mxu.rows": 16, "mxu.cols": 16})
SHAPE = (12, 32, 80)
CASES: dict[str, Callable[[Tensor], Tensor]] = {
    "product": lambda x: x.permute(2, 0, 1) * 2.0,
    "both sides": lambda x: x.permute(0, 2, 1) + x.transpose(1, 2).flip(0),
    "number": lambda x: 1.0 - x.permute(2, 1, 0),
    "where": lambda x: torch.where(x.permute(1, 2, 0) > 0, x.permute(1, 2, 0), 1.0),
    "cast": lambda x: x.permute(2, 1, 0).to(torch.bfloat16),
    "joined": lambda x: torch.cat([x.transpose(1, 2), x.transpose(1, 2) * 2], 1),
    "padded": lambda x: functional.pad(x.transpose(1, 2), (0, 0, 1, 1)),
    "part of it": lambda x: x[2:9, :, 16:48].permute(2, 0, 1) + 1.0,
    "sizes of one": lambda x: x[:, :1].permute(2, 1, 0) * x[:1, :1].permute(2, 1, 0),
}


class Model(torch.nn.Module):
    def __init__(self, fn: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x)


@pytest.mark.parametrize("case", CASES)
def test_bits_of_what_is_read_through_a_permute(case: str) -> None:
    """Breaks if elements are brought on chip in one order and read in another."""
    model, x = Model(CASES[case]).eval(), torch.randn(SHAPE)
    for chip in ("edge", SMALL):
        program = llmchip.compile(model, (x,), chip=chip)
        assert torch.equal(program(x), model(x)) and program.verify(x).bit_exact


@pytest.mark.parametrize("case", ["product", "both sides", "number", "where", "cast"])
def test_whole_bursts_are_loaded(case: str) -> None:
    """Breaks if a permuted value is loaded element by element: of each burst of 64 bytes four are used."""
    model, x = Model(CASES[case]).eval(), torch.randn(SHAPE)
    program = llmchip.compile(model, (x,))
    loads = [op.operands["cols"] for op in program.compiled.tiled.program.ops if op.mnemonic == "lda"]
    assert loads and min(loads) > 1
    assert program.profile().dram_bytes < 6 * 4 * x.numel()


def test_rows_and_elements_read_the_same_value() -> None:
    """Breaks if an operation on rows, which needs columns, takes what lies on chip in another order for it."""
    model, x = Model(lambda x: x.permute(0, 2, 1).softmax(-1) + x.permute(0, 2, 1) * 0.5).eval(), torch.randn(SHAPE)
    for chip in ("edge", SMALL):
        assert llmchip.compile(model, (x,), chip=chip).verify(x).bit_exact


def test_what_is_not_permuted_is_loaded_once() -> None:
    """Breaks if readers that take any order and those that do not each have a load of their own."""
    model, x = Model(lambda x: x * 0.5 + x.amax(-1, keepdim=True)).eval(), torch.randn(1, 60, 130)
    program = llmchip.compile(model, (x,))
    assert program.profile().dram_bytes < 2.2 * 4 * x.numel()
