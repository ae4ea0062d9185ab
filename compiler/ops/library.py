"""The chip's own operators as PyTorch custom operators, namespace `llmchip`: one record each.

The implementation of each is the reference of docs/numerics.md (`compiler.reference`), so a lowered graph run eagerly
by PyTorch *is* the result that the emulator must equal. The fake gives shapes and types.

`attention` is different: the float operation as the model wrote it, which only lives between the passes that recognise
and quantize it.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Unpack

import torch
from torch import Tensor
from torch._ops import OpOverload

from compiler.ops.record import Affine, ChipOp, Domain, Facts, Limit, Role
from compiler.reference import functions as reference
from compiler.reference import groups, windows

_LIBRARY = torch.library.Library("llmchip", "DEF")
Function = Callable[..., Tensor | tuple[Tensor, ...]]


def _dense(function: Function) -> Function:
    """The fakes promise dense results; PyTorch's own follow the strides of their operands."""

    @functools.wraps(function)
    def dense(*args: object, **kwargs: object) -> Tensor | tuple[Tensor, ...]:
        result = function(*args, **kwargs)
        return tuple(part.contiguous() for part in result) if isinstance(result, tuple) else result.contiguous()

    return dense


def _define(schema: str, implementation: Function, fake: Function) -> OpOverload:
    """Register an operator; returns its overload."""
    name = schema.partition("(")[0]
    _LIBRARY.define(schema)
    _LIBRARY.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"llmchip::{name}", fake, lib=_LIBRARY)
    overload = getattr(torch.ops.llmchip, name).default
    assert isinstance(overload, OpOverload)
    return overload


def define_operator(
    schema: str,
    meaning: Function,
    fake: Function,
    role: Role,
    limit: Limit = Limit.OWN,
    domain: Domain = Domain.ANY,
    **facts: Unpack[Facts],
) -> ChipOp:
    """An operator of the chip's own: registered with PyTorch, and its record. `meaning` is its reference, `fake` gives
    shape and type."""
    implementation = _dense(meaning)
    target = _define(schema, implementation, fake)
    name = schema.partition("(")[0]
    return ChipOp(name, (target,), role, domain, limit, implementation=implementation, **facts)


def _same(x: Tensor, *_args: object, **_options: object) -> Tensor:
    return x.new_empty(x.shape)


def _fake_quantize_rows(x: Tensor, *_: Tensor | None) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=torch.int8), x.new_empty(x.shape[:-1])


def _fake_quantize_groups(
    x: Tensor, group: int, norm: str, ties: str, scale: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    if x.shape[-1] % group:
        raise ValueError(f"groups of {group} do not fill rows of {x.shape[-1]}")
    scales = (*x.shape[:-1], x.shape[-1] // group)
    return x.new_empty(x.shape, dtype=torch.int8), x.new_empty(scales, dtype=scale)


def _fake_matmul_groups(a: Tensor, w: Tensor, *_: object, **_options: object) -> Tensor:
    return a.new_empty((*a.shape[:-1], w.shape[0]), dtype=torch.float32)


def _fake_matmul_i8(a: Tensor, b: Tensor, transpose_b: bool) -> Tensor:
    return a.new_empty((*a.shape[:-1], b.shape[-2 if transpose_b else -1]), dtype=torch.int32)


def _fake_matmul_float(a: Tensor, w: Tensor, transpose_b: bool) -> Tensor:
    batch = torch.broadcast_shapes(a.shape[:-2], w.shape[:-2])
    return a.new_empty((*batch, a.shape[-2], w.shape[-2 if transpose_b else -1]), dtype=torch.float32)


def _fake_matmul_chosen(a: Tensor, w: Tensor, chosen: Tensor) -> Tensor:
    return a.new_empty((a.shape[0], chosen.shape[1] * w.shape[1]), dtype=torch.int32)


def _fake_dequantize(
    c: Tensor, row: Tensor, col: Tensor | None = None, bias: Tensor | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    return c.new_empty(c.shape, dtype=dtype)


def _fake_softmax(x: Tensor, zero_masked_rows: bool) -> Tensor:
    return x.new_empty(x.shape, dtype=torch.float32)


def _fake_reduce(x: Tensor, kind: str, dim: int, keepdim: bool) -> Tensor:
    kept = [1] if keepdim else []
    shape = [*x.shape[:-1], *kept] if dim == -1 else [*x.shape[:-2], *kept, x.shape[-1]]
    return x.new_empty(shape)


def _fake_depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, *over: list[int]) -> Tensor:
    return x.new_empty((x.shape[0], *over[-1], x.shape[-1]), dtype=torch.float32)


def _fake_im2col(x: Tensor, taps: list[int], *over: list[int]) -> Tensor:
    return x.new_empty((x.shape[0], *over[-1], math.prod(taps) * x.shape[-1]))


def _fake_cached_attention(q: Tensor, *given: object, dtype: torch.dtype = torch.float32) -> Tensor:
    dtype = next((x for x in given if isinstance(x, torch.dtype)), dtype)  # PyTorch hands it over by place
    values = given[7]
    assert isinstance(values, Tensor)
    return q.new_empty((*q.shape[:-1], values.shape[-1]), dtype=dtype)


OPERATORS = (
    define_operator(
        "quantize_rows(Tensor x, Tensor? col=None, Tensor? absmax=None) -> (Tensor, Tensor)",
        reference.quantize_rows,
        _fake_quantize_rows,
        Role.ROWS,
        affine=Affine.AFTER,
    ),
    define_operator(
        "matmul_i8(Tensor a, Tensor b, bool transpose_b) -> Tensor", reference.matmul_i8, _fake_matmul_i8, Role.MATMUL
    ),
    define_operator(
        "dequantize(Tensor c, Tensor row, Tensor? col=None, Tensor? bias=None, ScalarType dtype=float) -> Tensor",
        reference.dequantize,
        _fake_dequantize,
        Role.DEQUANTIZE,
        affine=Affine.MADE | Affine.BEFORE,
    ),
    define_operator(
        "matmul_float(Tensor a, Tensor w, bool transpose_b) -> Tensor",
        reference.matmul_float,
        _fake_matmul_float,
        Role.MATMUL,
    ),
    define_operator(
        "matmul_chosen(Tensor a, Tensor w, Tensor chosen) -> Tensor",
        reference.matmul_chosen,
        _fake_matmul_chosen,
        Role.MATMUL,
    ),
    define_operator(
        "quantize_groups(Tensor x, int group, str norm, str ties, ScalarType scale=float) -> (Tensor, Tensor)",
        groups.quantize_groups,
        _fake_quantize_groups,
        Role.ROWS,
        affine=Affine.AFTER,
    ),
    define_operator(
        "matmul_groups(Tensor a, Tensor w, Tensor sa, Tensor sw, Tensor? zw=None, Tensor? ss=None, Tensor? sm=None, "
        "int group=32, int sub=0, str codes='i8', bool pre=False, bool half=False) -> Tensor",
        groups.matmul_groups,
        _fake_matmul_groups,
        Role.MATMUL,
    ),
    define_operator("softmax(Tensor x, bool zero_masked_rows) -> Tensor", reference.softmax, _fake_softmax, Role.ROWS),
    define_operator(
        "layer_norm(Tensor x, Tensor? weight=None, Tensor? bias=None, float eps=1e-5, bool center=True) -> Tensor",
        reference.layer_norm,
        _same,
        Role.ROWS,
        affine=Affine.MADE | Affine.BEFORE,
        in_place=True,
    ),
    define_operator(
        "activation(Tensor x, str kind) -> Tensor", reference.activation, _same, Role.ELEMENTWISE, affine=Affine.AFTER
    ),
    define_operator(
        "reduce(Tensor x, str kind, int dim, bool keepdim) -> Tensor", reference.reduce, _fake_reduce, Role.DOWN
    ),
    define_operator(
        "cached_attention(Tensor q, Tensor sq, Tensor? k, Tensor? sk, Tensor? v, Tensor? sv, Tensor(a!) keys, "
        "Tensor(b!) key_scales, Tensor(c!) values, Tensor(d!) value_scales, Tensor positions, Tensor? mask=None, "
        "Tensor? old_mask=None, Tensor? bias=None, bool by_distance=False, int window=0, float softcap=0.0, "
        "int block=0, ScalarType dtype=float) -> Tensor",
        reference.cached_attention,
        _fake_cached_attention,
        Role.ATTENTION,
    ),
    define_operator(
        "clamp(Tensor x, float? min=None, float? max=None) -> Tensor", reference.clamp, _same, Role.ELEMENTWISE
    ),
    define_operator(
        "depthwise(Tensor x, Tensor weight, Tensor? bias, int[] stride, int[] dilation, int[] padding, int[] places) "
        "-> Tensor",
        windows.depthwise,
        _fake_depthwise,
        Role.WINDOW,
        affine=Affine.MADE | Affine.BEFORE,
    ),
    define_operator(
        "im2col(Tensor x, int[] taps, int[] stride, int[] dilation, int[] padding, int[] places) -> Tensor",
        windows.im2col,
        _fake_im2col,
        Role.WINDOW,
        Limit.NOTHING,
    ),
)


def _float_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, zero_masked_rows: bool
) -> Tensor:
    """softmax(q @ k^T * scale + mask) @ v in float32, as the float model computes it."""
    scores = torch.matmul(q.to(torch.float32), k.to(torch.float32).transpose(-1, -2)) * scale
    if mask is not None:
        scores = scores + mask
    weights = torch.softmax(scores, -1)
    if zero_masked_rows:
        weights = torch.where(torch.amax(scores, -1, keepdim=True) == float("-inf"), 0.0, weights)
    return torch.matmul(weights, v.to(torch.float32)).to(q.dtype)


def _fake_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, zero_masked_rows: bool
) -> Tensor:
    batch = torch.broadcast_shapes(*(x.shape[:-2] for x in (q, k, v, mask) if x is not None))
    return q.new_empty((*batch, q.shape[-2], v.shape[-1]))


attention = _define(
    "attention(Tensor q, Tensor k, Tensor v, Tensor? mask, float scale, bool zero_masked_rows) -> Tensor",
    _dense(_float_attention), _fake_attention,
)  # fmt: skip


calibrated = _define(  # the input of a product, with what its quantization is to know: until products are quantized
    "calibrated(Tensor x, Tensor? col=None, Tensor? absmax=None) -> Tensor", _dense(reference.calibrated), _same
)


CACHES = "keys", "key_scales", "values", "value_scales"  # operands of attention over a cache, as schemas name them


def _attention_with_cache(q: Tensor, k: Tensor, v: Tensor, *given: Any) -> tuple[Tensor, ...]:
    """The same without changing a cache: its result, and what the caches would be."""
    caches = tuple(cache.clone() for cache in given[:4])
    return reference.attention_in_cache(q, k, v, *caches, *given[4:]), *caches


def _fake_attention_in_cache(q: Tensor, _k: Tensor, v: Tensor, *_given: Tensor | float | None) -> Tensor:
    return q.new_empty((*q.shape[:-1], v.shape[-1]))


def _fake_attention_with_cache(
    q: Tensor, k: Tensor, v: Tensor, *given: Tensor | float | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    keys, key_scales, values, value_scales = (x.new_empty(x.shape) for x in given[:4] if isinstance(x, Tensor))
    return _fake_attention_in_cache(q, k, v), keys, key_scales, values, value_scales


attention_with_cache = _define(
    "attention_with_cache(Tensor q, Tensor k, Tensor v, Tensor keys, Tensor key_scales, Tensor values, "
    "Tensor value_scales, Tensor positions, float scale, int window, float softcap, Tensor? bias=None, "
    "bool by_distance=False) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _attention_with_cache, _fake_attention_with_cache,
)  # fmt: skip


attention_in_cache = _define(
    "attention_in_cache(Tensor q, Tensor k, Tensor v, Tensor(a!) keys, Tensor(b!) key_scales, Tensor(c!) values, "
    "Tensor(d!) value_scales, Tensor positions, float scale, int window, float softcap, Tensor? bias=None, "
    "bool by_distance=False) -> Tensor",
    _dense(reference.attention_in_cache), _fake_attention_in_cache,
)  # fmt: skip


def _fake_attention_over_cache(q: Tensor, _k: Tensor, _sk: Tensor, values: Tensor, *_given: Tensor | float) -> Tensor:
    return q.new_empty((*q.shape[:-1], values.shape[-1]))


attention_over_cache = _define(
    "attention_over_cache(Tensor q, Tensor keys, Tensor key_scales, Tensor values, Tensor value_scales, Tensor last, "
    "float scale) -> Tensor",
    _dense(reference.attention_over_cache), _fake_attention_over_cache,
)  # fmt: skip


def _fake_quantize_weights(w: Tensor, group: int) -> tuple[Tensor, Tensor]:
    rows, k = w.shape
    return w.new_empty((rows, k // 2), dtype=torch.int8), w.new_empty((rows, k // group), dtype=torch.float16)


quantize_weights = _define(  # of constants alone: what the host does when it packs an image
    "quantize_weights(Tensor w, int group) -> (Tensor, Tensor)", _dense(groups.quantize_weights), _fake_quantize_weights
)


quarter_turns = _define(  # of constants, too
    "quarter_turns(Tensor exponents) -> Tensor", _dense(reference.quarter_turns),
    lambda exponents: exponents.new_empty((exponents.shape[0], 4), dtype=torch.float32),
)  # fmt: skip


def _overload(op: ChipOp) -> OpOverload:
    (target,) = op.targets
    assert isinstance(target, OpOverload)
    return target


(
    quantize_rows, matmul_i8, dequantize, matmul_float, matmul_chosen, quantize_groups, matmul_groups, softmax,
    layer_norm, activation, reduce, cached_attention, clamp, depthwise, im2col,
) = map(_overload, OPERATORS)  # fmt: skip
