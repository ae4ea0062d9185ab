"""How a model's attention becomes calls of a function of ours: by transformers' own extension points where the model
has them (an attention function in place of "sdpa", which sees new keys and values only, and a mask function that makes
no mask), and else as it is written (compiler/frontend/decoder_written.py).
"""

import inspect
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from compiler.frontend.decoder_sources import Sources, has_encoder, options_of
from compiler.frontend.decoder_written import Attend, Call, Watch
from isa.errors import UnsupportedError

NAME = "llmchip"  # of the attention function, in transformers' tables

_current = threading.local()


@dataclass
class Step:
    """While a model goes through a step: what its attention calls, the cache that it may be given, and the windows of
    the masks that it asked for."""

    attend: Attend
    cache: Watch
    sources: Sources
    hidden: Tensor | None = None  # an encoder's result, where the layers are to see it anew
    places: Tensor | None = None  # of the tokens
    windows: set[int] = field(default_factory=set)


@contextmanager
def stepping(
    attend: Attend, past: int = 0, probing: bool = False, sources: Sources | None = None, hidden: Tensor | None = None
) -> Iterator[Step]:
    """While it lasts, attention is `attend`, behind `past` tokens."""
    watch = Watch(attend, past, probing)
    _current.step = step = Step(attend, watch, sources or Sources(), hidden)
    try:
        with watch:
            yield step
        watch.finished()
    finally:
        _current.step = None


def logits_of(model: nn.Module, step: Step, ids: Tensor, places: Tensor) -> Tensor:
    """The model's logits of tokens at these positions, in a step."""
    step.places = places
    options: dict[str, object] = {"input_ids": ids}
    if has_encoder(model):
        options = options_of(model, step.cache, step.sources, step.hidden, ids)
    elif writes_attention(model):
        options["past_key_values"] = step.cache
    if "position_ids" in inspect.signature(model.forward).parameters:
        options["position_ids"] = places
    result = model(**options, use_cache=has_encoder(model))
    logits = result["logits"] if isinstance(result, dict) else result.logits
    assert isinstance(logits, Tensor)
    return logits


def current_places() -> Tensor:
    """The positions of the tokens that go through the model."""
    places = _current.step.places
    assert isinstance(places, Tensor)
    return places


def writes_attention(model: nn.Module) -> bool:
    """Whether no file of a model knows transformers' table of attention functions. A user's subclass knows what its
    base does."""
    from transformers import PreTrainedModel

    files = {kind.__module__ for module in model.modules() for kind in type(module).__mro__}
    files.discard(PreTrainedModel.__module__)  # where the table itself is
    return not any(hasattr(sys.modules.get(file), "ALL_ATTENTION_FUNCTIONS") for file in files)


@contextmanager
def ours(model: nn.Module) -> Iterator[None]:
    """With our attention function in place of the model's own; or with attention as the model writes it."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _no_mask)
    name = "eager" if writes_attention(model) else NAME
    configs = {id(c): c for m in model.modules() if (c := getattr(m, "config", None)) is not None}
    before = [(config, config._attn_implementation) for config in configs.values()]
    for config in configs.values():
        config._attn_implementation = name
    try:
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation = implementation


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **_options: object,
) -> tuple[Tensor, None]:
    """transformers' attention function: query [B, Hq, T, D], key and value [B, H, T, D]; the result is token-major."""
    step = getattr(_current, "step", None)
    if step is None:
        raise UnsupportedError("attention over a cache outside of a step")
    if _options.get("s_aux") is not None:
        raise UnsupportedError("attention with sinks", type(module).__name__)
    if attention_mask is not None or _options.get("indices") is not None:  # transformers' own masks are `_no_mask`'s
        raise UnsupportedError("attention with a mask that the model makes itself", type(module).__name__)
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    call = Call(query, key, value, scale, int(sliding_window or 0), float(softcap or 0.0))
    number, bias = step.sources.number(key), _options.get("position_bias")
    if number is not None:
        return step.attend(replace(call, source=number)).transpose(1, 2), None
    causal = _options.get("is_causal")
    if not (getattr(module, "is_causal", True) if causal is None else causal):
        raise UnsupportedError("attention that sees later tokens, which a decoder cannot", type(module).__name__)
    if (new := step.cache.taken(key)) is not None:
        added = bias[0, :, -1].to(torch.float32) if isinstance(bias, Tensor) else None
        call = replace(call, k=new[0], v=new[1], added=added)
    elif bias is not None:
        raise UnsupportedError("attention with a position bias", type(module).__name__)
    return step.attend(call).transpose(1, 2), None


def _no_mask(*_args: object, local_size: int | None = None, **_options: object) -> None:
    """transformers' mask function."""
    step = getattr(_current, "step", None)
    if step is not None and local_size is not None:
        step.windows.add(local_size)
