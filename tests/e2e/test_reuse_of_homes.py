"""Residual models in which values take each other's place in memory, on a small chip: only the bits can tell whether
too early.

Static checks cannot: every word reads memory that was written, in order. Each model here was once compiled wrongly.
"""

import msgspec
import pytest
import torch
from choice import few
from torch import nn
from torch.nn import functional as F

import llmchip
from isa.chip import Acc, Mxu, Sram, load_chip

WIDTH, ROWS = 32, 256
SMALL = msgspec.structs.replace(
    load_chip("edge"), name="small", mxu=Mxu(rows=16, cols=16, weight_rows_per_cycle=1), acc=Acc(64 << 10)
)
ROOMY, TIGHT = (msgspec.structs.replace(SMALL, sram=Sram(size << 10)) for size in (256, 96))


class Residual(nn.Module):
    """Three equal layers of three linears between a first and a last one; `kind` says what is done with the residual
    stream."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.first, self.last = nn.Linear(WIDTH, 2 * WIDTH if kind == "view" else WIDTH), nn.Linear(WIDTH, 4)
        self.layers = nn.ModuleList(nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3)) for _ in range(3))
        self.wide = nn.ModuleList(
            nn.ModuleList([nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)]) for _ in range(3)
        )

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        if self.kind == "view":
            h = torch.tanh(h)[:, WIDTH:]
        for layer, wide in zip(self.layers, self.wide, strict=True):
            assert isinstance(layer, nn.ModuleList) and isinstance(wide, nn.ModuleList)
            (a, b, c), (up, down) = layer, wide
            match self.kind:
                case "first row of the stream":
                    h = down(torch.relu(up(h + h[:1])))
                case "first row of a sum":
                    v = h + a(h)
                    w = b(v) + v[:1]
                    h = w + c(w)
                case "where":
                    v = torch.where(mask, a(h), h)
                    h = v + b(v)
                case _:
                    y = torch.relu(a(h)) + h
                    h = b(y) + y
        out: torch.Tensor = self.last(h)
        return out


@pytest.mark.parametrize("disable", ["", *(pytest.param(name, marks=pytest.mark.slow) for name in ("strips", "loop"))])
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("first row of the stream", marks=pytest.mark.slow),
        *few(["first row of a sum", "where", "view", "plain"], "first row of a sum", "plain"),
    ],
)
def test_values_that_take_each_others_place(kind: str, disable: str) -> None:
    """Breaks if a value is overwritten (in place, in a loop, part by part) while another row, word or iteration still
    reads it."""
    rows = 1024 if kind == "first row of the stream" else ROWS  # so many are executed part by part
    x = torch.linspace(-2, 2, rows * WIDTH).reshape(rows, WIDTH).sin()
    mask = x.cos() > 0.7
    for chip in (TIGHT,) if rows > ROWS else (ROOMY, TIGHT):
        program = llmchip.compile(Residual(kind).eval(), (x, mask), chip=chip, disable=disable)
        assert torch.equal(program(x, mask).view(torch.int32), program.reference(x, mask).view(torch.int32))


class Coincidence(nn.Module):
    """A layer norm whose weight is computed, and as long as the batch by chance."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(WIDTH, 64), nn.Linear(64, ROWS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.a(x))
        return F.layer_norm(self.b(y), (ROWS,), y.mean(-1), None)


def test_a_column_vector_as_long_as_the_batch() -> None:
    """Breaks if parts of the batch take parts of a vector that belongs to columns."""
    x = torch.linspace(-2, 2, ROWS * WIDTH).reshape(ROWS, WIDTH).cos()
    program = llmchip.compile(Coincidence().eval(), (x,), chip=msgspec.structs.replace(SMALL, sram=Sram(192 << 10)))
    assert torch.equal(program(x).view(torch.int32), program.reference(x).view(torch.int32))
