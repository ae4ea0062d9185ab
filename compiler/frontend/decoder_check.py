"""Is a captured step the model? The captured graph is what all later checks compare with, so it is compared with the
model itself, once: a few tokens go through the step in two chunks, over caches of floats, and through the model at once.

Models may do with positions, masks and state what no table foresees: see further, count positions from elsewhere, keep
more than keys and values. Then the two differ by far more than rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from compiler.frontend.decoder_layers import Layer
from compiler.frontend.decoder_sources import Pair
from compiler.frontend.decoder_written import Call
from isa.errors import UnsupportedError

TOKENS, FIRST = 12, 7  # through the model, and in the first chunk
MOST = 0.15  # length of the difference of a token's logits against theirs; rounding leaves a thousandth of it


@dataclass
class FloatCaches:
    """Attention of these layers over caches of floats, by the formula of docs/numerics.md without its quantization."""

    layers: Sequence[Layer]
    sources: Sequence[Pair] = ()  # keys and values that layers see of an encoder's result
    kept: dict[int, Pair] = field(default_factory=dict)
    calls: int = 0

    def attend(self, call: Call) -> Tensor:
        """Over what was there and is new, of the next layer."""
        q, k, v = call.q, call.k, call.v
        number, self.calls = self.calls, self.calls + 1
        layer = self.layers[number]
        if layer.source is not None:
            kept = self.sources[layer.source]
        else:
            old = self.kept.get(number)
            kept = self.kept[number] = (k, v) if old is None else (torch.cat([old[0], k], 2), torch.cat([old[1], v], 2))
        group, new = q.shape[1] // kept[0].shape[1], q.shape[2]
        keys, values = (x.to(torch.float32).repeat_interleave(group, 1) for x in kept)
        scores = (q.to(torch.float32) @ keys.transpose(-1, -2)) * layer.scale
        if layer.softcap:
            scores = torch.tanh(scores / layer.softcap) * layer.softcap
        place = torch.arange(keys.shape[2])
        distance = torch.arange(len(place) - new, len(place))[:, None] - place
        if layer.bias is not None:
            last = layer.bias.shape[-1] - 1
            scores = (
                scores + layer.bias[:, last - distance.clamp(0) if layer.by_distance else place.expand_as(distance)]
            )
        seen = (distance >= 0) & (distance < (layer.window or place.numel())) | (layer.source is not None)
        return (torch.softmax(scores.masked_fill(~seen, float("-inf")), -1) @ values).to(q.dtype)


def sample(vocabulary: int, pad: int | None) -> Tensor:
    """Tokens [1, TOKENS] int64 without padding."""
    ids = torch.randint(0, vocabulary, (1, TOKENS), generator=torch.Generator().manual_seed(0))
    return ids if pad is None else torch.where(ids == pad, (pad + 1) % vocabulary, ids)


def check_same(step: Tensor, model: Tensor, name: str, most: float = MOST) -> None:
    """Raise UnsupportedError unless the logits [1, n, vocabulary] of both are alike, wherever the model's are finite."""
    step, model = step.to(torch.float32), model.to(torch.float32)
    usable = torch.isfinite(model).all(-1)
    apart = torch.linalg.vector_norm(step - model, dim=-1)[usable]
    bound = most * torch.linalg.vector_norm(model, dim=-1)[usable] + 1e-4  # logits that are all 0 have no length
    if not bool((apart <= bound).all()):
        alike = torch.nn.functional.cosine_similarity(step, model, dim=-1)[usable]
        raise UnsupportedError(
            f"over caches the model computes something else (cosine {float(alike.min()):.3f}): it treats positions, masks "
            "or state in a way of its own",
            name,
        )
