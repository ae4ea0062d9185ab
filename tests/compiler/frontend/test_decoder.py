"""Decoders as they are captured: what a step has of its model, what is refused, and what is left of it all."""

import resource
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from families import VOCABULARY, tiny
from torch import Tensor
from torch.fx import graph_module
from torch.fx.experimental import proxy_tensor

from compiler.frontend.capture import Captured
from compiler.frontend.decoder import _zeros, capture_decoder
from compiler.ops import library as ops
from isa.errors import Error

SIZES = {"vocab_size": VOCABULARY, "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 1}
SIZES |= {"num_attention_heads": 4, "pad_token_id": 0}


class Own(transformers.MistralForCausalLM):  # type: ignore[misc]
    """A user's subclass, in a file that does not know transformers' attention functions."""


def windows(captured: Captured) -> list[object]:
    return [node.args[9] for node in captured.gm.graph.find_nodes(op="call_function", target=ops.attention_in_cache)]


def test_caches_take_no_memory_on_the_host() -> None:
    """Breaks if the zeros of a cache are written to memory while its step is compiled: of a long text they are as much as
    a small model. Each has its own, which can be written to."""
    before = resident()
    caches = [_zeros(np.float32, 1, 4, 1 << 20, 16) for _ in range(2)]  # 256 MiB each
    assert resident() - before < 64 << 20
    caches[0][0, 0, 0] = 1
    assert caches[0][0, 0].sum() == 16 and not caches[1][0, 0].any()
    assert _zeros(np.int8, 1, 2, 0, 3).shape == (1, 2, 0, 3)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.wide
def test_a_subclass_keeps_its_windows_and_shared_heads() -> None:
    """Breaks when a model's own file decides how its attention is called: PyTorch's function is told of no window, and
    gets keys repeated for each query head."""
    model = tiny("mistral", sliding_window=6)
    plain = capture_decoder(model, 1, 4, 16)
    model.__class__ = Own
    own = capture_decoder(model, 1, 4, 16)
    assert windows(own) == windows(plain) == [6, 6]
    assert own.tensors["keys_0"].shape == plain.tensors["keys_0"].shape == (1, 2, 16, 12)


@pytest.mark.wide
def test_a_window_is_seen_in_what_a_model_adds() -> None:
    """Breaks when a model that writes its attention out loses the window that is in a mask of its own."""
    assert windows(capture_decoder(tiny("gpt_neo"), 1, 4, 16)) == [0, 7]
    assert windows(capture_decoder(tiny("gpt_neo"), 1, 4, 7)) == [0, 0]


@pytest.mark.parametrize("family", ["bloom", "mpt", "falcon_alibi"])
def test_a_bias_of_keys_is_the_same_for_every_capacity(family: str) -> None:
    """Breaks when bits depend on the capacity, because biases are counted from its end."""
    model = tiny(family)
    small, large = (capture_decoder(model, 1, 1, capacity).tensors["bias_0"] for capacity in (16, 40))
    assert small.any() and torch.equal(small, large[:, :16])


def test_logits_of_a_half_model_are_float32() -> None:
    """Breaks when logits keep the model's type, which no step of an image may have."""
    (logits,) = capture_decoder(tiny("llama").bfloat16(), 1, 2, 8).outputs
    assert logits.dtype is torch.float32


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("BertLMHeadModel", {}, "sees later tokens"),
        ("RobertaForCausalLM", {"is_decoder": True}, "counted from the padding token"),
        (
            "Qwen2MoeForCausalLM",
            {
                "use_sliding_window": True,
                "sliding_window": 6,
                "layer_types": ["sliding_attention"],
                "mlp_only_layers": [0],
            },
            "a window or chunk of 6 tokens",
        ),
        ("DogeForCausalLM", {"num_key_value_heads": 2, "keep_window_size": 4}, "a mask that the model makes itself"),
    ],
)
def test_what_a_step_cannot_say_is_refused(family: str, changes: dict[str, Any], message: str) -> None:
    """Breaks when a model is captured whose attention or positions are others than a step's: wrong logits, no word."""
    kind = getattr(transformers, family)
    with pytest.raises(Error, match=message):
        capture_decoder(kind(kind.config_class(**{**SIZES, **changes})).eval(), 1, 4, 16)


@pytest.mark.parametrize("changes", [{}, {"sliding_window": 3}])
def test_a_captured_step_runs_in_pytorch(changes: dict[str, Any]) -> None:
    """Breaks when the graph of a step cannot be run as it was captured, or says something else than the model."""
    model, ids = tiny("mistral", **changes), torch.arange(5, 17)[None]
    steps = {count: capture_decoder(model, 1, count, 16) for count in (1, 5)}
    state: dict[str, Tensor] = {}
    found, at = [], 0
    for count in (5, 1, 5, 1):
        captured = steps[count]
        state = {**captured.tensors, **{k: v for k, v in state.items() if k.startswith(("keys_", "values_"))}}
        weights = [state[weight.name] for weight in captured.weights]
        given = ids[:, at : at + count].to(torch.int32), torch.tensor([at], dtype=torch.int32)
        found.append(captured.gm(*given, *weights)[0])
        at += count
    with torch.no_grad():
        wanted = model(input_ids=ids).logits
    assert float(torch.nn.functional.cosine_similarity(torch.cat(found, 1), wanted, dim=-1).min()) > 0.99


def test_captures_leave_nothing_in_pytorch() -> None:
    """Breaks when PyTorch keeps the texts and the first graph of every export as long as the process lasts: tens of
    megabytes of a language model; or when they go with the table, so that no other graph could show its text."""
    texts, traced = graph_module._loader.eval_cache, proxy_tensor._FAKE_TENSOR_ID_TO_PROXY_MAP_FOR_EXPORT
    before = dict(texts)
    captured = capture_decoder(tiny("llama"), 1, 2, 16)
    assert dict(texts) == before and not traced
    assert "attention_in_cache" in captured.gm.code
    assert len(texts) > len(before)  # this text has a reader


def test_a_model_is_left_as_it_was() -> None:
    """Breaks when a forward that a user put in place of the class's is gone, or another attention function stays."""
    model = tiny("llama")
    rotary, before = model.model.rotary_emb, model.config._attn_implementation
    original = rotary.forward

    def forward(x: Tensor, position_ids: Tensor) -> Any:
        return original(x, position_ids)

    rotary.forward = forward
    capture_decoder(model, 1, 1, 8)
    assert vars(rotary)["forward"] is forward and model.config._attn_implementation == before


def test_a_compiled_model_is_captured_without_its_compiler() -> None:
    """Breaks when a capture runs what torch.compile has put in the place of a model's call, or takes it away for good."""

    def refuse(*_given: Any) -> Any:
        raise AssertionError("a capture was compiled")

    model = tiny("llama")
    model.forward = compiled = torch.compile(model.forward, backend=refuse)
    model.model.compile(backend=refuse)
    call = model.model._compiled_call_impl
    capture_decoder(model, 1, 2, 8)
    assert model.forward is compiled and model.model._compiled_call_impl is call is not None


def test_threads_capture_one_after_the_other() -> None:
    """Breaks when two threads change the same model's configuration at once."""
    model, found = tiny("llama"), list[Captured]()
    threads = [threading.Thread(target=lambda: found.append(capture_decoder(model, 1, 1, 8))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2 and model.config._attn_implementation == "sdpa"


class Shifted(transformers.GPT2LMHeadModel):  # type: ignore[misc]
    """Counts positions in a way of its own where it is not told them."""

    def forward(self, input_ids: Tensor, position_ids: Tensor | None = None, **options: Any) -> Any:
        places = torch.arange(3, 3 + input_ids.shape[1])[None] if position_ids is None else position_ids
        return super().forward(input_ids=input_ids, position_ids=places, **options)


def test_a_step_that_is_not_the_model_is_refused() -> None:
    """Breaks when a captured step computes something else than its model, which no later check can see: they all
    compare with what was captured."""
    config = transformers.GPT2Config(vocab_size=VOCABULARY, n_embd=48, n_layer=1, n_head=4, n_positions=32)
    with pytest.raises(Error, match="computes something else"):
        capture_decoder(Shifted(config).eval(), 1, 1, 16)
    assert capture_decoder(transformers.GPT2LMHeadModel(config).eval(), 1, 1, 16).inputs


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_model_whose_logits_say_nothing_is_captured(value: float) -> None:
    """Breaks when a model without real weights is taken for one that computes something else."""
    model = tiny("llama")
    with torch.no_grad():
        model.lm_head.weight.fill_(value)
    assert capture_decoder(model, 1, 1, 8).inputs
