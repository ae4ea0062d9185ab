"""Encoder-decoders: what cross attention sees of the source is computed once, by a program of its own.

    encode(input_ids [B, S], attention_mask [B, S]) -> of each layer keys and values, int8 with scales: the state of steps

transformers' cache of cross attention is where both sides meet: an encoding step takes from it what the layers put
there; a decoding step gives the layers stand-ins, by which calls of attention know which layer's state they see.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compiler.ops import library as ops
from isa.errors import UnsupportedError
from isa.image.steps import SOURCE

Pair = tuple[Tensor, Tensor]  # keys and values [B, H, S, …] of a layer


@dataclass
class _Kept:
    """A layer of transformers' cache."""

    keys: Tensor
    values: Tensor


@dataclass
class Sources:
    """transformers' cache of cross attention, which has `layers` already, or is given them."""

    layers: list[_Kept] = field(default_factory=list)

    @staticmethod
    def of(pairs: Sequence[Pair]) -> "Sources":
        return Sources([_Kept(*pair) for pair in pairs])

    def update(self, keys: Tensor, values: Tensor, *_args: object, **_options: object) -> Pair:
        self.layers.append(_Kept(keys, values))
        return keys, values

    def number(self, keys: Tensor) -> int | None:
        """The layer of these keys, if they are of one."""
        return next((number for number, kept in enumerate(self.layers) if kept.keys is keys), None)

    @property
    def pairs(self) -> list[Pair]:
        return [(kept.keys, kept.values) for kept in self.layers]


def has_encoder(model: nn.Module) -> bool:
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def options_of(model: Any, cache: object, sources: Sources, hidden: Tensor | None, ids: Tensor) -> dict[str, object]:
    """How a decoder is called behind its encoder, whose result is `hidden`, or has been seen by all layers."""
    from transformers import EncoderDecoderCache
    from transformers.modeling_outputs import BaseModelOutput

    both = EncoderDecoderCache.__new__(EncoderDecoderCache)  # whose constructor wants caches that hold tensors
    both.self_attention_cache, both.cross_attention_cache = cache, sources
    both.is_updated = dict.fromkeys(range(len(sources.layers)), True)
    return {
        "decoder_input_ids": ids,
        "encoder_outputs": BaseModelOutput(last_hidden_state=no_source(model, len(ids)) if hidden is None else hidden),
        "past_key_values": both,
    }


def no_source(model: Any, batch: int) -> Tensor:
    """An encoder's result of which nothing is known."""
    return torch.zeros(batch, 1, model.config.hidden_size, dtype=model.dtype)


class Encoding(nn.Module):
    """The encoder, and what the layers of the decoder make of its result."""

    def __init__(self, model: nn.Module, names: Sequence[str], seen: Callable[[Tensor], Sequence[Pair]]) -> None:
        super().__init__()
        self.model, self.names, self.seen = model, tuple(names), seen
        self.eval()

    def pairs(self, *inputs: Tensor) -> Sequence[Pair]:
        encoder: Any = self.model.get_encoder()  # type: ignore[operator]
        return self.seen(encoder(**dict(zip(self.names, inputs, strict=True))).last_hidden_state)

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for number, pair in enumerate(self.pairs(*(inputs[name] for name in self.names))):
            for part, value in zip(("keys", "values"), pair, strict=True):
                codes, scales = ops.quantize_rows(value)
                name = state_name(part, number)
                found |= {name: codes, f"{name}_scales": scales.to(torch.float32)}
        return found


def state_name(part: str, number: int) -> str:
    """The name of the codes that a layer sees, and without `_scales` of their scales."""
    return f"{SOURCE}{part}_{number}"


def source_inputs(model: nn.Module, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's inputs among the example's; a mask for tokens. Raises UnsupportedError for others."""
    inputs = {name: value for name, value in given.items() if not name.startswith("decoder_")}
    if set(inputs) not in ({"input_ids"}, {"input_ids", "attention_mask"}, {"input_features"}):
        raise UnsupportedError(f"an encoder of {', '.join(inputs) or 'nothing'}", type(model).__name__)
    if "input_ids" in inputs:
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return inputs
