"""The chip's operators as PyTorch custom operators, namespace `llmchip`: what a lowered graph consists of.

The real implementation of each is the reference of NUMERICS.md (`compiler.reference`), so a lowered graph run
eagerly by PyTorch *is* the result that the emulator must equal. The fake implementations give shapes and dtypes.

`attention` is different: the float operation as the model wrote it, which only lives between the passes
`recognise` and `quantize`.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from compiler.reference import functions as reference

SCHEMAS = (
    "quantize_rows(Tensor x, Tensor? col=None) -> (Tensor, Tensor)",
    "matmul_i8(Tensor a, Tensor b, bool transpose_b) -> Tensor",
    "dequantize(Tensor c, Tensor row, Tensor? col=None, Tensor? bias=None, ScalarType dtype=float) -> Tensor",
    "softmax(Tensor x, bool zero_masked_rows) -> Tensor",
    "layer_norm(Tensor x, Tensor? weight=None, Tensor? bias=None, float eps=1e-5) -> Tensor",
    "activation(Tensor x, str kind) -> Tensor",
    "reduce(Tensor x, str kind, int dim, bool keepdim) -> Tensor",
    "clamp(Tensor x, float? min=None, float? max=None) -> Tensor",
    "attention(Tensor q, Tensor k, Tensor v, Tensor? mask, float scale, bool zero_masked_rows) -> Tensor",
)

def _float_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, zero_masked_rows: bool) -> Tensor:
    """softmax(q @ k^T * scale + mask) @ v in float32, as the float model computes it."""
    scores = torch.matmul(q.to(torch.float32), k.to(torch.float32).transpose(-1, -2)) * scale
    if mask is not None:
        scores = scores + mask
    weights = torch.softmax(scores, -1)
    if zero_masked_rows:
        weights = torch.where(torch.amax(scores, -1, keepdim=True) == float("-inf"), 0.0, weights)
    return torch.matmul(weights, v.to(torch.float32)).to(q.dtype)


def _dense(function: Callable[..., Any]) -> Callable[..., Any]:
    """The fake implementations promise dense results; PyTorch's own follow the strides of their operands."""

    @functools.wraps(function)
    def dense(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        return tuple(part.contiguous() for part in result) if isinstance(result, tuple) else result.contiguous()

    return dense


_LIBRARY = torch.library.Library("llmchip", "DEF")  # type: ignore[no-untyped-call]
_REFERENCE: dict[str, Callable[..., Any]] = {
    "quantize_rows": reference.quantize_rows,
    "matmul_i8": reference.matmul_i8,
    "dequantize": reference.dequantize,
    "softmax": reference.softmax,
    "layer_norm": reference.layer_norm,
    "activation": reference.activation,
    "reduce": reference.reduce,
    "clamp": reference.clamp,
    "attention": _float_attention,
}

IMPLEMENTATIONS = {name: _dense(function) for name, function in _REFERENCE.items()}


def _fake_quantize_rows(x: Tensor, col: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=torch.int8), x.new_empty(x.shape[:-1])


def _fake_matmul_i8(a: Tensor, b: Tensor, transpose_b: bool) -> Tensor:
    return a.new_empty((*a.shape[:-1], b.shape[-2 if transpose_b else -1]), dtype=torch.int32)


def _fake_dequantize(
    c: Tensor, row: Tensor, col: Tensor | None = None, bias: Tensor | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    return c.new_empty(c.shape, dtype=dtype)


def _fake_softmax(x: Tensor, zero_masked_rows: bool) -> Tensor:
    return x.new_empty(x.shape, dtype=torch.float32)


def _fake_same(x: Tensor, *_args: object, **_options: object) -> Tensor:
    return x.new_empty(x.shape)


def _fake_reduce(x: Tensor, kind: str, dim: int, keepdim: bool) -> Tensor:
    kept = [1] if keepdim else []
    shape = [*x.shape[:-1], *kept] if dim == -1 else [*x.shape[:-2], *kept, x.shape[-1]]
    return x.new_empty(shape)


def _fake_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, zero_masked_rows: bool) -> Tensor:
    batch = torch.broadcast_shapes(*(x.shape[:-2] for x in (q, k, v, mask) if x is not None))  # type: ignore[no-untyped-call]
    return q.new_empty((*batch, q.shape[-2], v.shape[-1]))


_FAKES: dict[str, Callable[..., object]] = {
    "quantize_rows": _fake_quantize_rows,
    "matmul_i8": _fake_matmul_i8,
    "dequantize": _fake_dequantize,
    "softmax": _fake_softmax,
    "reduce": _fake_reduce,
    "attention": _fake_attention,
}

for _schema in SCHEMAS:
    _name = _schema.partition("(")[0]
    _LIBRARY.define(_schema)  # type: ignore[no-untyped-call]
    _LIBRARY.impl(_name, IMPLEMENTATIONS[_name], "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"llmchip::{_name}", _FAKES.get(_name, _fake_same), lib=_LIBRARY)

_ns = torch.ops.llmchip
quantize_rows = _ns.quantize_rows.default
matmul_i8 = _ns.matmul_i8.default
dequantize = _ns.dequantize.default
softmax = _ns.softmax.default
layer_norm = _ns.layer_norm.default
activation = _ns.activation.default
reduce = _ns.reduce.default
clamp = _ns.clamp.default
attention = _ns.attention.default
