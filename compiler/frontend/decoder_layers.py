"""What the attention of each layer is: one token goes through the model.

A model that writes its attention out is asked what it adds to the scores of a token behind so many others. That is a
window, if it hides all but the last keys; and a position bias: the same for a key whatever the query is, up to a number
for all keys (ALiBi; softmax does not see it), or the same for a distance. Two lengths tell.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from compiler.frontend.decoder_calls import logits_of, stepping, writes_attention
from compiler.frontend.decoder_sources import has_encoder, no_source
from compiler.frontend.decoder_written import PROBES, Call
from isa.errors import UnsupportedError


@dataclass(frozen=True, eq=False)
class Layer:
    """One call of attention: heads of keys and values, their widths, and what becomes of scores. `bias` [query heads,
    capacity] is added to them: of key j, or, `by_distance`, to a token in the last place."""

    heads: int
    size: int
    value_size: int
    scale: float
    window: int = 0
    softcap: float = 0.0
    bias: Tensor | None = None
    by_distance: bool = False
    source: int | None = None  # sees an encoder's result, as this one of the layers that do


def layers_of(model: nn.Module, capacity: int) -> list[Layer]:
    """The layers, in the order in which they call attention. Raises UnsupportedError for what a step cannot say."""
    name, written, behind = type(model).__name__, writes_attention(model), has_encoder(model)
    if written and behind:
        raise UnsupportedError("a decoder behind an encoder that writes its attention out", name)
    batch = len(PROBES) if written else 1
    calls, windows = _calls(model, capacity - 1 if written or behind else 0, batch)
    if not calls:
        raise UnsupportedError("no layer calls transformers' attention function, so there is no cache to keep", name)
    if unsaid := {w for w in windows - {call.window for call in calls} if w < capacity}:
        raise UnsupportedError(
            f"a window or chunk of {min(unsaid)} tokens that is in the model's mask alone",
            name,
            "ask for caches of at most so many tokens",
        )
    if not written and not behind:
        return [_layer(call) for call in calls]
    shorter, _ = _calls(model, capacity // 2, batch)
    return [_of_added(*pair, name) for pair in zip(calls, shorter, strict=True)]


def _calls(model: nn.Module, past: int, batch: int) -> tuple[list[Call], set[int]]:
    """The calls of attention of one token behind `past` others, and the windows of masks."""
    calls: list[Call] = []

    def attend(call: Call) -> Tensor:
        calls.append(call)
        return call.q.new_zeros((*call.q.shape[:-1], call.v.shape[-1]))

    try:
        hidden = no_source(model, batch) if has_encoder(model) else None
        with stepping(attend, past, probing=True, hidden=hidden) as step:
            ids = torch.zeros(batch, 1, dtype=torch.int32)
            logits_of(model, step, ids, torch.full((batch, 1), past, dtype=torch.int32))
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise UnsupportedError(
            f"the model cannot be called as a decoder: {str(error).splitlines()[0]}", type(model).__name__
        ) from error
    return calls, step.windows


def _layer(call: Call) -> Layer:
    heads, size, value_size = call.k.shape[1], call.k.shape[-1], call.v.shape[-1]
    return Layer(heads, size, value_size, call.scale, call.window, call.softcap, source=call.source)


def _of_added(call: Call, shorter: Call, name: str) -> Layer:
    """A layer by what it adds to the scores of a token behind the longest text, and behind a shorter one."""
    layer, long, short = _layer(call), call.added, shorter.added
    if long is None or short is None:
        return layer
    window, other = (_window(added, name) for added in (long, short))
    if other != (window if window < short.shape[-1] else 0):
        raise UnsupportedError("attention that hides other keys from longer texts", name)
    if not bool(long[torch.isfinite(long)].any()):
        return replace(layer, window=window)
    if window:
        raise UnsupportedError("attention with a window and a position bias", name)
    wide = long.expand(call.q.shape[1], -1)
    count, rounding = short.shape[-1], 8 * torch.finfo(call.q.dtype).eps * float(long.abs().max() + short.abs().max())
    if _apart(long[:, :count], short) <= rounding:
        return replace(layer, bias=_from_first(wide, rounding))
    if _apart(long[:, -count:], short) <= rounding:
        return replace(layer, bias=wide, by_distance=True)
    raise UnsupportedError("attention with a bias that depends on more than a distance", name)


def _window(added: Tensor, name: str) -> int:
    """How many of the last keys [heads, keys] are seen; 0 if all are."""
    seen = torch.isfinite(added)
    count = int(seen[0].sum())
    if not bool((seen == (torch.arange(seen.shape[1]) >= seen.shape[1] - count)).all()):
        raise UnsupportedError("attention that hides keys in between", name)
    return 0 if count == seen.shape[1] else count


def _apart(a: Tensor, b: Tensor) -> float:
    """How far two biases are apart, up to a number for each head."""
    difference = a - b
    return float((difference - difference[:, :1]).abs().max())


def _from_first(bias: Tensor, rounding: float) -> Tensor:
    """A bias of keys, 0 for the first: the same for every capacity. One that is 0 for the last key instead has been
    counted from there, and grows evenly."""
    backwards = -bias.flip(-1)
    if bool(bias[:, :1].any()) and not bool(bias[:, -1:].any()) and _apart(backwards, bias) <= rounding:
        return backwards
    return bias - bias[:, :1]
