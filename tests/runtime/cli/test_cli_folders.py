"""Hugging Face folders of every modality, and of language models, without any input given."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from cli_harness import call

import runtime.models.examples as examples
from runtime.models.models import folder_of

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
TEXT = {"vocab_size": 100, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
PICTURE = {"image_size": 16, "patch_size": 8}


def folder(path: Path, config: Any, kind: str) -> Path:
    config.architectures = [kind]
    config.save_pretrained(path)
    return path


def test_pictures_are_made_up(tmp_path: Path) -> None:
    """Breaks if a folder that takes no tokens asks the user for files."""
    vit = folder(tmp_path / "vit", transformers.ViTConfig(**SMALL, **PICTURE), "ViTForImageClassification")
    result = call("verify", vit, "--random-weights", 0, "--json")
    assert result.code == 0 and result.document["bit_exact"]


@pytest.mark.wide
def test_texts_and_pictures_at_once(tmp_path: Path) -> None:
    """Breaks if a model with two towers is given one input, or more tokens than its tower for texts has positions."""
    config = transformers.CLIPConfig(
        text_config={**SMALL, **TEXT, "max_position_embeddings": 8},
        vision_config={**SMALL, **PICTURE},
        projection_dim=16,
    )
    result = call("verify", folder(tmp_path / "clip", config, "CLIPModel"), "--random-weights", 0, "--json")
    assert result.code == 0 and result.document["bit_exact"]


@pytest.mark.parametrize(
    ("kind", "config", "shapes"),
    [
        ("ASTModel", transformers.ASTConfig(max_length=64, num_mel_bins=32, **SMALL), {"input_values": (1, 64, 32)}),
        ("Wav2Vec2Model", transformers.Wav2Vec2Config(**SMALL), {"input_values": (1, 16_000)}),
        (
            "WhisperForConditionalGeneration",
            transformers.WhisperConfig(**TEXT, d_model=48, max_source_positions=40, num_mel_bins=16),
            {"input_features": (1, 16, 80), "decoder_input_ids": (1, 8)},
        ),
        ("T5Model", transformers.T5Config(d_model=8, num_layers=1), {"input_ids": 0, "attention_mask": 0, "decoder_input_ids": 0}),
    ],
)  # fmt: skip
def test_shapes_follow_the_config(kind: str, config: Any, shapes: dict[str, Any]) -> None:
    """Breaks if sound is given as samples where bins are wanted, or a decoder is given nothing."""
    with torch.device("meta"):
        model = getattr(transformers, kind)(config)
    found = examples.made_up(model, config, "here", 1, 4, 0)
    assert {name: shapes[name] and tuple(tensor.shape) for name, tensor in found.items()} == shapes


@pytest.mark.wide
def test_a_language_model_writes_on(tmp_path: Path) -> None:
    """Breaks if a folder's decoder is not compiled in steps, or its tokenizer is not found."""
    config = transformers.LlamaConfig(
        **SMALL, vocab_size=30522, max_position_embeddings=64, num_key_value_heads=1, bos_token_id=1, eos_token_id=2
    )
    path = folder(tmp_path / "llama", config, "LlamaForCausalLM")
    assert "no tokenizer" in call("run", path, "--random-weights", 0, "--context", 40, "--prompt", "a cat").err
    (path / "tokenizer.json").write_bytes((folder_of("minilm") / "tokenizer.json").read_bytes())
    options = ("--random-weights", 0, "--context", 40, "--max-new-tokens", 3)
    result = call("run", path, *options, "--prompt", "a cat", "--json")
    assert result.code == 0 and result.document["new_tokens"] == 3
    assert (
        "the model has 64 positions" in call("run", path, "--random-weights", 0, "--context", 65, "--prompt", "a").err
    )
    vit = folder(tmp_path / "vit", transformers.ViTConfig(**SMALL, **PICTURE), "ViTModel")
    assert "is no language model" in call("run", vit, "--random-weights", 0, "--prompt", "a").err
