"""Operators that are made of others in the same bits, written as PyTorch writes its decompositions: a function of
tensors for each, which `decompose` traces.

    before   %y = floor(%x)          after    %r = the integer next to x; %y = where(%r > %x, %r - 1, %r)
    before   %y = any(%x, 1)         after    %t = _to_copy(%x != 0, float32); %y = amax(%t, 1) != 0

Where a function gives NotImplemented, the operation stays for the passes behind, which may have a rule for it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from compiler.ops import library as ops

aten = torch.ops.aten
Answer = Any  # a tensor, a tuple of them, or NotImplemented
Composed = Callable[..., Answer]
WHOLE = float(1 << 23)  # float32 numbers from here on are integers
PAIRS = 1 << 24  # of places and numbers that a scatter compares


def single(function: Callable[..., Tensor]) -> Composed:
    """A function of float32 for floats of any type, rounded once; of integers it is a float's, as PyTorch has it."""

    @wraps(function)
    def widened(x: Tensor, *args: Any) -> Tensor:
        kind = x.dtype if x.is_floating_point() else torch.float32
        return function(x.to(torch.float32), *args).to(kind)

    return widened


def _of_floats(function: Callable[..., Tensor]) -> Composed:
    """One that leaves integers as they are."""

    @wraps(function)
    def rounded(x: Tensor) -> Answer:
        return single(function)(x) if x.is_floating_point() else x.clone()

    return rounded


# ---- rounding


def nearest(x: Tensor) -> Tensor:
    """Half to even: a smaller number plus 2**23 has no digits behind the point. A zero keeps its sign, and so has a
    result that is zero."""
    size = x.abs()
    whole = (size + WHOLE) - WHOLE
    whole = torch.where(x < 0, -whole, whole)
    return torch.where((size < WHOLE) & (x != 0), whole, x)


def _floor(x: Tensor) -> Tensor:
    whole = nearest(x)
    return torch.where(whole > x, whole - 1, whole)


def _ceil(x: Tensor) -> Tensor:
    return -_floor(-x)


def _trunc(x: Tensor) -> Tensor:
    whole = _floor(x.abs())
    return torch.where(x == 0, x, torch.where(x < 0, -whole, whole))


def _round_decimals(x: Tensor, *, decimals: int) -> Answer:
    """Of float32, each step rounded; what a half type's are PyTorch leaves to an element's place in memory."""
    if not x.is_floating_point() or (decimals and x.dtype is not torch.float32) or abs(decimals) > 38:
        return NotImplemented  # beyond, ten to that power is no float32
    ten = torch.full((), 10.0 ** abs(decimals), dtype=x.dtype)
    scaled = x * ten if decimals > 0 else x / ten
    whole = single(nearest)(scaled)
    return whole / ten if decimals > 0 else whole * ten


def _div_mode(x: Tensor, other: Any, *, rounding_mode: str | None) -> Answer:
    if rounding_mode is None:
        return torch.true_divide(x, other)
    kind = torch.result_type(x, other)
    if rounding_mode != "trunc" or not kind.is_floating_point:
        return NotImplemented
    if not isinstance(other, Tensor) or other.numel() == 1:  # PyTorch then rounds to a half type once, at the end
        divisor = other if isinstance(other, Tensor) else torch.full((), other, dtype=torch.float32)
        return torch.trunc(x.to(torch.float32) / divisor.to(torch.float32)).to(kind)
    return torch.trunc(torch.true_divide(x, other))


def _sign(x: Tensor) -> Tensor:
    """NaN has the sign 0."""
    if x.dtype is torch.bool:
        return x.clone()
    return torch.where(x > 0, 1, torch.where(x < 0, -1, 0)).to(x.dtype)


def _clamp(x: Tensor, min: Tensor | None = None, max: Tensor | None = None) -> Tensor:
    """The upper bound wins."""
    for bound, choose in ((min, torch.maximum), (max, torch.minimum)):
        x = x if bound is None else choose(x, bound)
    return x


def _added_product(product: Callable[[Tensor, Tensor], Tensor]) -> Composed:
    """beta * x + alpha * (a @ b); with beta 0 whatever x is."""

    def combined(x: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Answer:
        if alpha == beta == 1 or not x.is_floating_point():
            return NotImplemented
        y = product(a, b) * alpha
        return y + x * beta if beta else y

    return combined


# ---- along dimensions


def _all_dims(x: Tensor, dim: int | Sequence[int] | None) -> list[int]:
    given = [dim] if isinstance(dim, int) else list(dim or ())
    return sorted({d % max(x.ndim, 1) for d in given} or range(x.ndim))


def _one_row(x: Tensor, dims: Sequence[int]) -> Tensor:
    """Those dimensions as one, which is the last."""
    if not x.ndim:
        return x.reshape(1)
    kept = [d for d in range(x.ndim) if d not in dims]
    return x.permute(*kept, *dims).reshape(*(x.shape[d] for d in kept), prod(x.shape[d] for d in dims))


def _kept(y: Tensor, x: Tensor, dims: Sequence[int]) -> Tensor:
    """With the dimensions that were reduced, as ones."""
    return y.reshape([1 if d in dims else size for d, size in enumerate(x.shape)])


def _any(x: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    if isinstance(dim, (list, tuple)) and not dim:
        return x != 0
    dims = _all_dims(x, dim)
    rows = _one_row(x != 0, dims).to(torch.float32)
    found = rows.amax(-1) != 0 if rows.shape[-1] else torch.full(rows.shape[:-1], False)
    return _kept(found, x, dims) if keepdim else found


def folded(pair: Callable[[Tensor, Tensor], Tensor], x: Tensor, nothing: float) -> Tensor:
    """`pair` of all elements of each row: the first half with the second, again and again."""
    if not x.shape[-1]:
        return torch.full(x.shape[:-1], nothing, dtype=x.dtype)
    while (half := x.shape[-1] // 2) > 0:
        both = pair(x[..., :half], x[..., half : 2 * half])
        x = torch.cat([both, x[..., 2 * half :]], -1) if x.shape[-1] % 2 else both
    return x[..., 0]


def _extreme(pair: Callable[[Tensor, Tensor], Tensor]) -> Composed:
    """amax, amin of integers; the chip reduces floats."""

    def reduced(x: Tensor, dim: Sequence[int] = (), keepdim: bool = False) -> Answer:
        dims = _all_dims(x, dim)
        if x.is_floating_point() or not x.numel():
            return NotImplemented
        found = folded(pair, _one_row(x, dims), 0)
        return _kept(found, x, dims) if keepdim else found

    return reduced


def _extreme_with_place(reduce: Callable[..., Tensor], place: Callable[..., Tensor]) -> Composed:
    def both(x: Tensor, dim: int, keepdim: bool = False) -> Answer:
        if x.dtype is torch.bool:
            return NotImplemented
        return reduce(x, dim, keepdim), place(x, dim, keepdim)

    return both


def _argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Answer:
    """Of integers that float32 does not hold, in which the chip compares: where the largest is."""
    if x.is_floating_point():
        return NotImplemented
    highest = x.amax(_all_dims(x, dim), True)
    return torch.argmax((x == highest).to(torch.float32), dim, keepdim)


def _argmin(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Where the negated is largest; of integers that is the complement, which does not wrap."""
    return torch.argmax(-x if x.is_floating_point() else ~x, dim, keepdim)


def _prod(x: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    dims = _all_dims(x, dim)
    kind = dtype or (x.dtype if x.is_floating_point() else torch.int64)
    wide = torch.float32 if kind.is_floating_point else kind
    found = folded(torch.mul, _one_row(x.to(kind).to(wide), dims), 1).to(kind)
    return _kept(found, x, dims) if keepdim else found


def _spread(target: OpOverload) -> Composed:
    """var, std over several dimensions: over one."""

    def reduced(
        x: Tensor, dim: Sequence[int] | None = None, *, correction: float | None = None, keepdim: bool = False
    ) -> Answer:
        dims = _all_dims(x, dim)
        if len(dims) == 1 and dim:
            return NotImplemented
        found: Tensor = target(_one_row(x, dims), [-1], correction=correction)
        return _kept(found, x, dims) if keepdim else found

    return reduced


def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    dims = range(x.ndim - len(shape), x.ndim)
    rows = _one_row(x, dims)
    flat = (None if given is None else given.reshape(-1) for given in (weight, bias))
    found: Tensor = ops.layer_norm(rows, *flat, eps)
    mean, scale = (_kept(part, x, dims) for part in _statistics(rows, eps))
    return found.reshape(x.shape), mean, scale


def _group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, n: int, c: int, hxw: int, group: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    rows = x.reshape(n, group, c * hxw // group)
    found = ops.layer_norm(rows.to(torch.float32), None, None, eps).reshape(x.shape)
    for given, combine in ((weight, torch.mul), (bias, torch.add)):
        if given is not None:
            found = combine(found, given.to(torch.float32).reshape(c, *[1] * (x.ndim - 2)))
    return found.to(x.dtype), *_statistics(rows, eps)


def _statistics(rows: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and reciprocal deviation of each row."""
    wide = rows.to(torch.float32)
    scale = torch.rsqrt(wide.var(-1, correction=0) + eps)
    return wide.mean(-1).to(rows.dtype), scale.to(rows.dtype)


# ---- places


def _fill(x: Tensor, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(x.dtype).expand(x.shape).clone()
    return torch.full(x.shape, value, dtype=x.dtype)


def _full_like(x: Tensor, value: Any, *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    return torch.full(x.shape, value, dtype=dtype or x.dtype)


def _picked(x: Tensor, dim: int, places: Tensor) -> Tensor:
    """Elements along a dimension at known places, as rows of a table."""
    rest = [size for d, size in enumerate(x.shape) if d != dim]
    rows = torch.embedding(x.movedim(dim, 0).reshape(x.shape[dim], prod(rest)), places)
    return rows.reshape(len(places), *rest).movedim(0, dim)


def _slice_scatter(
    x: Tensor, source: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    dim, size = dim % x.ndim, x.shape[dim % x.ndim]
    first, last, _ = slice(start, end, step).indices(size)
    source = source.to(x.dtype).expand(*x.shape[:dim], source.shape[dim], *x.shape[dim + 1 :])
    if not source.numel():
        return x.clone()
    if step == 1:
        return torch.cat([x.narrow(dim, 0, first), source, x.narrow(dim, last, size - last)], dim)
    count = source.shape[dim]
    between = [torch.arange(first + i, first + i + count * step, step) for i in range(1, step)]
    middle = torch.stack([torch.arange(size, size + count), *between], 1).reshape(-1)[: last - first]
    places = torch.cat([torch.arange(first), middle, torch.arange(last, size)])
    return _picked(torch.cat([x, source], dim), dim, places)


def _select_scatter(x: Tensor, source: Tensor, dim: int, index: int) -> Tensor:
    index = index % x.shape[dim]
    return _slice_scatter(x, source.unsqueeze(dim), dim, index, index + 1)


def _inside(index: Tensor, count: int) -> Tensor:
    """The same numbers, looked up, so that one that is none of `count` traps."""
    return torch.embedding(torch.arange(count, dtype=torch.int32).unsqueeze(1), index).squeeze(-1)


def _hits(index: Tensor, count: int) -> Tensor:
    """[..., count, n]: whether the number n of `index` [..., n] is each place."""
    return _inside(index, count).unsqueeze(-2) == torch.arange(count, dtype=torch.int32).unsqueeze(-1)


def _written(x: Tensor, hits: Tensor, source: Tensor) -> Tensor:
    """Rows `x` [..., p] with the last of `source` [..., n] whose number is a place."""
    order = torch.arange(1, hits.shape[-1] + 1, dtype=torch.float32)
    ranks = torch.where(hits, order, 0.0)
    found = source.gather(-1, torch.argmax(ranks, -1))
    return torch.where(ranks.amax(-1) > 0, found, x)


def _combined(x: Tensor, hits: Tensor, source: Tensor, reduce: str, include: bool) -> Tensor:
    """Rows `x` [..., p] with all of `source` [..., n] whose number is a place, and with what was there if `include`."""
    each, found = source.unsqueeze(-2), hits.to(torch.float32).amax(-1) > 0
    wide = x.to(torch.float32)
    if reduce in ("sum", "mean"):
        y = torch.where(hits, each, 0.0).sum(-1, dtype=torch.float32)
        y = wide + y if include else y
        if reduce == "mean":
            count = hits.to(torch.float32).sum(-1)
            y = y / torch.where(found, count + 1 if include else count, 1.0)
    elif reduce == "prod":
        y = folded(torch.mul, torch.where(hits, each, 1.0).to(torch.float32), 1.0)
        y = wide * y if include else y
    else:
        high = reduce == "amax"
        rows = torch.where(hits, each, float("-inf") if high else float("inf"))
        y = (rows.amax(-1) if high else rows.amin(-1)).to(torch.float32)
        y = (torch.maximum if high else torch.minimum)(wide, y) if include else y
    return torch.where(found, y.to(x.dtype), x)


def _scattered(x: Tensor, dim: int, index: Tensor, source: Any, reduce: str | None, include: bool = True) -> Answer:
    """PyTorch's scatter and its kin: x[…, index[…, i], …] = source[…, i, …], as far as the index reaches."""
    if reduce and not x.is_floating_point():
        return NotImplemented
    if not x.ndim:
        return _scattered(x.reshape(1), 0, index.reshape(1), _flat(source), reduce, include).reshape(())
    index, source = index if index.ndim else index.reshape(1), _flat(source)
    if not index.numel():
        return x.clone()
    dim = dim % x.ndim
    own = [size if d == dim else index.shape[d] for d, size in enumerate(x.shape)]
    if prod(own) * index.shape[dim] > PAIRS:
        return NotImplemented
    rows, numbers = _corner(x, own).movedim(dim, -1), index.movedim(dim, -1)
    hits = _hits(numbers, x.shape[dim])
    given = _corner(source, index.shape).movedim(dim, -1) if isinstance(source, Tensor) else None
    if reduce:
        given = torch.full(numbers.shape, source, dtype=x.dtype) if given is None else given
        y = _combined(rows, hits, given, reduce, include)
    elif given is None:
        y = torch.where(hits.to(torch.float32).amax(-1) > 0, source, rows).to(x.dtype)
    else:
        y = _written(rows, hits, given)
    return _in_corner(x, y.movedim(-1, dim))


def _flat(source: Any) -> Any:
    return source.reshape(1) if isinstance(source, Tensor) and not source.ndim else source


def _corner(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """The first elements of every dimension."""
    for dim, size in enumerate(sizes):
        x = x.narrow(dim, 0, size)
    return x


def _in_corner(x: Tensor, y: Tensor) -> Tensor:
    """`x` with `y` in the place of its first elements of every dimension."""
    for dim, size in enumerate(x.shape):
        if y.shape[dim] < size:
            sizes = [size if d == dim else n for d, n in enumerate(y.shape)]
            rest = _corner(x, sizes).narrow(dim, y.shape[dim], size - y.shape[dim])
            y = torch.cat([y, rest], dim)
    return y.clone()


_REDUCE = {"add": "sum", "multiply": "prod"}


def _scatter(x: Tensor, dim: int, index: Tensor, source: Any, *, reduce: str | None = None) -> Answer:
    return _scattered(x, dim, index, source, reduce and _REDUCE[reduce])


def _scatter_add(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Answer:
    return _scattered(x, dim, index, source, "sum")


def _scatter_reduce(
    x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Answer:
    return _scattered(x, dim, index, source, reduce, include_self)


def _index_put(x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False) -> Answer:
    """x[i, j, …] = values along the first dimensions."""
    given = [index for index in indices if index is not None]
    if len(given) != len(indices) or not given:
        return NotImplemented
    if given[0].dtype is torch.bool:
        return _masked_put(x, given, values, accumulate)
    if any(index.dtype is torch.bool for index in given) or (accumulate and not x.is_floating_point()):
        return NotImplemented
    given = [index.to(torch.int32) for index in torch.broadcast_tensors(*given)]
    sizes, rest = x.shape[: len(given)], x.shape[len(given) :]
    count, width = prod(sizes), prod(rest)
    number = torch.zeros_like(given[0])
    for index, size in zip(given, sizes, strict=True):
        number = number * size + _inside(torch.where(index < 0, index + size, index), size)
    number = number.reshape(-1)
    if not x.numel() or not number.numel():
        return x.clone()
    if count * len(number) * width > PAIRS:
        return NotImplemented
    source = values.expand(*given[0].shape, *rest).reshape(len(number), width)
    hits, rows = _hits(number, count), x.reshape(count, width).t()
    if accumulate:
        return _combined(rows, hits, source.t(), "sum", True).t().reshape(x.shape)
    order = torch.arange(1, len(number) + 1, dtype=torch.float32)
    ranks = torch.where(hits, order, 0.0)
    found = torch.embedding(source, torch.argmax(ranks, -1))
    return torch.where((ranks.amax(-1) > 0).unsqueeze(-1), found, rows.t()).reshape(x.shape)


def _index_add(x: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Answer:
    return _put_along(x, dim, index, source if alpha == 1 else source * alpha, True)


def _index_copy(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Answer:
    return _put_along(x, dim, index, source, False)


def _put_along(x: Tensor, dim: int, index: Tensor, source: Tensor, accumulate: bool) -> Answer:
    """Slices of a dimension, whose numbers do not count from the end."""
    if not x.ndim or (accumulate and not x.is_floating_point()):
        return NotImplemented
    number = _inside(index.reshape(-1).to(torch.int32), x.shape[dim])
    return x.movedim(dim, 0).index_put((number,), source.movedim(dim, 0), accumulate).movedim(0, dim)


def _masked_put(x: Tensor, given: Sequence[Tensor], values: Tensor, accumulate: bool) -> Answer:
    """x[mask] = values, of which there is one for every place, or one for each truth."""
    (mask, *more) = given
    if more or (accumulate and not x.is_floating_point()):
        return NotImplemented
    rest = x.shape[mask.ndim :]
    mask = mask.reshape(*mask.shape, *[1] * len(rest)).expand(x.shape)
    shared = values.ndim <= len(rest) or values.shape[0] == 1
    if not shared:
        return NotImplemented
    values = values.reshape(values.shape[values.ndim - len(rest) :]) if values.ndim > len(rest) else values
    return torch.where(mask, x + values if accumulate else values, x)


def _masked_scatter(x: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """The truths of the mask take the source's elements in order."""
    shape = torch.broadcast_shapes(x.shape, mask.shape)
    x, truths = x.expand(shape), mask.expand(shape)
    if not x.numel() or not source.numel():
        return x.clone()
    number = torch.cumsum(truths.reshape(-1).to(torch.int32), 0, dtype=torch.int32) - 1
    place = torch.where(truths.reshape(-1), number, 0).to(torch.int64)
    return torch.where(truths, source.reshape(-1).gather(0, place).reshape(shape), x)


DECOMPOSITIONS: Mapping[OpOverload, Composed] = {
    aten.round.default: _of_floats(nearest),
    aten.round.decimals: _round_decimals,
    aten.floor.default: _of_floats(_floor),
    aten.ceil.default: _of_floats(_ceil),
    aten.trunc.default: _of_floats(_trunc),
    aten.div.Tensor_mode: _div_mode,
    aten.div.Scalar_mode: _div_mode,
    aten.isnan.default: lambda x: x != x,
    aten.sign.default: _sign,
    aten.clamp.Tensor: _clamp,
    aten.addmm.default: _added_product(torch.mm),
    aten.baddbmm.default: _added_product(torch.bmm),
    aten.any.default: _any,
    aten.any.dim: _any,
    aten.any.dims: _any,
    aten.amax.default: _extreme(torch.maximum),
    aten.amin.default: _extreme(torch.minimum),
    aten.max.default: lambda x: x.amax(),
    aten.min.default: lambda x: x.amin(),
    aten.max.dim: _extreme_with_place(torch.amax, torch.argmax),
    aten.min.dim: _extreme_with_place(torch.amin, torch.argmin),
    aten.argmax.default: _argmax,
    aten.argmin.default: _argmin,
    aten.prod.default: _prod,
    aten.prod.dim_int: _prod,
    aten.var.correction: _spread(aten.var.correction),
    aten.std.correction: _spread(aten.std.correction),
    aten.native_layer_norm.default: _layer_norm,
    aten.native_group_norm.default: _group_norm,
    aten.fill.Scalar: _fill,
    aten.fill.Tensor: _fill,
    aten.full_like.default: _full_like,
    aten.slice_scatter.default: _slice_scatter,
    aten.select_scatter.default: _select_scatter,
    aten.scatter.src: _scatter,
    aten.scatter.value: _scatter,
    aten.scatter.reduce: _scatter,
    aten.scatter.value_reduce: _scatter,
    aten.scatter_add.default: _scatter_add,
    aten.scatter_reduce.two: _scatter_reduce,
    aten.index_put.default: _index_put,
    aten.index_add.default: _index_add,
    aten.index_copy.default: _index_copy,
    aten.masked_scatter.default: _masked_scatter,
}
