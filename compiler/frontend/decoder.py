"""Decoders: a causal language model of transformers, captured as one step over a cache that stays on the chip.

    step(input_ids [B, T], positions [B]) -> logits [B, T, vocabulary]

The caches (int8 keys and values with a scale for each token and head) are buffers that the step changes: state of the
chip. `positions` says how many tokens of each sequence they hold; the new ones are written behind them. transformers'
own extension points are used: an attention function in place of "sdpa", which sees the new keys and values only, and a
mask function that makes none, since attention over the cache needs none from outside.

Tables of rotary embeddings are functions of the position alone. They are computed once for every position that the
cache has, by the model's own module, and looked up on the chip.
"""

import inspect
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from compiler.frontend.capture import Captured, export, from_exported
from compiler.frontend.decoder_check import FIRST, FloatCaches, check_same, sample
from compiler.frontend.experts import experts
from compiler.graph.fx_copy import copied
from compiler.ops import library as ops
from isa.errors import CompileError, InputError, UnsupportedError
from isa.image.steps import POSITIONS, TOKENS

NAME = "llmchip"  # of the attention function, in transformers' tables


@dataclass(frozen=True, slots=True)
class CacheShape:
    """Of one layer: heads of keys and values, and their widths."""

    heads: int
    size: int
    value_size: int


@dataclass
class _Step:
    """What attention functions need while a step is traced: the caches of each layer, in the order of the calls; and
    the windows of the masks that the model asked for."""

    attend: Callable[..., Tensor]
    windows: set[int] = field(default_factory=set)


_current = threading.local()
_alone = threading.Lock()  # who captures changes the model's configuration and forwards for that time
Forward = Callable[..., tuple[Tensor, ...]]  # of x and positions
Key = tuple[object, ...]  # what a rotary embedding is given beside x and positions
Tables = dict[nn.Module, dict[Key, tuple[str, ...]]]  # the names of what stands for it


def capture_decoder(model: nn.Module, batch: int, tokens: int, capacity: int) -> Captured:
    """One step of a causal language model: `tokens` new tokens of each of `batch` sequences, over caches of `capacity`.

    Raises UnsupportedError for a model whose attention is not written in transformers' way, CompileError for one in
    train mode, InputError for a capacity beyond the positions that the model has.
    """
    if model.training:
        raise CompileError("the model is in train mode", type(model).__name__, "call model.eval() first")
    if "position_ids" not in inspect.signature(model.forward).parameters:
        raise UnsupportedError("the model does not take position_ids, which a step needs", type(model).__name__)
    if any(hasattr(module, "create_position_ids_from_input_ids") for module in model.modules()):
        raise UnsupportedError("positions that are counted from the padding token on", type(model).__name__)
    _check_positions(model, capacity)
    with _alone, torch.no_grad():
        with _attention(model), experts(model):
            shapes, tables, calls = _tabulate(model, capacity)
            step = DecoderStep(model, batch, tokens, capacity, shapes, tables)
            with _patched({module: _looked_up(step, known) for module, known in calls.items()}):
                captured = from_exported(export(step, (), step.example()))
                given = _in_chunks(model, capacity)
        if given is not None:
            check_same(given[1], _at_once(model, given[0]), type(model).__name__)
            _checked.setdefault(model, set()).add(capacity)
    _limit(captured, capacity - tokens)
    return captured


_checked: "weakref.WeakKeyDictionary[nn.Module, set[int]]" = weakref.WeakKeyDictionary()


def _in_chunks(model: nn.Module, capacity: int) -> tuple[Tensor, Tensor] | None:
    """A few tokens, and their logits when they come in two chunks; None where the model was checked before, or has no
    weights yet."""
    if capacity in _checked.get(model, ()) or any(p.is_meta for p in model.parameters()):
        return None
    config = model.config.get_text_config()  # type: ignore[operator, union-attr]
    ids = sample(config.vocab_size, getattr(config, "pad_token_id", None))[:, :capacity]
    caches, found = FloatCaches(), []
    for low, high in ((0, min(FIRST, ids.shape[1])), (FIRST, ids.shape[1])):
        if low < high:
            caches.calls = 0
            with _step(caches.attend):
                places = torch.arange(low, high, dtype=torch.int32)[None]
                found.append(model(input_ids=ids[:, low:high], position_ids=places, use_cache=False).logits)
    return ids, torch.cat(found, 1)


def _at_once(model: nn.Module, ids: Tensor) -> Tensor:
    """The model's own logits. Raises UnsupportedError where it gives none."""
    try:
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
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


def _limit(captured: Captured, most: int) -> None:
    """Let so many tokens be before the new ones at most."""
    (positions,) = (node for node in captured.gm.graph.find_nodes(op="placeholder") if node.name == POSITIONS)
    positions.meta["limits"] = (0, most)


def _check_positions(model: nn.Module, capacity: int) -> None:
    limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if isinstance(limit, int) and 0 < limit < capacity:
        raise InputError(
            f"a cache of {capacity} tokens; the model has {limit} positions",
            type(model).__name__,
            f"ask for at most {limit}",
        )


class DecoderStep(nn.Module):
    """A model with its caches as buffers."""

    def __init__(
        self,
        model: nn.Module,
        batch: int,
        tokens: int,
        capacity: int,
        shapes: list[CacheShape],
        tables: dict[str, Tensor],
    ) -> None:
        super().__init__()
        self.model, self.batch, self.tokens, self.layers = model, batch, tokens, len(shapes)
        for number, shape in enumerate(shapes):
            for name, size in (("keys", shape.size), ("values", shape.value_size)):
                codes = torch.zeros(batch, shape.heads, capacity, size, dtype=torch.int8)
                self.register_buffer(f"{name}_{number}", codes, persistent=False)
                scales = torch.zeros(batch, shape.heads, capacity)
                self.register_buffer(f"{name}_{number}_scales", scales, persistent=False)
        for table, value in tables.items():
            self.register_buffer(table, value, persistent=False)
        self.eval()

    def example(self) -> dict[str, Tensor]:
        return {
            TOKENS: torch.zeros(self.batch, self.tokens, dtype=torch.int32),
            POSITIONS: torch.zeros(self.batch, dtype=torch.int32),
        }

    def forward(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        calls = iter(range(self.layers))

        def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, window: int, softcap: float) -> Tensor:
            number = next(calls)
            caches = [getattr(self, f"{name}_{number}{part}") for name, part in _PARTS]
            if (k.shape[1], k.shape[-1], v.shape[-1]) != (caches[0].shape[1], caches[0].shape[-1], caches[2].shape[-1]):
                raise UnsupportedError("the heads of keys and values depend on the number of tokens")
            window = window if window < caches[0].shape[-2] else 0  # else it never leaves a key out
            out, *new = ops.attention_with_cache(q, k, v, *caches, positions, scale, window, softcap)
            for cache, value in zip(caches, new, strict=True):
                cache.copy_(value)
            result: Tensor = out
            return result

        place = positions.unsqueeze(-1)
        if self.tokens > 1:
            place = place + torch.arange(self.tokens, dtype=torch.int32)
        with _step(attend):
            result = self.model(input_ids=input_ids, position_ids=place, use_cache=False)
        logits = result["logits"] if isinstance(result, dict) else result.logits
        assert isinstance(logits, Tensor)
        return logits.float()  # what a step of an image gives, whatever the model's type


_PARTS = (("keys", ""), ("keys", "_scales"), ("values", ""), ("values", "_scales"))


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
    if _options.get("s_aux") is not None or _options.get("position_bias") is not None:
        raise UnsupportedError("attention with sinks or a position bias", type(module).__name__)
    if attention_mask is not None or _options.get("indices") is not None:  # transformers' own masks are `_no_mask`'s
        raise UnsupportedError("attention with a mask that the model makes itself", type(module).__name__)
    causal = _options.get("is_causal")
    if not (getattr(module, "is_causal", True) if causal is None else causal):
        raise UnsupportedError("attention that sees later tokens, which a decoder cannot", type(module).__name__)
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    out = step.attend(query, key, value, scale, int(sliding_window or 0), float(softcap or 0.0))
    return out.transpose(1, 2), None


class _Direct(TorchFunctionMode):
    """For models that call PyTorch's own attention function themselves. A mask is the causal one, which `attend` has."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        given = inspect.signature(_direct).bind(*args, **(kwargs or {})).arguments
        return _direct(**given)


def _direct(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`scaled_dot_product_attention` over the caches."""
    factor = query.shape[-1] ** -0.5 if scale is None else float(scale)
    result: Tensor = _current.step.attend(query, key, value, factor, 0, 0.0)
    return result


@contextmanager
def _step(attend: Callable[..., Tensor]) -> Iterator[_Step]:
    """While a model goes through a step: its attention is `attend`."""
    _current.step = step = _Step(attend)
    try:
        with _Direct():
            yield step
    finally:
        _current.step = None


def _no_mask(*_args: object, local_size: int | None = None, **_options: object) -> None:
    """transformers' mask function."""
    step = getattr(_current, "step", None)
    if step is not None and local_size is not None:
        step.windows.add(local_size)


@contextmanager
def _attention(model: nn.Module) -> Iterator[None]:
    """With our attention function in place of the model's own. A model of files that do not know transformers' table
    of such functions calls PyTorch's; a user's subclass knows what its base does."""
    from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

    files = {kind.__module__ for module in model.modules() for kind in type(module).__mro__}
    files.discard(PreTrainedModel.__module__)  # where the table itself is
    known = any(hasattr(sys.modules.get(file), "ALL_ATTENTION_FUNCTIONS") for file in files)
    if getattr(getattr(model, "config", None), "alibi", False):
        raise UnsupportedError("attention with linear biases (ALiBi)", type(model).__name__)
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _no_mask)
    configs = {id(c): c for m in model.modules() if (c := getattr(m, "config", None)) is not None}
    before = [(config, config._attn_implementation) for config in configs.values()]
    for config in configs.values():
        config._attn_implementation = NAME if known else "sdpa"
    try:
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation = implementation


def _cache_shapes(model: nn.Module, capacity: int) -> list[CacheShape]:
    """The caches that the layers need, in the order in which they call attention: one token goes through the model."""
    shapes: list[CacheShape] = []
    windows: set[int] = set()

    def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, window: int, softcap: float) -> Tensor:
        shapes.append(CacheShape(k.shape[1], k.shape[-1], v.shape[-1]))
        windows.add(window)
        return q.new_zeros((*q.shape[:-1], v.shape[-1]))

    try:
        zero = torch.zeros(1, 1, dtype=torch.int32)
        with _step(attend) as step:
            model(input_ids=zero, position_ids=zero, use_cache=False)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise UnsupportedError(
            f"the model cannot be called as a decoder: {str(error).splitlines()[0]}", type(model).__name__
        ) from error
    if not shapes:
        raise UnsupportedError(
            "no layer calls transformers' attention function, so there is no cache to keep",
            type(model).__name__,
        )
    if unsaid := {window for window in step.windows - windows if window < capacity}:
        raise UnsupportedError(
            f"a window or chunk of {min(unsaid)} tokens that is in the model's mask alone",
            type(model).__name__,
            "ask for caches of at most so many tokens",
        )
    return shapes


def _rotaries(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules whose forward takes x, of which only the type matters, and positions."""
    return [
        (name.replace(".", "_"), module)
        for name, module in model.named_modules()
        if list(inspect.signature(module.forward).parameters)[:2] == ["x", "position_ids"]
    ]


@contextmanager
def _patched(forwards: dict[nn.Module, Forward]) -> Iterator[None]:
    """With other functions as these modules' forward. One that was there in place of the class's comes back."""
    own = {module: vars(module)["forward"] for module in forwards if "forward" in vars(module)}
    for module, forward in forwards.items():
        module.forward = forward
    try:
        yield
    finally:
        for module in forwards:
            del module.forward
            if module in own:
                module.forward = own[module]


def _more(args: Key, options: Mapping[str, object]) -> Key:
    return *args, *sorted(options.items())


def _tabulate(model: nn.Module, capacity: int) -> tuple[list[CacheShape], dict[str, Tensor], Tables]:
    """One token goes through the model: the caches that its layers need, tables of all positions, and what looks them
    up."""
    places = torch.arange(capacity)[None]
    tables: dict[str, Tensor] = {}
    calls: Tables = {}

    def recorded(name: str, module: nn.Module, forward: Forward) -> Forward:
        def record(x: Tensor, position_ids: Tensor, *args: object, **options: object) -> tuple[Tensor, ...]:
            known = calls.setdefault(module, {})
            if (key := _more(args, options)) not in known:
                parts = forward(x, places, *args, **options)
                names = tuple(f"table_{name}_{len(known)}_{number}" for number in range(len(parts)))
                tables.update({n: part[0].contiguous() for n, part in zip(names, parts, strict=True)})
                known[key] = names
            return forward(x, position_ids, *args, **options)

        return record

    modules = _rotaries(model)
    with _patched({module: recorded(name, module, module.forward) for name, module in modules}):
        shapes = _cache_shapes(model, capacity)
    return shapes, tables, calls


def _looked_up(step: "DecoderStep", known: dict[Key, tuple[str, ...]]) -> Forward:
    """In place of a rotary embedding: rows of its tables."""

    def look(x: Tensor, position_ids: Tensor, *args: object, **options: object) -> tuple[Tensor, ...]:
        names = known[_more(args, options)]
        return tuple(functional.embedding(position_ids, getattr(step, name)) for name in names)

    return look
