"""What an elementwise operation reads through a permute comes on chip in the order in which it lies in DRAM: whole bursts,
the right bits."""

import itertools
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

import llmchip
from compiler.emit.emitter import FLAT, Emitter, Tile
from compiler.frontend.capture import capture
from compiler.lower import lower
from compiler.options import Options
from compiler.tile.decisions import TileSizes
from compiler.tile.ir import Buffer, Op
from compiler.tile.kernels import Kernel
from compiler.tile.layout import dense
from compiler.tile.manager import TileManager
from compiler.tile.storage import Storage
from compiler.tiling import kernel_state
from isa.architecture import Dtype, Region, Space
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
    "stored otherwise": lambda x: torch.cat([x, x * 2], 2).permute(2, 0, 1)[:, :, 1:],
    "sizes of one": lambda x: x[:, :1].permute(2, 1, 0) * x[:1, :1].permute(2, 1, 0),
}


class Model(torch.nn.Module):
    def __init__(self, fn: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x)


@cache
def kernel() -> Kernel:
    """Any."""
    model, x = Model(CASES["number"]).eval(), torch.randn(SHAPE)
    state = kernel_state(lower(capture(model, (x,))), Options(), SMALL, TileManager())
    return state.kernels[0]


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


def _moved(op: Op, memory: dict[str, np.ndarray[Any, Any]]) -> None:
    """What a move or a store does to float32 elements."""
    o = op.operands
    target, source = op.views[0], op.views[1]
    assert target is not None and source is not None
    for at in itertools.product(range(o["planes"]), range(o["rows"]), range(o["cols"])):
        to, of = (v.offset // 4 + int(np.dot(at, (v.ps, v.rs, v.cs))) for v in (target, source))
        memory[target.buffer.name][to] = memory[source.buffer.name][of]


@given(st.permutations(range(3)), st.tuples(*[st.integers(1, 40)] * 3), st.booleans())
def test_whole_bursts_are_stored(order: list[int], shape: tuple[int, int, int], repeated: bool) -> None:
    """Breaks if what is computed in one order and lies in DRAM in another is stored element by element, or its elements
    change places: the maps of a convolution by channel behind another one."""
    count = math.prod(shape)
    there = dense(Buffer("there", Space.DRAM, 4 * count, Region.SCRATCH), Dtype.F32, [shape[dim] for dim in order])
    target = there.permuted([order.index(dim) for dim in range(3)])
    here = dense(Buffer("here", Space.SRAM, 4 * count), Dtype.F32, shape)
    source = here.seen(0, shape, (0, 0, 0)) if repeated else here
    node = next(iter(kernel().nodes))
    emitter = Emitter(kernel(), Storage({}), TileSizes(1), "k.")
    logical = dense(FLAT, Dtype.F32, shape)
    emitter.store(node, Tile(target, logical, node.name), source)
    memory = {"here": np.arange(count, dtype=np.float32) + 1, "there": np.zeros(count, np.float32)}
    for op in emitter.ops:
        for ref in op.views:
            if ref is not None and ref.buffer.name not in memory:
                memory[ref.buffer.name] = np.zeros(ref.buffer.bytes // 4, np.float32)
        _moved(op, memory)
    wanted = np.ones(shape, np.float32) if repeated else memory["here"].reshape(shape)
    assert np.array_equal(memory["there"], wanted.transpose(order).ravel())
    stores = [op for op in emitter.ops if op.mnemonic == "sto"]
    widest = next((shape[dim] for dim in reversed(order) if shape[dim] > 1), 1)
    assert repeated or sum(op.operands["planes"] * op.operands["rows"] for op in stores) <= max(count // widest, 1)
