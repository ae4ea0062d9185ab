"""Inputs for a tiny model, by modality: what `forward` names, made from the configuration. Several sets, the fullest
first: the first that eager PyTorch takes is used."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from runtime.models.examples import made_up
from tools.support.tiny import FIRST_TEXT_ID, VOCABULARY

BATCH, LENGTH, FRAMES, SAMPLES, PICTURE = 2, 7, 64, 3200, 64
MOST = 1 << 16  # elements of inputs
Inputs = dict[str, Any]


def input_sets(model: torch.nn.Module) -> Iterator[tuple[str, Inputs]]:
    """Names of modalities and inputs: what `llmcc` makes up for a folder of this type, then others. Raises nothing: what
    cannot be made is left out."""
    names = inspect.signature(model.forward).parameters
    config = model.config
    required = [
        n for n, p in names.items() if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]  # fmt: skip
    try:
        made = made_up(model, config, type(model).__name__, BATCH, LENGTH, 1)
    except Exception:  # whatever an odd config makes of a shape: others are tried
        made = {}
    # Words are drawn below, above the special ones.
    if made and "input_ids" not in made and sum(value.numel() for value in made.values()) <= MOST:
        yield ", ".join(made), made
    for modality, keys in MODALITIES.items():
        if not set(keys) <= set(names):
            continue
        for values in _values(config, [*keys, *(n for n in required if n in MAKERS and n not in keys)], model):
            if all(n in values for n in required):
                yield modality, values


def _values(config: Any, keys: Sequence[str], model: Any) -> Iterator[Inputs]:
    """Each combination of what the makers offer: they vary together, the shorter lists repeat their last."""
    torch.manual_seed(1)
    offers = {key: list(MAKERS[key](config, model)) for key in keys}
    if not all(offers.values()):
        return
    for number in range(max(map(len, offers.values()))):
        values = {key: offer[min(number, len(offer) - 1)] for key, offer in offers.items()}
        for extra, maker in EXTRAS.items():
            if extra in inspect.signature(model.forward).parameters and extra not in values:
                value = maker(config, values)
                if value is not None:
                    values[extra] = value
        yield values


def _field(config: Any, *names: str, default: Any = None) -> Any:
    """The first of these fields that the configuration or one in it has."""
    places = [config, *(getattr(config, key, None) for key in getattr(config, "sub_configs", {}))]
    for name in names:
        for place in places:
            value = getattr(place, name, None)
            if value is not None and not isinstance(value, bool):
                return value
    return default


def _ids(config: Any, model: Any) -> Iterator[Tensor]:
    most = min(_field(config, "vocab_size", "src_vocab_size", default=VOCABULARY), VOCABULARY)
    first = FIRST_TEXT_ID if most > FIRST_TEXT_ID else 0
    yield torch.randint(first, most, (BATCH, LENGTH))
    length = _field(config, "seq_length", "max_position_embeddings", default=LENGTH)
    if isinstance(length, int) and length <= 512:
        yield torch.randint(first, most, (BATCH, length))
    yield torch.randint(first, most, (BATCH, 1, LENGTH))


def _image_ids(config: Any, model: Any) -> Iterator[Tensor]:
    """Words around as many image tokens as the model makes of a picture."""
    token = getattr(config, "image_token_id", None)
    token = getattr(config, "image_token_index", None) if token is None else token
    for pixels in _pixels(config, model):
        if token is None or not hasattr(model, "get_image_features"):
            return
        try:
            with torch.no_grad():
                found = model.get_image_features(pixel_values=pixels)
        except Exception:  # the tower takes other pictures
            continue
        found = getattr(found, "pooler_output", found)
        found = torch.cat(list(found)) if isinstance(found, (tuple, list)) else found
        count = found.shape[:-1].numel() // BATCH
        ids = torch.randint(FIRST_TEXT_ID, VOCABULARY, (BATCH, LENGTH + count))
        ids[:, 3 : 3 + count] = token
        yield ids
        return


def _pixels(config: Any, model: Any) -> Iterator[Tensor]:
    channels = _field(config, "num_channels", "in_channels", "in_chans", "image_channels", default=3)
    channels = channels if isinstance(channels, int) else 3
    size = _field(config, "image_size", "img_size", "pretrain_image_size", default=PICTURE)
    for one in (size, PICTURE, 224):
        height, width = tuple(one) if isinstance(one, (tuple, list)) and len(one) == 2 else (one, one)
        if isinstance(height, int) and isinstance(width, int) and height <= 256:
            yield torch.randn(BATCH, channels, height, width)
    frames = _field(config, "num_frames", default=2)
    edge = size if isinstance(size, int) and size <= 64 else 32
    yield torch.randn(1, min(frames, 8), channels, edge, edge)
    yield torch.randn(1, 2, channels, edge, edge)
    patch = _field(config, "patch_size", default=14)
    if isinstance(patch, int):
        yield torch.randn(BATCH, 16, channels * patch * patch)
        yield torch.randn(16, channels * patch * patch * _field(config, "temporal_patch_size", default=1))


def _features(config: Any, model: Any) -> Iterator[Tensor]:
    wide = _field(config, "num_mel_bins", "feature_size", "feature_projection_input_dim", "input_feat_per_channel", "input_dim", "input_size",
                  "n_mels", "num_mels", default=80)  # fmt: skip
    wide = wide if isinstance(wide, int) else 80
    longest = _field(config, "max_source_positions", "max_length", default=FRAMES // 2)
    for length in dict.fromkeys((2 * longest if isinstance(longest, int) else FRAMES, longest, FRAMES)):
        if isinstance(length, int) and length <= 512:
            yield torch.randn(BATCH, wide, length)
            yield torch.randn(BATCH, length, wide)


def _waves(config: Any, model: Any) -> Iterator[Tensor]:
    yield torch.randn(BATCH, SAMPLES)
    yield torch.randn(BATCH, 1, SAMPLES)
    yield from _features(config, model)


def _hidden(*fields: str, length: int = LENGTH) -> Callable[[Any, Any], Iterator[Tensor]]:
    def make(config: Any, model: Any) -> Iterator[Tensor]:
        wide = _field(config, *fields, "hidden_size", "d_model")
        if isinstance(wide, int):
            yield torch.randn(BATCH, length, wide)

    return make


def _once(value: Callable[[Any], Any]) -> Callable[[Any, Any], Iterator[Any]]:
    return lambda config, model: iter([value(config)])


def _series(config: Any) -> Tensor:
    length = _field(config, "context_length", "prediction_length", default=32)
    return torch.randn(BATCH, length, _field(config, "num_input_channels", default=1))


def _mask(config: Any, values: Inputs) -> Tensor | None:
    """The last tokens of the second text are padding."""
    ids = values.get("input_ids")
    if ids is None or ids.dim() != 2:
        return None
    mask = torch.ones_like(ids)
    mask[1:, -2:] = 0
    return mask


MAKERS: Mapping[str, Callable[[Any, Any], Iterator[Any]]] = {
    "input_ids": _ids,
    "decoder_input_ids": lambda config, model: iter([torch.randint(FIRST_TEXT_ID, VOCABULARY, (BATCH, 5))]),
    "pixel_values": _pixels,
    "pixel_values_videos": lambda config, model: iter(
        [torch.randn(1, n, 3, _edge(config), _edge(config)) for n in (_field(config, "num_frames", "frames_per_clip", default=4), 2)]
    ),
    "input_features": _features,
    "input_values": _waves,
    "audio_values": _waves,
    "bbox": _once(lambda config: torch.tensor([[[1, 2, 5, 7]] * LENGTH] * BATCH)),
    "inputs_embeds": _hidden(),
    "hidden_states": _hidden(),
    "encoder_hidden_states": _hidden("encoder_hidden_size", "cross_attention_hidden_size", length=5),
    "query_embeds": _hidden(length=4),
    "query": _hidden(length=4),
    "past_values": _once(_series),
    "spectrogram": _once(lambda config: torch.randn(BATCH, 16, _field(config, "model_in_dim", "num_mel_bins", default=80))),
    "attention_mask": _once(lambda config: torch.ones(BATCH, LENGTH, dtype=torch.int64)),
    "grid_thw": _once(lambda config: torch.tensor([[1, 4, 4]])),
    "image_grid_thw": _once(lambda config: torch.tensor([[1, 4, 4]])),
    "past_time_features": _once(lambda config: torch.randn(BATCH, 32, 1)),
    "states": _once(lambda config: torch.randn(BATCH, 5, _field(config, "state_dim", default=17))),
    "actions": _once(lambda config: torch.randn(BATCH, 5, _field(config, "act_dim", default=4))),
    "rewards": _once(lambda config: torch.randn(BATCH, 5, 1)),
    "returns_to_go": _once(lambda config: torch.randn(BATCH, 5, 1)),
    "timesteps": _once(lambda config: torch.arange(5).repeat(BATCH, 1)),
    "time_series": _once(lambda config: torch.randn(BATCH, 32)),
    "image_ids": _image_ids,
}  # fmt: skip
EXTRAS: Mapping[str, Callable[[Any, Inputs], Any]] = {"attention_mask": _mask}


def _edge(config: Any) -> int:
    size = _field(config, "image_size", "crop_size", default=32)
    return size if isinstance(size, int) and size <= 64 else 32


# What is tried in this order, where `forward` has all of the names.
MODALITIES: Mapping[str, Sequence[str]] = {
    "image, text": ("pixel_values", "input_ids"),
    "layout": ("input_ids", "bbox"),
    "audio, text": ("input_features", "input_ids"),
    "image, question, answer": ("pixel_values", "input_ids", "decoder_input_ids"),
    "text, text": ("input_ids", "decoder_input_ids"),
    "image, decoder": ("pixel_values", "decoder_input_ids"),
    "audio, decoder": ("input_features", "decoder_input_ids"),
    "wave, decoder": ("input_values", "decoder_input_ids"),
    "text": ("input_ids",),
    "image": ("pixel_values",),
    "video": ("pixel_values_videos",),
    "audio": ("input_features",),
    "wave": ("input_values",),
    "audio values": ("audio_values",),
    "embeddings": ("inputs_embeds",),
    "hidden, other hidden": ("hidden_states", "encoder_hidden_states"),
    "hidden": ("hidden_states",),
    "queries": ("query_embeds", "encoder_hidden_states"),
    "time series": ("past_values",),
    "spectrogram": ("spectrogram",),
    "states": ("states", "actions", "rewards", "returns_to_go", "timesteps"),
}
