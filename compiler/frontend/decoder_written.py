"""Attention that a model writes itself, caught as it runs: between the cache that it updates and the product with its
values, whatever is in between.

    k, v = cache.update(k, v, layer)              k and v are known from here on, and so is what is made of them
    s = q @ k.transpose(2, 3) / 8 + bias          the first operand is q; scores
    w = softmax(s, -1); out = w @ v               out is `attend(Call(q, k, v))` instead

What happens to the scores is measured, not read: where `probing`, q is exchanged for queries whose product with every
key is 0, 1 and 2, so that what comes to softmax is what the model adds, and says what it multiplies by.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from isa.errors import UnsupportedError

PROBES = (0.0, 1.0, 2.0)  # products of a query with every key, one sequence each


@dataclass(frozen=True)
class Call:
    """A call of attention: q [B, Hq, T, D] over k and v [B, H, T, D], or over what layer `source` sees of an encoder's
    result. `added` [Hq or 1, keys] is what the model adds to the scores of its last token, masks too, where that was
    asked for."""

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float = 1.0
    window: int = 0
    softcap: float = 0.0
    added: Tensor | None = None
    source: int | None = None


Attend = Callable[[Call], Tensor]  # gives [B, Hq, T, width of v]


class _Role(Enum):
    KEYS = "keys"
    VALUES = "values"
    SCORES = "scores"
    WEIGHTS = "weights"


@dataclass(eq=False)
class _Layer:
    """One layer's attention, as far as it was seen."""

    k: Tensor
    v: Tensor
    q: Tensor | None = None
    scores: Tensor | None = None  # as softmax gets them


@dataclass(frozen=True)
class _Held:
    """What a tensor is. It is kept, so that no other takes its place in memory."""

    tensor: Tensor
    role: _Role
    layer: _Layer


_VIEWS = frozenset(
    {
        "transpose", "permute", "swapaxes", "view", "view_as", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze",
        "expand", "expand_as", "repeat", "repeat_interleave", "contiguous", "clone", "detach", "to", "float", "half",
        "bfloat16", "type", "type_as", "__get__",
    }
)  # fmt: skip
_PRODUCTS = {"matmul": ("input", "other"), "__matmul__": ("self", "other"), "bmm": ("input", "mat2"),
             "baddbmm": ("batch1", "batch2")}  # fmt: skip
_SOFTMAX = frozenset({"softmax", "_softmax"})
_DROPOUT = frozenset({"dropout", "dropout_"})


class Watch(TorchFunctionMode):
    """While it is on, attention that is written out, and PyTorch's own function, become calls of `attend`. It is the
    model's cache, too: one that holds `past` tokens of each sequence."""

    is_compileable = False
    is_sliding: Sequence[bool] = ()
    is_linear: Sequence[bool] = ()
    is_dummy: Sequence[bool] = ()

    def __init__(self, attend: Attend, past: int = 0, probing: bool = False) -> None:
        super().__init__()
        self._attend, self._past, self._probing = attend, past, probing
        self._held: dict[int, _Held] = {}
        self._open: list[_Layer] = []  # updated, and not attended to yet

    # ---- the cache, as models of transformers use it

    def update(
        self, k: Tensor, v: Tensor, _layer: int = 0, *_args: object, **_options: object
    ) -> tuple[Tensor, Tensor]:
        """Keys and values that the layer goes on with: stand-ins for k and v."""
        layer = _Layer(k, v)
        self._open.append(layer)
        return self._hold(self._given(k), _Role.KEYS, layer), self._hold(self._given(v), _Role.VALUES, layer)

    def _given(self, x: Tensor) -> Tensor:
        """What stands for new keys or values: themselves, or as many ones as there would be with those of the past."""
        if not self._probing:
            return x.view_as(x)
        return x.new_ones((*x.shape[:-2], self._past + x.shape[-2], x.shape[-1]))

    def taken(self, keys: Tensor) -> tuple[Tensor, Tensor] | None:
        """The new keys and values that these keys stand for; they are attended to now."""
        held = self._held.get(id(keys))
        if held is None:
            return None
        self._open.remove(held.layer)
        return held.layer.k, held.layer.v

    def get_seq_length(self, _layer: int = 0) -> int:
        return self._past

    def get_query_offset(self, _layer: int = 0) -> int:
        return self._past

    def get_mask_sizes(self, query_length: int, _layer: int = 0) -> tuple[int, int]:
        return self._past + query_length, 0

    def finished(self) -> None:
        """Raise UnsupportedError if a layer has updated the cache and nothing came of it."""
        if self._open:
            raise UnsupportedError("keys and values go into a cache, but no attention over them is found")

    # ---- what the model computes

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return self._direct(**inspect.signature(_sdpa).bind(*args, **kwargs).arguments)
        held = [h for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and (h := self._held.get(id(x)))]
        if not held:
            return func(*args, **kwargs)
        name, roles = func.__name__, {h.role for h in held}
        if name in _PRODUCTS:
            return self._product(func, name, list(args), dict(kwargs))
        result = func(*args, **kwargs)
        if not isinstance(result, Tensor):
            return result
        (role, *others), layer = roles, held[0].layer
        if role is _Role.SCORES and not others:
            if name not in _SOFTMAX:
                return self._hold(result, role, layer)
            layer.scores = next(h.tensor for h in held)
            return self._hold(result, _Role.WEIGHTS, layer)
        if others or name not in (_VIEWS | _DROPOUT if role is _Role.WEIGHTS else _VIEWS):
            what = " and ".join(sorted(r.value for r in roles))
            raise UnsupportedError(f"attention in which {what} go through '{name}'")
        return self._hold(result, role, layer)

    def _hold(self, tensor: Tensor, role: _Role, layer: _Layer) -> Tensor:
        self._held[id(tensor)] = _Held(tensor, role, layer)
        return tensor

    def _product(self, func: Any, name: str, args: list[Any], kwargs: dict[str, Any]) -> Tensor:
        places: list[tuple[list[Any] | dict[str, Any], Any]] = []
        for number, operand in enumerate(_PRODUCTS[name], 1 if name == "baddbmm" else 0):
            places.append((kwargs, operand) if operand in kwargs else (args, number))
        (first, at), (second, to) = places
        left, right = (self._held.get(id(x)) for x in (first[at], second[to]))
        if right is not None and right.role is _Role.KEYS and left is None:
            layer = right.layer
            layer.q = first[at]
            if self._probing:
                first[at] = _probes(first[at], len(layer.k))
            return self._hold(func(*args, **kwargs), _Role.SCORES, layer)
        if left is not None and right is not None and (left.role, right.role) == (_Role.WEIGHTS, _Role.VALUES):
            return self._finish(func(*args, **kwargs), left.layer)
        raise UnsupportedError("attention that is no product of queries with keys, and of their softmax with values")

    def _finish(self, result: Tensor, layer: _Layer) -> Tensor:
        assert layer.q is not None and layer.scores is not None
        self._open.remove(layer)
        batch = len(layer.k)
        q = layer.q.reshape(batch, -1, *layer.q.shape[-2:])
        call = Call(q, layer.k, layer.v)
        if self._probing:
            call = _measured(call, layer.scores.reshape(batch, -1, layer.scores.shape[-1]))
        return self._attend(call).reshape(result.shape).to(result.dtype)

    def _direct(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None = None, **_: object) -> Tensor:
        """A mask is the causal one, which `attend` has."""
        if any(id(x) in self._held for x in (key, value)):
            raise UnsupportedError("attention over keys and values that a cache gave, by PyTorch's own function")
        return self._attend(Call(query, key, value, query.shape[-1] ** -0.5 if scale is None else float(scale)))


def _sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> None:
    """The signature of PyTorch's function."""


def _probes(q: Tensor, batch: int) -> Tensor:
    """In place of queries [batch * n, D] or [batch, n, D]: their product with keys of ones is `PROBES`."""
    found = torch.zeros_like(q, memory_format=torch.contiguous_format)
    found.view(batch, -1, q.shape[-1])[..., 0] = torch.tensor(PROBES, dtype=q.dtype)[:, None]
    return found


def _measured(call: Call, scores: Tensor) -> Call:
    """The call with its scale and what is added, of what became of `PROBES` [3, Hq, keys]."""
    zero, one, two = scores.to(torch.float64)
    seen = zero > torch.finfo(call.k.dtype).min / 2
    if not seen.any():
        raise UnsupportedError("attention that sees no key")
    at = torch.where(seen, zero.abs(), float("inf")).argmin()
    scale = float((one - zero).flatten()[at])
    rounding = 4 * torch.finfo(scores.dtype).eps * (zero.abs() + two.abs())
    for found, times in ((one, 1), (two, 2)):
        if not bool(((found - zero - times * scale).abs() <= rounding)[seen].all()):
            raise UnsupportedError("attention whose scores are more than a multiple of the products and a bias")
    usual = call.k.shape[-1] ** -0.5
    if abs(scale / usual - 1.0) < 2 * torch.finfo(scores.dtype).eps:
        scale = usual
    return replace(call, scale=scale, added=torch.where(seen, zero, float("-inf")).to(torch.float32))
