"""Lowering a few layers and stamping the rest must give the graphs that lowering them all gives: names, values, lines
and origins."""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import pytest
import torch
from models import IDS, MASK, same_bits, tiny_bert
from torch import Tensor, fx, nn
from transformers import BertModel, GPT2Config, GPT2Model

from compiler import lower as lowering
from compiler.frontend.capture import Captured, capture
from compiler.lower import Lowered, lower
from compiler.passes.split import freeze, split
from compiler.repeat.find import KEPT, find_layers
from isa.errors import UnsupportedError

X = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))


class Stack(nn.Module):
    """Layers of one kind; `body` is what one of them does with (module, its linear, x, number of the layer, the model's
    other input)."""

    def __init__(self, body: Callable[..., Tensor], count: int = 10) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = body
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(count))
        self.norm, self.shared = nn.LayerNorm(8), nn.Parameter(torch.randn(8, 8))

    def forward(self, x: Tensor, y: Tensor) -> list[Tensor]:
        kept = []
        for number, layer in enumerate(self.layers):
            x = self.body(self, layer, x, number, y)
            kept.append(x)
        return kept if self.training_outputs else [x]

    training_outputs = False


def every_layer(body: Callable[..., Tensor]) -> Stack:
    stack = Stack(body)
    stack.training_outputs = True  # all hidden states are results
    return stack


def _gpt2() -> nn.Module:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=61, n_positions=16, n_embd=24, n_layer=9, n_head=2, use_cache=False)
    model: nn.Module = GPT2Model(config).eval()
    return model


def _reads_the_first(m: Any, layer: nn.Module, x: Tensor, number: int, _: Tensor) -> Tensor:
    if number == 0:
        m.first = x.relu()
    result: Tensor = layer(x) + m.first
    return result


ALIKE: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "bert": lambda: (tiny_bert(BertModel, num_hidden_layers=9), {"input_ids": IDS, "attention_mask": MASK}),
    "bert-eager-gelu_new": lambda: (
        tiny_bert(BertModel, "eager", num_hidden_layers=8, hidden_act="gelu_new"),
        {"input_ids": IDS, "attention_mask": MASK},
    ),
    "bert-half": lambda: (tiny_bert(BertModel, num_hidden_layers=8).bfloat16(), {"input_ids": IDS}),
    "gpt2": lambda: (_gpt2(), {"input_ids": IDS % 61}),
    "names of builtins": lambda: (
        nn.Sequential(*(m for _ in range(10) for m in (nn.Linear(8, 8), nn.ReLU(), nn.LayerNorm(8)))),
        {"input": X},
    ),
    "a weight for all": lambda: (Stack(lambda m, layer, x, n, y: layer(x).tanh() + x @ m.shared), (X, X)),
    "a mask made in every layer": lambda: (Stack(lambda m, layer, x, n, y: layer(x) * (y > 0).float() + x), (X, X)),
    "the first is read by all": lambda: (
        Stack(_reads_the_first),
        (X, X),
    ),
    "one layer unlike the others": lambda: (
        Stack(lambda m, layer, x, n, y: layer(x).tanh() if n == 11 else layer(x).relu() * 2, 12),
        (X, X),
    ),
}
UNLIKE: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "one in the middle": lambda: (
        Stack(lambda m, layer, x, n, y: layer(x).tanh() if n == 5 else layer(x).relu() * 2),
        (X, X),
    ),
    "all are read": lambda: (every_layer(lambda m, layer, x, n, y: layer(x).tanh() + x), (X, X)),
    "another number": lambda: (Stack(lambda m, layer, x, n, y: layer(x) * (n + 2.5)), (X, X)),
    "two share a weight": lambda: (Stack(lambda m, layer, x, n, y: m.layers[n - n % 2](x).tanh() + x), (X, X)),
    "few": lambda: (Stack(lambda m, layer, x, n, y: layer(x).tanh(), KEPT), (X, X)),
}


def some(names: Iterable[str]) -> list[Any]:
    """Variants of BERT are for test-all, GPT-2 for test-wide."""
    tiers = {"bert-": pytest.mark.slow, "gpt2": pytest.mark.wide}
    return [
        pytest.param(name, marks=[mark for start, mark in tiers.items() if name.startswith(start)]) for name in names
    ]


@cache
def captured_of(name: str) -> Captured:
    """Captured once for all tests: lowering leaves it as it is."""
    return captured((ALIKE | UNLIKE)[name]())


def captured(made: tuple[nn.Module, Any]) -> Captured:
    model, given = made
    return capture(model.eval(), given, {}) if isinstance(given, tuple) else capture(model.eval(), (), given)


def _graphs(lowered: Lowered) -> list[Any]:
    def form(value: Any) -> Any:
        return (
            (tuple(value.shape), value.stride(), value.dtype) if isinstance(value, Tensor) else tuple(map(form, value))
        )

    lines: list[Any] = []
    for graph in (lowered.main.graph, lowered.pack.graph):
        for node in graph.nodes:
            kept = [node.meta.get(key) for key in ("source", "origins", "passes", "weight")]
            value = form(node.meta["val"]) if node.op != "output" else None
            lines.append((node.op, node.name, str(node.target), str(node.args), str(node.kwargs), value, kept))
    return [*lines, lowered.constants]


@pytest.mark.parametrize("name", some([*ALIKE, *UNLIKE]))
def test_stamped_layers_are_the_lowered_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a stamped node differs from the one that the passes make: in operands, name, order, form, line or
    origins."""
    given = captured_of(name)
    stamped = lower(given)
    monkeypatch.setattr("compiler.repeat.by_layers.find_layers", lambda *_: None)
    whole = lower(given)
    assert _graphs(stamped) == _graphs(whole)
    for a, b in zip(stamped.pack_weights(), whole.pack_weights(), strict=True):
        assert same_bits(a, b)


@pytest.mark.parametrize("name", some(ALIKE))
def test_identical_layers_are_stamped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when identical layers are no longer recognised, and compile time grows with their number again."""
    sizes, halves = [], freeze

    def counted(gm: fx.GraphModule, whole: bool = True) -> Any:
        sizes.append(len(gm.graph.nodes))
        return halves(gm, whole)

    monkeypatch.setattr(lowering, "freeze", counted)
    given = captured_of(name)
    whole = len(lower(given).main.graph.nodes)
    assert len(sizes) == 1 and find_layers(given.gm.graph) is not None
    assert len(lower(given).main.graph.nodes) == whole


@pytest.mark.parametrize("name", UNLIKE)
def test_layers_that_differ_are_lowered_one_by_one(name: str) -> None:
    """Breaks when layers count as identical that are not; the test above would then say what comes of it."""
    assert find_layers(captured_of(name).gm.graph) is None


def test_layers_that_are_lowered_in_different_ways_are_not_stamped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when layers that looked alike before the passes are stamped although the passes made something else of one
    of them."""
    given = captured_of("a weight for all")
    cuts: list[int] = []

    def tampered(gm: Any, cut: Callable[[Any], Any] = split) -> Any:
        halves = cut(gm)
        if not cuts:
            node = [node for node in halves.main.graph.nodes if "tanh" in str(node.args)][3]
            node.meta["passes"] += ("another",)
        cuts.append(len(gm.graph.nodes))
        return halves

    monkeypatch.setattr("compiler.passes.split.split", tampered)
    found = lower(given)
    assert len(cuts) == 2 and cuts[1] > cuts[0]
    monkeypatch.setattr("compiler.repeat.by_layers.find_layers", lambda *_: None)
    assert _graphs(found) == _graphs(lower(given))


def test_what_the_chip_cannot_do_is_refused_by_its_line() -> None:
    """Breaks when an operation in a repeated layer is refused in other words than in a single one."""
    for count in (1, 10):
        with pytest.raises(
            UnsupportedError, match=r"aten\.cummax.*\(.*test_layers\.py:\d+|test_layers\.py:\d+.*aten\.cummax"
        ):
            lower(captured((Stack(lambda m, layer, x, n, y: layer(x).cummax(-1).values, count), (X, X))))
