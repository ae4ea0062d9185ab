"""Decoders: a causal language model of transformers, captured as one step over a cache that stays on the chip.

    step(input_ids [B, T], positions [B]) -> logits [B, T, vocabulary]

The caches (int8 keys and values with a scale for each token and head) are buffers that the step changes: state of the
chip. `positions` says how many tokens of each sequence they hold; the new ones are written behind them. The model's
attention becomes calls of ours (compiler/frontend/decoder_calls.py), which see the new keys and values only.
"""

import mmap
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compiler.frontend.capture import Captured, export, from_exported
from compiler.frontend.decoder_calls import logits_of, ours, stepping
from compiler.frontend.decoder_check import FIRST, FloatCaches, check_same, sample
from compiler.frontend.decoder_layers import Layer, layers_of
from compiler.frontend.decoder_sources import Encoding, Pair, Sources, source_inputs, state_name
from compiler.frontend.decoder_tables import looked_up, patched, tabulated
from compiler.frontend.decoder_written import Call
from compiler.frontend.experts import experts
from compiler.frontend.leftovers import forgotten, give_back
from compiler.graph.fx_copy import copied
from compiler.ops import library as ops
from isa.errors import CompileError, InputError, UnsupportedError
from isa.image.steps import LAST, POSITIONS, TOKENS

_alone = threading.Lock()  # who captures changes the model's configuration and forwards for that time


@dataclass(frozen=True, eq=False)
class Source:
    """What an encoder is given, and what the layers of the decoder see of that: keys and values, as the model has
    them."""

    inputs: Mapping[str, Tensor]
    pairs: Sequence[Pair]

    @property
    def tokens(self) -> int:
        return self.pairs[0][0].shape[2]


def capture_source(model: nn.Module, given: Mapping[str, Tensor]) -> tuple[Source, Captured]:
    """The encoding step of an encoder-decoder for inputs like these. Raises UnsupportedError, CompileError."""
    _check(model)
    inputs = source_inputs(model, given)

    def seen(hidden: Tensor) -> Sequence[Pair]:
        sources = Sources()
        with ours(model), stepping(lambda call: torch.zeros_like(call.q), sources=sources, hidden=hidden) as step:
            ids = torch.zeros(len(hidden), 1, dtype=torch.int32)
            logits_of(model, step, ids, ids)
        return sources.pairs

    encoding = Encoding(model, list(inputs), seen)
    with _alone, torch.no_grad(), _uncompiled(model), forgotten():
        pairs = encoding.pairs(*inputs.values())
        return Source(inputs, pairs), from_exported(export(encoding, (), inputs))


def capture_decoder(model: nn.Module, batch: int, tokens: int, capacity: int, source: Source | None = None) -> Captured:
    """One step of a causal language model: `tokens` new tokens of each of `batch` sequences, over caches of `capacity`;
    behind an encoder, if there is a `source`.

    Raises UnsupportedError for a model whose attention is not written in transformers' way, CompileError for one in
    train mode, InputError for a capacity beyond the positions that the model has.
    """
    _check(model)
    _check_positions(model, capacity)
    with _alone, torch.no_grad(), _uncompiled(model):
        with ours(model), experts(model):
            layers, tables, names = tabulated(model, capacity, lambda: layers_of(model, capacity))
            step = DecoderStep(model, batch, tokens, capacity, layers, tables, 0 if source is None else source.tokens)
            with patched({module: looked_up(step, module, known) for module, known in names.items()}):
                with forgotten():
                    captured = from_exported(export(step, (), step.example()))
                given = _in_chunks(model, layers, capacity, source)
        if given is not None:
            check_same(given[1], _at_once(model, given[0], source), type(model).__name__)
            _checked.setdefault(model, set()).add(capacity)
    _limit(captured, capacity - tokens)
    if source is not None:
        _limit(captured, source.tokens - 1, LAST)
    give_back()
    return captured


@contextmanager
def _uncompiled(model: nn.Module) -> Iterator[None]:
    """Without what torch.compile has put in the place of a module's own call or `forward`: a capture is not its user."""
    taken: list[tuple[dict[str, Any], str, Any]] = []
    for module in model.modules():
        own = vars(module)
        if hasattr(own.get("forward"), "_torchdynamo_orig_callable"):
            taken.append((own, "forward", own.pop("forward")))
        if own.get("_compiled_call_impl") is not None:
            taken.append((own, "_compiled_call_impl", own["_compiled_call_impl"]))
            own["_compiled_call_impl"] = None
    try:
        yield
    finally:
        for own, name, value in taken:
            own[name] = value


def _check(model: nn.Module) -> None:
    if model.training:
        raise CompileError("the model is in train mode", type(model).__name__, "call model.eval() first")
    if any(hasattr(module, "create_position_ids_from_input_ids") for module in model.modules()):
        raise UnsupportedError("positions that are counted from the padding token on", type(model).__name__)


_checked: "weakref.WeakKeyDictionary[nn.Module, set[int]]" = weakref.WeakKeyDictionary()


def _in_chunks(
    model: nn.Module, layers: Sequence[Layer], capacity: int, source: Source | None
) -> tuple[Tensor, Tensor] | None:
    """A few tokens, and their logits when they come in two chunks; None where the model was checked before, or has no
    weights yet."""
    if capacity in _checked.get(model, ()) or any(p.is_meta for p in model.parameters()):
        return None
    config = model.config.get_text_config()  # type: ignore[operator, union-attr]
    ids = sample(config.vocab_size, getattr(config, "pad_token_id", None))[:, :capacity]
    pairs = [] if source is None else [(k[:1], v[:1]) for k, v in source.pairs]
    caches, found = FloatCaches(layers, pairs), []
    for low, high in ((0, min(FIRST, ids.shape[1])), (FIRST, ids.shape[1])):
        if low < high:
            caches.calls = 0
            found.append(_over(model, ids[:, low:high], low, caches))
    return ids, torch.cat(found, 1)


def _over(model: nn.Module, ids: Tensor, position: int, caches: FloatCaches) -> Tensor:
    """Logits of tokens from this position on, over float caches."""
    with stepping(caches.attend, sources=Sources.of(caches.sources)) as step:
        places = torch.arange(position, position + ids.shape[1], dtype=torch.int32)[None]
        return logits_of(model, step, ids, places)


def float_logits(model: nn.Module, ids: Tensor, position: int, kept: Sequence[Pair], capacity: int) -> Tensor:
    """Logits [1, T, vocabulary] of tokens [1, T] as a step over caches of this capacity means them, in floats: from this
    position on, over keys and values of each layer [1, H, n, D], which are those before it."""
    with _alone, torch.no_grad(), ours(model), experts(model):
        layers = layers_of(model, capacity)
        return _over(model, ids, position, FloatCaches(layers, (), dict(enumerate(kept))))


def _at_once(model: nn.Module, ids: Tensor, source: Source | None) -> Tensor:
    """The model's own logits. Raises UnsupportedError where it gives none."""
    given = {"input_ids": ids}
    if source is not None:
        given = {"decoder_input_ids": ids, **{name: value[:1] for name, value in source.inputs.items()}}
    try:
        logits: Tensor = model(**given, use_cache=False).logits
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnsupportedError(
            f"the model itself fails on {ids.shape[1]} tokens: {said}", type(model).__name__
        ) from error
    return logits


def within(captured: Captured, reach: int) -> Captured:
    """The same step for short sequences: at most `reach` tokens, the new ones too. Its program plans for so many, and
    not for all that the caches could hold."""
    twin = replace(captured, gm=copied(captured.gm, "Captured"))
    _limit(twin, reach - captured.inputs[0].shape[1])
    return twin


def _limit(captured: Captured, most: int, name: str = POSITIONS) -> None:
    """Let so many tokens be before the new ones at most; or let another input that steers be so much."""
    (positions,) = (node for node in captured.gm.graph.find_nodes(op="placeholder") if node.name == name)
    positions.meta["limits"] = (0, most)


def _check_positions(model: nn.Module, capacity: int) -> None:
    limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if isinstance(limit, int) and 0 < limit < capacity:
        raise InputError(
            f"a cache of {capacity} tokens; the model has {limit} positions",
            type(model).__name__,
            f"ask for at most {limit}",
        )
    given = getattr(getattr(model, "config", None), "rope_parameters", None) or {}
    for rope in (given, *given.values()):
        short = rope.get("original_max_position_embeddings", capacity) if isinstance(rope, dict) else capacity
        if isinstance(rope, dict) and rope.get("rope_type") == "longrope" and capacity > short:
            raise UnsupportedError(
                "longrope turns all keys anew when a text becomes longer than its original length",
                type(model).__name__,
                f"ask for at most {short} tokens",
            )


def _zeros(dtype: type[np.generic], *shape: int) -> Tensor:
    """Zeros that take no memory until they are written to, as those of PyTorch do: a step only tells what caches it
    has."""
    count = prod(shape)
    pages = mmap.mmap(-1, max(1, count * np.dtype(dtype).itemsize))
    return torch.from_numpy(np.frombuffer(pages, dtype, count).reshape(shape))


class DecoderStep(nn.Module):
    """A model with its caches as buffers."""

    def __init__(
        self,
        model: nn.Module,
        batch: int,
        tokens: int,
        capacity: int,
        layers: Sequence[Layer],
        tables: dict[str, Tensor],
        source: int = 0,
    ) -> None:
        super().__init__()
        self.source = source
        self.model, self.batch, self.tokens, self.layers = model, batch, tokens, tuple(layers)
        for number, layer in enumerate(layers):
            for part, size in (("keys", layer.size), ("values", layer.value_size)):
                rows, name = capacity, f"{part}_{number}"
                if layer.source is not None:
                    rows, name = source, state_name(part, layer.source)
                self.register_buffer(name, _zeros(np.int8, batch, layer.heads, rows, size), False)
                self.register_buffer(f"{name}_scales", _zeros(np.float32, batch, layer.heads, rows), False)
        for table, value in tables.items():
            self.register_buffer(table, value, persistent=False)
        biases: dict[bytes, Tensor] = {}  # layers with the same share it
        for number, layer in enumerate(layers):
            if layer.bias is not None:
                bias = biases.setdefault(layer.bias.numpy().tobytes(), layer.bias.contiguous())
                self.register_buffer(f"bias_{number}", bias, persistent=False)
        self.eval()

    def example(self) -> dict[str, Tensor]:
        given = {
            TOKENS: torch.zeros(self.batch, self.tokens, dtype=torch.int32),
            POSITIONS: torch.zeros(self.batch, dtype=torch.int32),
        }
        return {**given, LAST: torch.zeros(self.batch, dtype=torch.int32)} if self.source else given

    def forward(self, input_ids: Tensor, positions: Tensor, last_source: Tensor | None = None) -> Tensor:
        calls = iter(range(len(self.layers)))
        stand_ins: list[Pair] = []
        for layer in self.layers:
            if layer.source is not None:
                keys = torch.zeros(self.batch, layer.heads, 1, layer.size)
                stand_ins.append((keys, keys.new_zeros(*keys.shape[:-1], layer.value_size)))

        def attend(call: Call) -> Tensor:
            number = next(calls)
            layer = self.layers[number]
            if layer.source is not None:
                names = [f"{state_name(name, layer.source)}{part}" for name, part in _PARTS]
                kept = [getattr(self, name) for name in names]
                over: Tensor = ops.attention_over_cache(call.q, *kept, last_source, layer.scale)
                return over
            caches = [getattr(self, f"{name}_{number}{part}") for name, part in _PARTS]
            if (call.k.shape[1], call.k.shape[-1], call.v.shape[-1]) != (layer.heads, layer.size, layer.value_size):
                raise UnsupportedError("the heads of keys and values depend on the number of tokens")
            window = layer.window if layer.window < caches[0].shape[-2] else 0  # else it never leaves a key out
            rule = (layer.scale, window, layer.softcap)
            bias = () if layer.bias is None else (getattr(self, f"bias_{number}"), layer.by_distance)
            out, *new = ops.attention_with_cache(call.q, call.k, call.v, *caches, positions, *rule, *bias)
            for cache, value in zip(caches, new, strict=True):
                cache.copy_(value)
            result: Tensor = out
            return result

        place = positions.unsqueeze(-1)
        if self.tokens > 1:
            place = place + torch.arange(self.tokens, dtype=torch.int32)
        with stepping(attend, sources=Sources.of(stand_ins)) as step:
            return logits_of(self.model, step, input_ids, place).float()  # float32 whatever the model's type


_PARTS = (("keys", ""), ("keys", "_scales"), ("values", ""), ("values", "_scales"))
