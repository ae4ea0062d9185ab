"""What was emitted of late is found again, and no more is kept than was said; programs are the same with it or without."""

from dataclasses import dataclass
from itertools import product

import torch
from hypothesis import given
from hypothesis import strategies as st

from compiler.emit.recent import Recent
from compiler.frontend.capture import capture
from compiler.lower import lower
from compiler.options import Options
from compiler.pipeline import Compiled, finish
from compiler.tile.ir import Op
from compiler.tiling import Drafts
from isa.chip import Chip, load_chip

OP = Op("sto", (), (), "x")


@dataclass
class Made:
    ops: list[Op]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 8)), max_size=40), st.integers(0, 20))
def test_what_was_used_last_is_kept(asked: list[tuple[int, int]], most: int) -> None:
    """Breaks if something is forgotten before it must be, kept beyond the limit, or given for another key."""
    recent, sizes = Recent[Made](most), dict[int, int]()
    order: list[int] = []  # a second opinion: keys, the most recent last
    for key, size in asked:
        made = recent.get(key, lambda size=size: Made([OP] * size))  # type: ignore[misc]
        if key not in order:
            sizes[key] = size
        assert len(made.ops) == sizes[key]
        order = [*(one for one in order if one != key), key]
        while sum(sizes[one] for one in order) > most and len(order) > 1:
            order.pop(0)
        assert list(recent.made) == order
        assert recent.count == sum(sizes[one] for one in order)


class Block(torch.nn.Module):
    """Attention with a mask, then what comes behind it: all kinds of kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.TransformerEncoderLayer(64, 4, 256, batch_first=True, activation="gelu")
        self.conv = torch.nn.Conv1d(64, 32, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.conv(self.layer(x).transpose(1, 2))
        return found


def chips() -> list[Chip]:
    sizes = product(("96KiB", "1MiB"), (16, 64), ("5GB/s", "100GB/s"))
    return [
        load_chip("edge").replace(
            {
                "sram.bytes": sram,
                "acc.bytes": "64KiB",
                "mxu.rows": array,
                "mxu.cols": array,
                "dram.bytes_per_second": rate,
            }
        )
        for sram, array, rate in sizes
    ]


def said(compiled: Compiled) -> tuple[object, ...]:
    """All that a program is."""
    return compiled.code.bytes, compiled.placement.offsets, compiled.tiled.program, compiled.tiled.literals


def test_programs_are_what_they_are_without_drafts() -> None:
    """Breaks if a kernel's words, or what its first blocks show, depend on the chip: drafts are of all chips. Or if there
    is nothing that chips have in common."""
    torch.manual_seed(0)
    lowered = lower(capture(Block().eval(), (torch.randn(2, 24, 64),)), Options())
    shared, apart = Drafts(), 0
    for chip in chips():
        own = Drafts()
        alone = said(finish(lowered, Options(), chip, drafts=own))
        assert said(finish(lowered, Options(), chip, drafts=shared)) == alone
        apart += own.kernels.count
    assert 0 < shared.kernels.count < 0.8 * apart
