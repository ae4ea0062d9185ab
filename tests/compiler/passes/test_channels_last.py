"""Elementwise operations between convolutions are done in their order: which permutes go, and that results stay."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import Function
from torch import Tensor, nn
from torch.nn import functional

from compiler.frontend.capture import capture
from compiler.graph.manager import PassManager
from compiler.lower import lower, pipeline
from compiler.options import Options
from compiler.passes.channels_last import ChannelsLast

aten = torch.ops.aten
X = torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(0))


def _squeezed(a: nn.Module, b: nn.Module, x: Tensor) -> Any:
    y = a(x)
    return b(y * torch.sigmoid(y.mean((2, 3), keepdim=True)) + torch.arange(5.0).view(5, 1, 1))


MOVED: dict[str, Callable[..., Any]] = {
    "a function": lambda a, b, x: b(functional.relu6(a(x))),
    "functions": lambda a, b, x: b(functional.silu(a(x)) * 0.5),
    "a residual": lambda a, b, x: b(functional.relu(a(x) + b(a(x)))),
    "channels": _squeezed,
}


def _graph(of: Callable[..., Any], options: Options | None = None) -> list[torch.fx.Node]:
    torch.manual_seed(1)
    parts = nn.ModuleList([nn.Conv2d(5, 5, 1), nn.Conv2d(5, 5, 3, padding=1, groups=5)])
    model = Function(lambda m, x: of(*m.parts, x))
    model.parts = parts
    lowered = lower(capture(model.eval(), (X,)), options)
    wanted = lowered.run((X,), lowered.pack_weights())
    other = lower(capture(model, (X,)), Options(disable=("channels-last",)))
    assert torch.equal(other.run((X,), other.pack_weights())[0], wanted[0])
    return [node for node in lowered.main.graph.nodes if node.target is aten.permute.default]


@pytest.mark.parametrize("name", MOVED)
def test_permutes_between_convolutions_go(name: str) -> None:
    """Breaks when an operation between two convolutions keeps the channels first, or its bits change. The input, the
    output and a mean over places have them first."""
    maps = [node for node in _graph(MOVED[name]) if node.meta["val"].shape[1:].numel() == X[0].numel()]
    assert len(maps) == (3 if name == "channels" else 2)


def test_other_permutes_stay() -> None:
    """Breaks when operations behind a permute of tokens and heads are done in another order, for nothing."""

    def heads(m: nn.Module, x: Tensor) -> Any:
        return torch.relu(x.permute(0, 3, 1, 2)).permute(0, 2, 1, 3)

    captured = capture(Function(heads).eval(), (X,))
    steps = pipeline(Options())
    before = PassManager(steps[: next(i for i, step in enumerate(steps) if isinstance(step, ChannelsLast))])
    gm = before.run(captured.gm)
    names = [node.target for node in gm.graph.nodes]
    assert [node.target for node in ChannelsLast().run(gm).graph.nodes] == names
