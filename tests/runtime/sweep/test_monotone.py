"""More of what limits a program makes it no slower: a sweep that measured the tiler's noise would be worthless."""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import nn

from compiler.frontend.capture import capture
from compiler.options import Options
from isa.chip import load_chip
from runtime.sweep.axes import axis, chip_at
from runtime.sweep.figures import figures
from runtime.sweep.frozen import FrozenModel, freeze

SLOWER = 0.02  # of the cycles on the chip before: the tiler's predictions are no better


def perceptron(rows: int, *sizes: int) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    parts = [part for k, n in pairwise(sizes) for part in (nn.Linear(k, n), nn.GELU())]
    return nn.Sequential(*parts).eval(), torch.randn(rows, sizes[0])


MODELS = {"wide": (32, 784, 1024, 512), "square": (128, 256, 256, 256)}


@cache
def frozen(name: str) -> FrozenModel:
    model, x = perceptron(*MODELS[name])
    return freeze(capture(model, (x,)), Options())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("dram.bytes_per_second", "25GB/s,100GB/s,400GB/s"),
        ("sram.bytes", "256KiB,1MiB,2MiB,8MiB,32MiB"),
        ("mxu.rows+mxu.cols", "32..128"),
        ("vec.lanes+act.lanes", "32,128"),
    ],
)
def test_more_is_no_slower(name: str, key: str, values: str) -> None:
    """Breaks when a larger scratchpad, array or vector engine, or a faster DRAM, leads the tiler to a worse program."""
    swept = axis(key, values)
    cycles = [int(figures(frozen(name), chip_at(load_chip(), {key: value}))["cycles"]) for value in swept.values]
    assert not _worse(cycles, SLOWER), dict(zip(swept.values, cycles, strict=True))


def _worse(cycles: Sequence[int], most: float) -> list[int]:
    """Chips that are slower than a smaller one."""
    return [i for i in range(1, len(cycles)) if cycles[i] > (1 + most) * cycles[i - 1]]
