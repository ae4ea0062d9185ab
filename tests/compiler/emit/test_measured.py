"""What the choice of tile sizes measures on some tiles of a block is what all of them would show."""

from dataclasses import replace

import pytest
import torch

import compiler.emit.fit as fit
from compiler.emit.kernel import emit_kernel
from compiler.emit.recent import Recent
from compiler.emit.tile_sizes import SearchPoint, preferred_tilings
from compiler.frontend.capture import capture
from compiler.lower import lower
from compiler.options import Options
from compiler.pipeline import finish
from compiler.tile.decisions import TileSizes
from compiler.tile.manager import TileManager
from compiler.tiling import kernel_state
from isa.chip import load_chip

CHIP = load_chip("edge").replace({"sram.bytes": "192KiB", "acc.bytes": "64KiB", "mxu.rows": 16, "mxu.cols": 16})


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.norm = torch.nn.Linear(192, 736), torch.nn.Linear(736, 192), torch.nn.LayerNorm(192)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.norm(x + self.down(torch.nn.functional.gelu(self.up(x))))
        return found


@pytest.mark.parametrize("option", ["w8a8", "w4a8-g32"])
def test_some_tiles_measure_as_all_do(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a tile that stands for others needs less, or takes another time, than they do."""
    compared = fewer = 0
    measured, emit = fit._Sampled._measured, emit_kernel

    def both(sample: fit._Sampled, tiling: TileSizes) -> fit._Measured:
        nonlocal compared, fewer
        key = sample.alike, replace(tiling, wide=False)
        known, found = key in sample.known, measured(sample, tiling)
        if not known and not tiling.keep:
            lengths = []

            def whole(*args: object, **kwargs: object) -> object:
                made = emit(*args, **{**kwargs, "some": False})  # type: ignore[arg-type]
                lengths.append((len(made.ops), len(emit(*args, **kwargs).ops)))  # type: ignore[arg-type]
                return made

            monkeypatch.setattr(fit, "emit_kernel", whole)
            assert measured(replace(sample, known={}, samples=Recent(0)), tiling) == found
            monkeypatch.setattr(fit, "emit_kernel", emit)
            compared += 1
            fewer += lengths[0][1] < lengths[0][0]
        return found

    monkeypatch.setattr(fit._Sampled, "_measured", both)
    torch.manual_seed(0)
    options = Options(quantization=option, disable=("search",))
    lowered = lower(capture(Layer().eval(), (), {"x": torch.randn(70, 192)}), options)
    finish(lowered, options, CHIP)
    assert compared and fewer, (compared, fewer)


def test_without_columns_rows_come_first() -> None:
    """Breaks if the search's point for weights that stay begins with groups of columns, or loses them."""
    edge = load_chip("edge")
    state = kernel_state(
        lower(capture(torch.nn.Linear(768, 3072).eval(), (), {"input": torch.randn(2000, 768)})),
        Options(),
        edge,
        TileManager(),
    )
    graph = state.kernel_graph
    assert graph is not None
    found = 0
    for kernel in graph.kernels:
        ways = [
            [[tiling.groups > 1 for tiling in family] for family in preferred_tilings(kernel, edge, point, 2000)]
            for point in (SearchPoint(), SearchPoint(columns=False))
        ]
        if [True] in ways[0]:
            found += 1
            assert ways[0][0] == [True] and not any(ways[1][0]) and sorted(ways[0]) == sorted(ways[1])
    assert found
