"""Encoder-decoders through `llmchip.compile(model, {"input_ids": ids}, max_length=…)`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import llmchip
from isa.image.steps import ENCODE, steps
from llmchip import InputError
from runtime.encoder_decoder_program import EncoderDecoderProgram

pytestmark = pytest.mark.wide  # each compiles a model or more

VOCABULARY = 53
_BASE: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": 32, "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
_BART = {
    **_BASE, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 40, "decoder_ffn_dim": 40, "max_position_embeddings": 32,
}  # fmt: skip
_T5 = {**_BASE, "d_kv": 8, "d_ff": 40, "num_layers": 1, "num_heads": 4, "relative_attention_num_buckets": 8}
MODELS = {
    "T5ForConditionalGeneration": _T5,
    "MT5ForConditionalGeneration": _T5,
    "BartForConditionalGeneration": _BART,
    "MBartForConditionalGeneration": _BART,
    "MarianMTModel": _BART,
    "PegasusForConditionalGeneration": _BART,
}
CAPACITY = 12
IDS = torch.randint(3, VOCABULARY, (2, 6), generator=torch.Generator().manual_seed(0))
MASK = torch.ones(2, 6, dtype=torch.long)
MASK[1, 4:] = 0
SOURCE = {"input_ids": IDS, "attention_mask": MASK}
TEXT = torch.randint(3, VOCABULARY, (2, 6), generator=torch.Generator().manual_seed(1))


def small(name: str) -> Any:
    """A model of this class with random weights."""
    kind = getattr(transformers, name)
    torch.manual_seed(0)
    return kind(kind.config_class(**MODELS[name])).eval()


def compiled(model: Any, tokens: int) -> EncoderDecoderProgram:
    example = {"input_ids": IDS, "decoder_input_ids": TEXT[:, :tokens]}
    program = llmchip.compile(model, example, max_length=CAPACITY)
    assert isinstance(program, EncoderDecoderProgram)
    return program


@pytest.fixture(scope="module")
def program() -> EncoderDecoderProgram:
    return compiled(small("T5ForConditionalGeneration"), 4)


WIDE, SLOW = pytest.mark.wide, pytest.mark.slow


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name.startswith("Bart") else WIDE if name.startswith("T5") else SLOW)
        for name in MODELS
    ],
)  # fmt: skip
def test_a_family_has_the_references_bits(name: str, request: pytest.FixtureRequest) -> None:
    """Breaks when the encoder, what layers see of it, or a step behind it differs in a bit, or is far from the model."""
    model = small(name)
    known = name.startswith("T5")
    one: EncoderDecoderProgram = request.getfixturevalue("program") if known else compiled(model, 1)
    found = one.verify(SOURCE, 4)
    assert found.bit_exact, str(found)
    assert [step.entry for step in found.steps] == [ENCODE, *["decode"] * 5]
    with torch.no_grad():
        expected = model(**SOURCE, decoder_input_ids=TEXT).logits
    logits = one(**SOURCE, decoder_input_ids=TEXT).logits
    assert (logits - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.slow
def test_speech_has_the_references_bits() -> None:
    """Breaks when an encoder of frames, with convolutions before it, is far from the model, or a bit differs."""
    sizes = {**_BART, "max_source_positions": 6, "max_target_positions": 32, "num_mel_bins": 8}
    model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**sizes)).eval()
    frames = torch.randn(2, 8, 12, generator=torch.Generator().manual_seed(0))
    one = llmchip.compile(model, {"input_features": frames}, max_length=CAPACITY)
    assert one.verify(frames, 3).bit_exact
    with torch.no_grad():
        expected = model(input_features=frames, decoder_input_ids=TEXT).logits
    logits = one(input_features=frames, decoder_input_ids=TEXT).logits
    assert (logits - expected).abs().max() < 0.05 * expected.abs().max()
    assert one.generate(frames, 3, eos_token_id=-1).shape == (2, 4)


def test_bits_depend_on_the_source_and_the_text_alone(program: EncoderDecoderProgram) -> None:
    """Breaks when chunks, forks, another session in between or the padding of a source change a bit."""
    wanted = program(**SOURCE, decoder_input_ids=TEXT).logits
    session = program.new_session()
    session.encode(**SOURCE)
    assert session.sources == (6, 4)
    first = session.prefill(TEXT[:, :3])
    fork = session.fork()
    program(input_ids=IDS.flip(0), decoder_input_ids=TEXT.flip(0))
    rest = torch.cat([session.decode(TEXT[:, at]) for at in range(3, 6)], 1)
    assert torch.equal(torch.cat([first, rest], 1), wanted)
    assert torch.equal(fork.prefill(TEXT[:, 3:]), wanted[:, 3:])
    session.rollback(3)
    assert torch.equal(session.prefill(TEXT[:, 3:]), wanted[:, 3:])
    junk = IDS.clone()
    junk[1, 4:] = 9
    session.encode(input_ids=junk, attention_mask=MASK)
    assert torch.equal(session.prefill(TEXT), wanted)


def test_texts_are_the_most_likely_ones(program: EncoderDecoderProgram, tmp_path: Path) -> None:
    """Breaks when generate takes another token, or a saved program or session is another."""
    found = program.generate(IDS, 5, MASK, eos_token_id=-1)
    assert found.shape == (2, 6) and bool((found[:, 0] == 1).all())
    logits = program(**SOURCE, decoder_input_ids=found[:, :-1]).logits
    assert torch.equal(logits.argmax(-1), found[:, 1:])
    program.save(tmp_path / "x.llmchip")
    loaded = llmchip.load(tmp_path / "x.llmchip")
    numbers = {name: value.numpy() for name, value in SOURCE.items()}
    assert np.array_equal(loaded(**numbers, decoder_input_ids=found[:, :-1].numpy())["logits"], logits.numpy())
    session, other = program.new_session(), program.new_session()
    session.encode(**SOURCE)
    session.prefill(TEXT)
    session.save(tmp_path / "session")
    other.load(tmp_path / "session")
    assert other.sources == (6, 4)
    assert torch.equal(other.decode(TEXT[:, 0]), session.decode(TEXT[:, 0]))


def test_what_does_not_fit_is_refused(program: EncoderDecoderProgram) -> None:
    """Breaks when a session without a source, or with one that does not fit, runs or fails without a word."""
    session = program.new_session()
    with pytest.raises(InputError, match="call encode first"):
        session.prefill(TEXT)
    for given, words in (
        ({"input_ids": IDS, "attention_mask": MASK.flip(1)}, "pad on the right"),
        ({"input_ids": IDS.repeat(1, 2)}, "room for 6"),
        ({"input_ids": IDS[:1]}, r"pass integers \[2, tokens\]"),
        ({"pixels": IDS}, "'input_ids' is unknown or missing|'pixels' is unknown or missing"),
    ):
        with pytest.raises(InputError, match=words):
            session.encode(**given)
    with pytest.raises(InputError, match="'decoder_input_ids' is missing"):
        program(input_ids=IDS)
    entries = tuple(entry for entry in program.image.entries if entry.name != ENCODE)
    assert steps(program.image) and not steps(replace(program.image, entries=entries))
