"""The quality of compiled programs is pinned: their cycles in the timing mode, and what makes them."""

import json
import os
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import torch
from checkout import ROOT
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel

from compiler.frontend.capture import capture
from compiler.options import Options
from compiler.pipeline import Compiled, compile_captured
from compiler.tile.cost import cycles
from emulator.timing.simulate import simulate
from emulator.timing.timeline import Timeline
from isa.architecture import DMA_ENGINES, Engine
from isa.chip import Acc, Mxu, Sram, load_chip

PINS = Path(__file__).with_name("quality.json")
RENEW = "LLMCHIP_RENEW_PINS"
WORSE, BETTER = 0.02, 0.1  # shares of the pinned cycles that a program may lose, and gain without a new pin
EDGE = load_chip("edge")
CHIPS = {
    "edge": EDGE,
    "server": load_chip("server"),
    "small": msgspec.structs.replace(
        EDGE, name="small", sram=Sram(48 << 10), acc=Acc(16 << 10), mxu=Mxu(rows=64, cols=64, weight_rows_per_cycle=2)
    ),
}


class Function(nn.Module):
    """A function of one input and the modules that it uses."""

    def __init__(self, function: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleDict(parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, **dict(self.parts.items()))


def _mlp(x: Tensor, up: nn.Module, down: nn.Module) -> Any:
    return x + down(functional.gelu(up(x)))


def _attention(x: Tensor, qkv: nn.Module, out: nn.Module, norm: nn.Module) -> Any:
    q, k, v = (part.unflatten(-1, (4, 16)).transpose(1, 2) for part in qkv(x).chunk(3, dim=-1))
    return norm(x + out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))


def _inverted(x: Tensor, up: nn.Module, apart: nn.Module, down: nn.Module) -> Any:
    return x + down(functional.relu6(apart(functional.relu6(up(x)))))


def _bottleneck() -> dict[str, nn.Module]:
    apart = nn.Conv2d(144, 144, 3, padding=1, groups=144)
    return {"up": nn.Conv2d(24, 144, 1), "apart": apart, "down": nn.Conv2d(144, 24, 1)}


def _chain(x: Tensor) -> Tensor:
    y = torch.tanh(x * 0.5) + x[:1]
    z = torch.sigmoid(y) * y - x.amax(-1, keepdim=True)
    return (z.abs() + 1).sqrt() * torch.exp(-y * y)


def _bert(layers: int) -> tuple[nn.Module, dict[str, Tensor]]:
    config = BertConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=128,
        max_position_embeddings=64,
    )  # fmt: skip
    model: nn.Module = BertModel._from_config(config)
    return model, {"input_ids": torch.randint(0, 100, (2, 16)), "attention_mask": torch.ones(2, 16, dtype=torch.long)}


def _of(function: Callable[..., Tensor], *shape: int, **parts: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
    return Function(function, **parts), {"x": torch.randn(shape)}


MODELS: dict[str, Callable[[], tuple[nn.Module, dict[str, Tensor]]]] = {
    "mlp": lambda: _of(_mlp, 96, 128, up=nn.Linear(128, 512), down=nn.Linear(512, 128)),
    "attention": lambda: _of(
        _attention, 2, 48, 64, qkv=nn.Linear(64, 192), out=nn.Linear(64, 64), norm=nn.LayerNorm(64)
    ),
    "wide linear": lambda: _of(lambda x, wide: wide(x), 40, 96, wide=nn.Linear(96, 3000)),
    "softmax": lambda: _of(lambda x: torch.softmax(x, -1), 200, 300),
    "layer norm": lambda: _of(lambda x, norm: norm(x), 300, 256, norm=nn.LayerNorm(256)),
    "chain": lambda: _of(_chain, 60, 130),
    "inverted residual": lambda: _of(_inverted, 1, 24, 28, 28, **_bottleneck()),
    "convolution": lambda: _of(lambda x, c: functional.relu(c(x)), 1, 32, 28, 28, c=nn.Conv2d(32, 48, 3, 2, 1)),
    "bert of 1": lambda: _bert(1),
    "bert of 3": lambda: _bert(3),
}
PROGRAMS = (
    ("mlp", "edge"), ("mlp", "server"), ("attention", "edge"), ("wide linear", "edge"),
    ("softmax", "edge"), ("softmax", "small"), ("layer norm", "edge"), ("layer norm", "server"), ("chain", "edge"),
    ("chain", "small"), ("bert of 1", "server"), ("bert of 3", "edge"), ("bert of 1", "small"),
    ("inverted residual", "edge"), ("inverted residual", "small"), ("convolution", "edge"), ("convolution", "small"),
)  # fmt: skip
NAMES = {f"{model} on {chip}" for model, chip in PROGRAMS}


class Made(NamedTuple):
    """A compiled program and what the timing mode says of it."""

    compiled: Compiled
    timeline: Timeline

    def quality(self) -> dict[str, int]:
        loop = self.compiled.tiled.program.loop
        return {"cycles": self.timeline.cycles, "iterations": loop.count if loop else 0}


@cache
def made(model: str, chip: str) -> Made:
    torch.manual_seed(0)
    module, given = MODELS[model]()
    compiled = compile_captured(capture(module.eval(), (), given), Options(), CHIPS[chip])
    return Made(compiled, simulate(compiled.image()))


@pytest.mark.parametrize(("model", "chip"), PROGRAMS)
def test_programs_are_as_fast_as_they_were(model: str, chip: str) -> None:
    """Breaks when a change makes programs slower, or much faster and nobody records it; or identical layers are no
    longer a loop."""
    name, found = f"{model} on {chip}", made(model, chip).quality()
    if os.environ.get(RENEW):
        pins = json.loads(PINS.read_text()) if PINS.exists() else {}
        kept = {name: pin for name, pin in {**pins, name: found}.items() if name in NAMES}
        PINS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    pinned = json.loads(PINS.read_text())[name]
    renew = f"if it is meant: {RENEW}=1 python -m pytest {Path(__file__).relative_to(ROOT)}"
    change = found["cycles"] / pinned["cycles"] - 1
    assert change <= WORSE, f"{name}: {found['cycles']} cycles are {change:.1%} more than {pinned['cycles']}; {renew}"
    assert change >= -BETTER, (
        f"{name}: {found['cycles']} cycles are {-change:.1%} less than {pinned['cycles']}; {renew}"
    )
    assert found["iterations"] == pinned["iterations"], f"{name}: {found} is not {pinned}; {renew}"


def test_every_pin_belongs_to_a_program() -> None:
    """Breaks when a program is renamed and its old pin stays."""
    assert set(json.loads(PINS.read_text())) == NAMES


@pytest.mark.parametrize(("model", "chip"), PROGRAMS)
def test_the_cost_model_counts_what_the_timing_mode_counts(model: str, chip: str) -> None:
    """Breaks when the durations that guide the schedule lose touch with the chip: a latency or a pass left out."""
    compiled, timeline = made(model, chip)
    program, estimated = compiled.tiled.program, Counter[Engine]()
    for index, op in enumerate(program.ops):
        times = program.loop.count if program.loop and program.in_loop(index) else 1
        estimated[op.row.engine] += times * cycles(op, compiled.chip)
    for engine in (Engine.VEC, Engine.ACT):  # they are not free before a word completes
        mine = timeline.of(engine)
        assert estimated[engine] == (timeline.end[mine] - timeline.work_start[mine]).sum(), engine
    assert estimated[Engine.MXU] == timeline.busy(Engine.MXU)
    assert abs(sum(estimated[engine] for engine in DMA_ENGINES) / timeline.bus_busy() - 1) < 0.1


def test_a_loop_starts_when_all_before_it_is_done() -> None:
    """Breaks when the fence before a loop is left out: counts inside hold only between iterations."""
    code = made("bert of 3", "edge").compiled.code.instructions
    loops = [number for number, word in enumerate(code) if word.mnemonic == "loop"]
    assert loops and all(code[number - 1].mnemonic == "fence" for number in loops)
