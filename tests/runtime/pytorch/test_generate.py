"""transformers' generate over models that torch.compile runs: one decoder, the caller's own caches, the bits of
`llmchip.compile(…, max_length=…)`."""

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from families import VOCABULARY, tiny
from runtime_models import python
from torch import Tensor

import llmchip
from llmchip import DecoderProgram
from runtime.pytorch import decoders, fallback, mirror

pytestmark = pytest.mark.wide  # each compiles a model or more

STATIC = {"cache_implementation": "static", "disable_compile": True}
GREEDY = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0, "return_dict_in_generate": True}
CACHES = pytest.mark.parametrize("options", [{}, STATIC], ids=["dynamic", "static"])
ONE_SLOW = pytest.mark.parametrize(
    "options", [{}, pytest.param(STATIC, marks=pytest.mark.slow)], ids=["dynamic", "static"]
)
TOKEN = torch.tensor([[5]])


def prompt(length: int, batch: int = 1) -> Tensor:
    return torch.randint(3, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(length))


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    fallback.forget()
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model() -> Any:
    model = tiny("llama")
    model.compile(backend=llmchip.backend)
    return model


@pytest.fixture(scope="module")
def program() -> DecoderProgram:
    return reference(tiny("llama"))


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The entries of every decoder that is compiled from now on."""
    found: list[list[str]] = []
    compile_decoder = decoders._compiled

    def counted(*args: Any) -> Any:
        decoder = compile_decoder(*args)
        found.append([step.entry for step in decoder.steps])
        return decoder

    monkeypatch.setattr(decoders, "_compiled", counted)
    return found


def reference(model: Any) -> DecoderProgram:
    return llmchip.compile(model, {"input_ids": torch.zeros(1, 8, dtype=torch.long)}, max_length=128)


def check_generates(model: Any, program: DecoderProgram, ids: Tensor, new: int, **options: Any) -> None:
    """The program's tokens, and at every step its logits, bit for bit."""
    found = model.generate(ids, max_new_tokens=new, output_logits=True, **GREEDY, **options)
    assert torch.equal(found.sequences, program.generate(ids, new, eos_token_id=None, pad_token_id=0))
    logits = program(input_ids=found.sequences).logits[:, ids.shape[1] - 1 : -1]
    assert torch.equal(torch.stack(found.logits, 1), logits)


@ONE_SLOW
def test_prompts_of_all_lengths_need_one_decoder(
    model: Any, program: DecoderProgram, options: dict[str, Any], compiled: list[list[str]]
) -> None:
    """Breaks when another program is compiled for another prompt, token, or kind of cache; when Dynamo traces again
    after the second prompt; or when a bit of the logits is not the program's."""
    for number, length in enumerate((5, 9, 70, 7, 20)):
        if number == 2:
            with torch.compiler.set_stance("fail_on_recompile"):
                check_generates(model, program, prompt(length), 4, **options)
        check_generates(model, program, prompt(length), 4, **options)
    assert compiled in ([], [["prefill", "decode"]])  # the model's other tests may have needed it before
    assert not llmchip.fallbacks()


def test_what_generate_notes_makes_no_other_model() -> None:
    """Breaks when a static cache of another length needs another decoder; or a model that computes something else does
    not."""
    model = tiny("llama")
    before = decoders.form_of(model)
    model.generate(prompt(3), max_new_tokens=1, **GREEDY, **STATIC)
    assert decoders.form_of(model) == before
    model.model.layers[0].self_attn.scaling *= 2
    assert decoders.form_of(model) != before


@pytest.mark.slow
@CACHES
def test_padding_on_the_left_changes_no_bit(options: dict[str, Any]) -> None:
    """Breaks when padding counts: as a position, as something to attend to, or as a row of the chip's cache."""
    model, ids, mask = tiny("llama"), prompt(6, 2), torch.ones(2, 6, dtype=torch.long)
    mask[1, :4] = 0
    program = llmchip.compile(model, {"input_ids": ids}, max_length=64)
    expected = program.generate(ids, 3, mask, eos_token_id=None, pad_token_id=0)
    model.forward = torch.compile(model.forward, backend=llmchip.backend)
    found = model.generate(ids, attention_mask=mask, max_new_tokens=3, **GREEDY, **options)
    assert torch.equal(found.sequences, expected)


@ONE_SLOW
def test_python_reads_the_cache_that_the_chip_has(model: Any, options: dict[str, Any]) -> None:
    """Breaks when the caller's tensors do not show what the chip has: other values, or those of an earlier step."""
    found = model.generate(prompt(5), max_new_tokens=3, **GREEDY, **options).past_key_values
    layers = [(layer.keys, layer.values) for layer in found.layers]
    known = mirror.find(layers)
    assert known is not None and known.past == 7
    states = {spec.name: known.decoder.executable.tensor(spec) for spec in known.decoder.image.states}
    for number, layer in enumerate(layers):
        for name, tensor in zip(("keys", "values"), layer, strict=True):
            codes, scales = (torch.tensor(states[f"{name}_{number}{part}"][:, :, :7]) for part in ("", "_scales"))
            assert torch.equal(tensor[:, :, :7], codes * scales[..., None])
            assert not tensor[:, :, 7:].any()


@pytest.mark.slow
def test_a_cache_in_other_hands(model: Any) -> None:
    """Breaks when a cache that was copied, cropped or reordered gives other bits than the one that it came from, or one
    that was written to does not give others."""
    from transformers import DynamicCache

    def logits(cache: Any) -> Tensor:
        found: Tensor = model(input_ids=TOKEN, past_key_values=cache).logits
        return found

    cache = DynamicCache(config=model.config)
    model(input_ids=prompt(9), past_key_values=cache)
    copied, written = copy.deepcopy(cache), copy.deepcopy(cache)
    expected = logits(cache)
    assert torch.equal(logits(copied), expected)
    cache.crop(-1)
    assert torch.equal(logits(cache), expected)
    copied.crop(-1)
    copied.reorder_cache(torch.tensor([0]))
    assert torch.equal(logits(copied), expected)
    known = mirror.find([(layer.keys, layer.values) for layer in copied.layers])
    assert known is not None
    copied.layers[0].keys.mul_(2)
    assert mirror.find([(layer.keys, layer.values) for layer in copied.layers]) is None
    written.layers[1].values[:, :, 3] += 1
    assert not torch.equal(logits(written), expected)


@pytest.mark.slow
def test_weights_as_they_are_now() -> None:
    """Breaks when a step runs with weights that were changed since, or with another instance's."""
    first, second = tiny("llama"), tiny("llama", seed=1)
    for model in (first, second):
        model.compile(backend=llmchip.backend)
    for model in (first, second):
        check_generates(model, reference(copy.deepcopy(model)), prompt(5), 2)
    first.lm_head.weight.mul_(-1)
    check_generates(first, reference(copy.deepcopy(first)), prompt(5), 2)


@pytest.mark.slow
def test_what_is_no_step_of_a_decoder(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when more than logits is asked for, or a mask has holes, and the decoder answers; or when a call that runs
    in PyTorch is not told."""
    from transformers import DynamicCache

    monkeypatch.delenv(fallback.STRICT)
    cache, mask = DynamicCache(config=model.config), torch.ones(1, 6, dtype=torch.long)
    mask[0, 2] = 0
    positions = torch.arange(6)[None]
    with pytest.warns(UserWarning, match="padding that is not on the left"):
        found = model(prompt(6), mask, positions, cache).logits
    expected = tiny("llama")(prompt(6), mask, positions).logits
    assert torch.allclose(found, expected, atol=1e-5)
    assert mirror.find([(layer.keys, layer.values) for layer in cache.layers]) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the chip has all of it, as a graph like any other
        found = model(input_ids=prompt(6), past_key_values=DynamicCache(), output_hidden_states=True)
    assert len(found.hidden_states) == 3


@pytest.mark.slow
def test_a_family_without_a_decoder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a model that cannot be a decoder fails, or nobody is told that its cache is not on the chip."""
    from transformers import DynamicCache, RobertaConfig, RobertaForCausalLM

    monkeypatch.delenv(fallback.STRICT)
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = RobertaForCausalLM(RobertaConfig(**sizes, intermediate_size=24, is_decoder=True)).eval()
    expected = model(input_ids=prompt(4)).logits
    model.compile(backend=llmchip.backend)
    with pytest.warns(UserWarning, match="runs the cache of a language model in PyTorch"):
        found = model(input_ids=prompt(4), past_key_values=DynamicCache()).logits
    assert torch.allclose(found, expected, atol=0.05 * float(expected.abs().max()))


@pytest.mark.slow
@CACHES
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gpt2", {}),
        ("opt", {}),
        ("qwen2", {}),
        ("gpt_neox", {}),
        ("gemma2", {"sliding_window": 16}),
        ("mistral", {"sliding_window": 16}),
        ("smollm", {"dtype": torch.bfloat16}),
    ],
)
def test_families(family: str, changes: dict[str, Any], options: dict[str, Any], compiled: list[list[str]]) -> None:
    """Breaks when a family needs another program for another length, or its tokens or logits are not those of
    `llmchip.compile(…, max_length=…)`: learned positions, windows, tied weights, other types."""
    dtype = changes.pop("dtype", torch.float32)
    model = tiny(family, **changes).to(dtype)
    program = reference(copy.deepcopy(model))
    model.compile(backend=llmchip.backend)
    for length in (5, 9, 14, 7, 20):
        check_generates(model, program, prompt(length), 20, **options)
    assert compiled == [["prefill", "decode"]] and not llmchip.fallbacks()


@pytest.mark.slow
def test_as_users_type_it(tmp_path: Path) -> None:
    """In a fresh process without importing us. Breaks when 50 tokens from each of 5 prompts need more than one decoder,
    or something falls back."""
    code = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                                     num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128)).eval()
model.forward = torch.compile(model.forward, backend="llmchip")
texts = [model.generate(torch.randint(3, 97, (1, n)), max_new_tokens=50, do_sample=False, eos_token_id=None)
         for n in (5, 9, 14, 7, 20)]
assert [text.shape[1] for text in texts] == [55, 59, 64, 57, 70]
import llmchip
from runtime.pytorch import decoding
assert len(decoding._decoders._entries) == 1 and not llmchip.fallbacks()
assert torch.equal(texts[0], llmchip.compile(model, texts[0][:, :5], max_length=64).generate(texts[0][:, :5], 50, eos_token_id=None))
"""
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
