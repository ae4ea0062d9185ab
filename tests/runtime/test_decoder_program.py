"""Language models through `llmchip.compile(model, ids, max_length=…)`: called like the model, generating like it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from choice import few
from families import FAMILIES, VOCABULARY, tiny
from gguf_models import file_of, small
from torch import Tensor

import llmchip
from compiler.frontend.gguf.file import read_gguf
from compiler.frontend.gguf.model import causal_lm
from isa.image.steps import POSITIONS
from llmchip import DecoderProgram, InputError
from runtime.pytorch import cache
from runtime.verify.steps import StepReference, verify_steps

IDS = torch.randint(3, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(0))
EXAMPLE = {"input_ids": torch.zeros(2, 5, dtype=torch.long)}
CAPACITY = 32


@pytest.fixture(scope="module")
def program() -> DecoderProgram:
    return llmchip.compile(tiny("llama"), EXAMPLE, max_length=CAPACITY)


def reference(program: DecoderProgram) -> StepReference:
    return StepReference({name: one.lowered for name, one in program.compiled.programs.items()})


def decoded(graph: StepReference, ids: Tensor, lengths: Sequence[int] = (0, 0)) -> Tensor:
    """The logits of each token, one by one, by the frozen graph in PyTorch."""
    steps = [graph.run("decode", ids[:, at : at + 1].numpy(), [n + at for n in lengths]) for at in range(ids.shape[1])]
    return torch.cat(steps, 1)


@pytest.mark.parametrize("family", few(FAMILIES, "llama", "gpt2", "bloom", "glm"))
def test_a_family_decodes_with_the_references_bits(family: str) -> None:
    """Breaks when a step of a family differs from its frozen graph in PyTorch in a bit of logits or caches, the graph
    is far from the model, or greedy tokens are others."""
    model = tiny(family)
    program = llmchip.compile(model, EXAMPLE, max_length=CAPACITY)
    found = program.verify(IDS, 8)
    assert found.bit_exact, str(found)
    assert [step.entry for step in found.steps] == ["prefill"] * 3 + ["decode"] * 8
    with torch.no_grad():
        expected = model(input_ids=IDS).logits
    logits = program(input_ids=IDS).logits
    assert (logits - expected).abs().max() < 0.05 * expected.abs().max()
    session = program.new_session()
    session.prefill(IDS[:, :7])
    fork = session.fork()
    graph = reference(program)
    assert torch.equal(session.prefill(IDS[:, 7:]), decoded(graph, IDS)[:, 7:])
    other = IDS.flip(0)
    assert torch.equal(fork.prefill(other[:, :5]), decoded(graph, other[:, :5], (7, 7)))
    session.rollback(9)
    assert torch.equal(session.decode(other[:, 9]), decoded(graph, torch.cat([IDS[:, :9], other[:, 9:10]], 1))[:, 9:])


@pytest.mark.wide
def test_a_half_model_has_the_references_bits() -> None:
    """Breaks when the result of attention over a cache has another type on the chip than in the model."""
    found = llmchip.compile(tiny("llama").bfloat16(), EXAMPLE, max_length=CAPACITY).verify(IDS[:, :6], 2)
    assert found.bit_exact, str(found)


def test_different_lengths_have_the_references_bits(program: DecoderProgram) -> None:
    """Breaks when sequences of one batch are not each at a position of its own."""
    session, graph = program.new_session(), reference(program)
    mask = torch.ones(2, 12)
    mask[1, 7:] = 0
    session.prefill(IDS, mask)
    decoded(graph, IDS)
    assert torch.equal(session.prefill(IDS[:, :4]), decoded(graph, IDS[:, :4], (12, 7)))


def test_greedy_tokens_are_the_references(program: DecoderProgram) -> None:
    """Breaks when generate takes another token than the most likely one, or loses one."""
    ids, graph = IDS, reference(program)
    for _ in range(8):
        ids = torch.cat([ids, decoded(graph, ids)[:, -1:].argmax(-1)], 1)
    assert torch.equal(program.generate(IDS, 8, eos_token_id=-1), ids)


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": False, "repetition_penalty": 1.3},
        {"do_sample": True, "temperature": 0.7, "top_k": 20},
        {"do_sample": True, "top_p": 0.8, "repetition_penalty": 1.2},
        {"do_sample": True, "min_p": 0.01, "no_repeat_ngram_size": 2},
    ],
)
def test_sampling_is_transformers_own(program: DecoderProgram, options: dict[str, Any]) -> None:
    """Breaks when an option means something else than to `model.generate`: a model that returns the chip's logits
    generates the same tokens."""
    model = tiny("llama")
    model.forward = lambda input_ids, **_options: program(input_ids=input_ids)
    torch.manual_seed(5)
    expected = model.generate(IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=8, use_cache=False, **options)
    torch.manual_seed(5)
    assert torch.equal(program.generate(IDS, 8, **options), expected)
    if options["do_sample"]:
        own = [program.generate(IDS, 8, generator=torch.Generator().manual_seed(5), **options) for _ in range(2)]
        assert torch.equal(*own)


def test_padding_on_the_left_is_no_token(program: DecoderProgram) -> None:
    """Breaks when generate sees the padding of a shorter prompt."""
    ids, mask = IDS.clone(), torch.ones_like(IDS)
    ids[0, :5], mask[0, :5] = 0, 0
    found = program.generate(ids, 6, mask, repetition_penalty=1.2)
    assert torch.equal(found[:, :12], ids)
    alone = program.generate(ids[:, 5:], 6, repetition_penalty=1.2)
    assert torch.equal(found[0, 12:], alone[0, 7:])


def test_called_like_the_model(program: DecoderProgram) -> None:
    """Breaks when a call leaves something behind, or takes what it cannot do."""
    first = program(IDS).logits
    assert first.dtype is torch.float32
    assert torch.equal(program(input_ids=IDS, attention_mask=torch.ones_like(IDS), use_cache=False)["logits"], first)
    assert "2, 32 tokens, in steps of 5, 1, chip edge" in repr(program)
    with pytest.raises(InputError, match="unknown input 'position_ids'"):
        program(IDS, position_ids=IDS)
    with pytest.raises(InputError, match="'input_ids' is missing"):
        program()
    assert "input_ids" in program.disassemble()


def test_verify_finds_a_changed_weight(program: DecoderProgram) -> None:
    """Breaks when the comparison with PyTorch compares nothing."""
    lowered = {name: one.lowered for name, one in program.compiled.programs.items()}
    weights = bytearray(program.image.weights)
    weights[len(weights) // 2] ^= 0x40
    found = verify_steps(replace(program.image, weights=bytes(weights)), lowered, IDS, 2)
    assert not found.bit_exact
    assert found.first_divergence is not None
    assert "first difference" in str(found)
    assert found.as_dict()["bit_exact"] is False


def test_weights_that_changed_are_noticed(tmp_path: Path) -> None:
    """Breaks when an image is saved or verified beside a model that is another by now."""
    model = tiny("llama", num_hidden_layers=1)
    program = llmchip.compile(model, EXAMPLE, max_length=CAPACITY)
    program.verify(IDS, 1)
    program.save(tmp_path / "model.llmchip")
    with torch.no_grad():
        next(model.parameters()).add_(1)
    with pytest.raises(llmchip.CompileError, match="weights have changed"):
        program.verify(IDS)


@pytest.mark.wide
def test_the_image_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a model is compiled again, or another model gets its image."""
    monkeypatch.setattr(cache, "folder", lambda: tmp_path)
    monkeypatch.setattr(cache, "WORTH_KEEPING", 0.0)
    one = partial(tiny, "llama", num_hidden_layers=1)
    first = llmchip.compile(one(), EXAMPLE, max_length=CAPACITY)
    assert len(cache.entries()) == 1
    again = llmchip.compile(one(), EXAMPLE, max_length=CAPACITY)
    assert len(cache.entries()) == 1
    assert "compiled" not in vars(again)
    assert again.image.hash == first.image.hash
    assert again.verify(IDS, 1).bit_exact
    for other in (one(seed=1), one(rms_norm_eps=1e-3)):
        llmchip.compile(other, EXAMPLE, max_length=CAPACITY)
    llmchip.compile(one(), EXAMPLE, max_length=CAPACITY - 1)
    assert len(cache.entries()) == 4


def test_what_cannot_be_compiled_is_refused() -> None:
    """Breaks when an argument that makes no sense is taken, or refused by a traceback."""
    model = tiny("llama", num_hidden_layers=1)
    for arguments, words in (
        ((torch.nn.Linear(3, 3), EXAMPLE, 8), "Linear is no language model"),
        ((model, EXAMPLE, 0), "max_length is 0"),
        ((model, EXAMPLE, 4), "the example has 5 tokens, max_length is 4"),
        ((model, EXAMPLE, 1024), "the model has 512 positions"),
        ((model, {"x": IDS}, 8), "example tokens"),
        ((model, {"input_ids": IDS.float()}, 8), "example tokens"),
    ):
        with pytest.raises(InputError, match=words):
            llmchip.compile(arguments[0], arguments[1], max_length=arguments[2])


def long_phi3() -> Any:
    """Phi-3 with other rotary factors beyond 16 tokens than before."""
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 6, "long_factor": [2.0] * 6, "rope_theta": 1e4}
    changes: dict[str, Any] = {
        "original_max_position_embeddings": 16,
        "rope_parameters": rope,
        "max_position_embeddings": 512,
    }
    return tiny("phi3", num_hidden_layers=1, **changes).config


def test_models_that_are_no_decoders_here_are_named() -> None:
    """Breaks when a model whose attention is its own is taken, or refused as a fault of ours."""
    import transformers as t

    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 48, "num_hidden_layers": 1}
    for config, words in (
        (t.OpenAIGPTConfig(vocab_size=VOCABULARY, n_embd=48, n_layer=1, n_head=4), "no cache to keep"),
        (t.CpmAntConfig(**sizes, num_attention_heads=4, dim_head=12, dim_ff=72), "'masked_fill'"),
        (long_phi3(), "at most 16 tokens"),
    ):
        model = t.AutoModelForCausalLM.from_config(config).eval()
        with pytest.raises(llmchip.UnsupportedError, match=words):
            llmchip.compile(model, EXAMPLE, max_length=CAPACITY)


def test_one_step_alone() -> None:
    """Breaks when a program without a prefill step cannot take several tokens."""
    program = llmchip.compile(tiny("llama", num_hidden_layers=1), (torch.zeros(1, 1, dtype=torch.long),), max_length=8)
    assert [entry.name for entry in program.image.entries] == ["decode"]
    assert program(IDS[:1, :6]).logits.shape == (1, 6, VOCABULARY)
    assert [s.name for s in program.image.entry().scalars] == [f"{POSITIONS}.0"]


@pytest.mark.wide
def test_an_image_records_weights_in_blocks(tmp_path: Path) -> None:
    """Breaks when the hash of a GGUF model's weights leaves out its linears, whose codes are buffers."""
    model, hashes = causal_lm(read_gguf(file_of("llama", small("llama", num_hidden_layers=1), "Q8_0"))), set()
    for number in range(2):
        model.model.layers[0].mlp.up_proj.codes[0, 0] = number
        llmchip.compile(model, EXAMPLE, max_length=CAPACITY).save(tmp_path / "x.llmchip")
        hashes.add(llmchip.load(tmp_path / "x.llmchip").metadata["weights_sha256"])
    assert len(hashes) == 2


def test_a_step_is_profiled_where_it_stands(program: DecoderProgram) -> None:
    """Breaks when the profile is of another entry or position, or a name that there is not goes unnoticed."""
    positions = [scalar.name for scalar in program.image.entry("decode").scalars]
    near, far = program.profile("decode", dict.fromkeys(positions, 0)), program.profile("decode")
    assert near.entry == "decode" and near.dram_bytes < far.dram_bytes
    assert program.profile().entry == program.image.entries[0].name
    with pytest.raises(InputError, match="there is no entry 'encode'"):
        program.profile("encode")
    with pytest.raises(InputError, match="there is no scalar 'length'"):
        program.profile("decode", {"length": 1})
    with pytest.raises(InputError, match=f"'{positions[0]}' is {CAPACITY}"):
        program.profile("decode", {positions[0]: CAPACITY})
