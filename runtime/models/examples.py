"""Inputs that are made up: their shapes from a model's config, their values from a seed."""

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isa.errors import ModelError
from runtime.models.tokenize import check_tokens

if TYPE_CHECKING:
    from torch import Tensor, nn

TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
DECODER_INPUT, DECODER_LENGTH = "decoder_input_ids", 8
_PIXELS, _CHANNELS, _MELS, _SECOND = 224, 3, 80, 16_000  # where a config says nothing


def made_up(model: "nn.Module", config: Any, where: str, batch: int, seq: int, seed: int) -> "dict[str, Tensor]":
    """Inputs for a model of transformers: what its forward must have of texts [batch, seq] (int64), pictures
    [batch, channels, height, width] and sound [batch, samples], or [batch, bins, frames] (float32).

    Raises ModelError for a model that takes something else.
    """
    import torch

    accepted = inspect.signature(model.forward).parameters
    main = str(getattr(model, "main_input_name", "input_ids"))
    both = "input_ids" in accepted and "pixel_values" in accepted  # towers for texts and pictures, side by side
    names = [name for name in TEXT_INPUTS if name in accepted] if main == "input_ids" or both else []
    names += [name for name in _FLOATS if name in accepted and (name == main or (both and name == "pixel_values"))]
    if not names:
        hint = "give its inputs with --input NAME=FILE.npy"
        raise ModelError(f"{type(model).__name__} takes no {', '.join((TEXT_INPUTS[0], *_FLOATS))}", where, hint)
    example: dict[str, Tensor] = {}
    for name in names:
        if name in TEXT_INPUTS:
            check_tokens(batch, seq)
            example[name] = torch.zeros((batch, seq), dtype=torch.int64)
        else:
            example[name] = torch.zeros((batch, *_FLOATS[name](config)))
    if getattr(config, "is_encoder_decoder", False) and DECODER_INPUT in accepted:
        example[DECODER_INPUT] = torch.zeros((batch, DECODER_LENGTH), dtype=torch.int64)
    return draw(example, seed, limits_of(config))


def limits_of(config: Any) -> dict[str, int]:
    """How many values integer inputs may take."""
    words = int(part_of(config, "vocab_size", 0))
    kinds = int(getattr(config, "type_vocab_size", 0) or 0)
    return {"input_ids": words, DECODER_INPUT: words, "token_type_ids": kinds, "attention_mask": 2}


def part_of(config: Any, name: str, default: Any) -> Any:
    """A value of a config, or of the part of it for texts, pictures or sound."""
    parts = [config, *(getattr(config, f"{kind}_config", None) for kind in ("text", "vision", "audio", "encoder"))]
    found = (getattr(part, name, None) for part in parts)
    return next((value for value in found if value is not None), default)


def _picture(config: Any) -> tuple[int, ...]:
    size = part_of(config, "image_size", _PIXELS)
    if isinstance(size, Mapping):
        size = (size["height"], size["width"])
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return int(part_of(config, "num_channels", _CHANNELS)), int(height), int(width)


def _sound(config: Any) -> tuple[int, ...]:
    """A second of samples, or a spectrogram [frames, bins] for those that begin with one."""
    bins = part_of(config, "num_mel_bins", None)
    return (_SECOND,) if bins is None else (int(part_of(config, "max_length", 1024)), int(bins))


def _features(config: Any) -> tuple[int, ...]:
    return int(part_of(config, "num_mel_bins", _MELS)), 2 * int(part_of(config, "max_source_positions", 1500))


_FLOATS = {"pixel_values": _picture, "input_values": _sound, "input_features": _features}


def draw(example: Mapping[str, Any], seed: int, limits: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Inputs like `example`, drawn from the seed: floats normal, integers below their limit, masks padded on the right.

    What is no tensor stays as it is.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    drawn: dict[str, Any] = {}
    for name, like in example.items():
        if (
            not isinstance(like, torch.Tensor) or like.is_complex()
        ):  # the compiler says what it thinks of complex numbers
            drawn[name] = like
        elif name == "attention_mask" and like.ndim == 2 and not like.is_floating_point():
            lengths = torch.randint(
                (like.shape[1] + 1) // 2, like.shape[1] + 1, (like.shape[0], 1), generator=generator
            )
            drawn[name] = (torch.arange(like.shape[1]) < lengths).to(like.dtype)
        elif like.is_floating_point():
            drawn[name] = torch.randn(like.shape, generator=generator).to(like.dtype)
        else:
            top = (
                2
                if like.dtype == torch.bool
                else (limits or {}).get(name) or (int(like.max()) + 1 if like.numel() else 1)
            )
            drawn[name] = torch.randint(0, max(top, 1), like.shape, generator=generator).to(like.dtype)
    return drawn
