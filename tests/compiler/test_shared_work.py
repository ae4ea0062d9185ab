"""Layers share the compiler's work. What is shared must be what each would have got for itself."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from models import IDS, MASK, Function, lowered_of, same_bits, tiny_bert
from torch import Tensor, fx, nn
from transformers import BertForSequenceClassification, BertModel, GPT2Config, GPT2Model

from compiler import packing
from compiler.frontend.capture import capture
from compiler.graph import editor
from compiler.graph.manager import text
from compiler.lower import Lowered, lower
from compiler.passes import split
from compiler.pipeline import compile_captured
from isa.errors import CompileError
from isa.image.image import image_bytes


def _gpt2() -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = GPT2Model(
        GPT2Config(vocab_size=61, n_positions=16, n_embd=24, n_layer=3, n_head=2, use_cache=False)
    ).eval()
    return model


MODELS: dict[str, Callable[[], tuple[nn.Module, tuple[Any, ...], dict[str, Any]]]] = {
    "bert": lambda: (tiny_bert(BertModel, num_hidden_layers=3), (), {"input_ids": IDS, "attention_mask": MASK}),
    "bert-eager-half": lambda: (
        tiny_bert(BertModel, "eager", num_hidden_layers=2).to(torch.bfloat16),
        (),
        {"input_ids": IDS},
    ),
    "classifier": lambda: (
        tiny_bert(BertForSequenceClassification, hidden_act="gelu_new", num_hidden_layers=2),
        (),
        {"input_ids": IDS},
    ),
    "gpt2": lambda: (_gpt2(), (), {"input_ids": IDS % 61}),
    "plain": lambda: (
        Function(
            lambda m, x: [
                m.lin(x).softmax(1),
                torch.einsum("ab,bc->ac", x[0], m.lin.weight),
                x.mean((0, 1)),
                x * 1,
                x + True,
            ]
        ),
        (torch.randn(2, 5, 8),),
        {},
    ),
}


@cache
def lowered_model(name: str) -> Lowered:
    model, args, kwargs = MODELS[name]()
    return lower(capture(model.eval(), args, kwargs))


def _forms(lowered: Lowered) -> list[Any]:
    def form(value: Any) -> Any:
        return (
            (tuple(value.shape), value.stride(), value.dtype) if isinstance(value, Tensor) else tuple(map(form, value))
        )

    nodes = [*lowered.main.graph.nodes, *lowered.pack.graph.nodes]
    return [
        (n.name, form(n.meta["val"]), n.meta["source"], n.meta["origins"], n.meta["passes"])
        for n in nodes
        if n.op != "output"
    ]


@pytest.mark.parametrize("name", MODELS)
def test_a_form_that_was_seen_before_is_the_form_that_pytorch_gives(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when two calls count as equal whose results differ in shape, strides or type: the graph would be another
    one."""
    shared = lowered_model(name)
    monkeypatch.setattr(editor, "evaluate_fake", editor._ask)
    monkeypatch.setattr(split, "evaluate_fake", editor._ask)
    alone = lower(shared.captured)
    assert text(shared.main.graph) == text(alone.main.graph) and text(shared.pack.graph) == text(alone.pack.graph)
    assert _forms(shared) == _forms(alone)


def test_identical_layers_ask_pytorch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when compile time grows with the number of identical layers again."""
    asked, ask = [], editor._ask

    def counted(mode: Any, node: fx.Node) -> Any:
        asked.append(node.target)
        return ask(mode, node)

    monkeypatch.setattr(editor, "_ask", counted)
    counts = []
    for layers in (2, 8):
        asked.clear()
        lowered_of(tiny_bert(BertModel, num_hidden_layers=layers), input_ids=IDS, attention_mask=MASK)
        counts.append(len(asked))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("threads", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_packing_gives_the_bits_of_the_pack_graph(name: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a block, a thread or a missing dependence between packed weights changes a bit."""
    lowered = lowered_model(name)
    weights = [lowered.captured.tensors[weight.name] for weight in lowered.captured.weights]
    with torch.no_grad():
        want = lowered.pack(*weights)
    monkeypatch.setattr(packing, "BLOCK", 100)  # several blocks even here
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    found = lowered.pack_weights()
    assert len(found) == len(want) and all(same_bits(a, b) for a, b in zip(found, want, strict=True))


def test_threads_of_pytorch_are_what_they_were() -> None:
    """Breaks when packing leaves the user's PyTorch with another number of threads, here or in threads that start
    later."""
    from concurrent.futures import ThreadPoolExecutor

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        lowered_of(tiny_bert(BertModel), input_ids=IDS).pack_weights()
        assert torch.get_num_threads() == 2
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(before)


def test_the_first_bad_weight_is_named_whatever_the_threads_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when the weight that an error names depends on which thread was first."""
    layers = [nn.Linear(8, 8) for _ in range(6)]
    captured = capture(nn.Sequential(*layers).eval(), (torch.randn(3, 8),))
    with torch.no_grad():
        for layer in layers[2:]:
            layer.weight[0, 0] = float("nan")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    for _ in range(5):
        with pytest.raises(CompileError, match=r"'2\.weight' holds 1 "):
            compile_captured(captured).image()


def test_the_same_image_with_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when threads write into each other's places."""
    captured = capture(tiny_bert(BertModel, num_hidden_layers=2), (), {"input_ids": IDS})
    want = image_bytes(compile_captured(captured).image())
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    assert image_bytes(compile_captured(captured).image()) == want
