"""What docs/numerics.md lets the reference use of PyTorch, tried on this very machine: each operation against numpy, as
bits, on words that hold every kind of number.

    Rule("add", lambda a, b: a + b, lambda x, y: x + y)      both of the same random words; every NaN is one NaN
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from runtime.doctor.document import Tried

COUNT: Final = 4099  # elements: a prime, so that vectors of every width have a tail
SPECIAL: Final = (
    0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000,
    0xFF800000, 0x7FC00000, 0x7F800001, 0x3F808000, 0x3F818000, 0x3F000000, 0xBF000000, 0x40200000, 0x4B7FFFFF,
)  # fmt: skip
Array = np.ndarray[Any, Any]
Results = Iterator[tuple[Tensor, Array]]
Made = Callable[[], Results]


@dataclass(frozen=True)
class Rule:
    """`results`: pairs of what PyTorch computes and what it must be."""

    name: str
    results: Made

    def tried(self) -> Tried:
        """Whether all of it has the same bits here. An operation that PyTorch refuses has not."""
        elements = differing = 0
        try:
            with torch.no_grad(), np.errstate(all="ignore"):
                for ours, theirs in self.results():
                    elements += theirs.size
                    differing += _differing(ours, theirs)
        except Exception as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            return Tried(self.name, False, elements, elements, first)
        return Tried(self.name, not differing, elements, differing)


def self_test() -> tuple[Tried, ...]:
    """Every rule, tried with as many threads as PyTorch has now."""
    return tuple(rule.tried() for rule in RULES)


def _differing(ours: Tensor, theirs: Array) -> int:
    """How many elements have other bits; a tensor of another shape or type has all."""
    wanted = torch.from_numpy(np.ascontiguousarray(theirs))
    if ours.shape != wanted.shape or ours.dtype != wanted.dtype:
        return max(theirs.size, 1)
    if not ours.dtype.is_floating_point:
        return int((ours != wanted).sum())
    words = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[ours.dtype.itemsize]
    same = (ours.contiguous().view(words) == wanted.view(words)) | (ours.isnan() & wanted.isnan())
    return int((~same).sum())


def _words(seed: int) -> Tensor:
    """float32 of random bits, with every special value at the front."""
    drawn = np.random.default_rng(seed).integers(0, 1 << 32, COUNT, dtype=np.uint32)
    drawn[: len(SPECIAL)] = np.roll(np.array(SPECIAL, np.uint32), seed)
    return torch.from_numpy(drawn.view(np.float32))


def _numbers(seed: int, scale: float = 100.0) -> Tensor:
    """float32 of ordinary size."""
    return torch.from_numpy((np.random.default_rng(seed).standard_normal(COUNT) * scale).astype(np.float32))


def _laid_out(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """As they are, with gaps between the elements, and one element fewer."""
    yield tensors
    yield tuple(tensor[::3] for tensor in tensors)
    yield tuple(tensor[1:-2].contiguous() for tensor in tensors)


def _binary(ours: Callable[[Tensor, Tensor], Tensor], theirs: Callable[[Array, Array], Array]) -> Made:
    return lambda: ((ours(a, b), theirs(a.numpy(), b.numpy())) for a, b in _laid_out(_words(1), _words(2)))


def _unary(ours: Callable[[Tensor], Tensor], theirs: Callable[[Array], Array], make: Any = _words) -> Made:
    return lambda: ((ours(a), theirs(a.numpy())) for (a,) in _laid_out(make(3)))


def _root(x: Array) -> Array:
    return np.sqrt(x.astype(np.float64)).astype(np.float32)


def _clamp(x: Array) -> Array:
    y = np.where(x < np.float32(-2.5), np.float32(-2.5), x)
    return np.where(y > np.float32(3.5), np.float32(3.5), y).astype(np.float32)


def _bfloat16(x: Array) -> Array:
    """Rounded half to even by hand, widened again; NaN stays NaN."""
    word = x.view(np.uint32).astype(np.uint64)
    kept = ((word + 0x7FFF + (word >> 16 & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)
    return np.where(np.isnan(x), x, kept)


def _matrices(m: int, k: int, n: int) -> tuple[Array, Array]:
    """int8 at their extremes, so that sums reach as far as they can."""
    draw = np.random.default_rng(m * k * n)
    a, b = draw.integers(-128, 128, (m, k), dtype=np.int8), draw.integers(-128, 128, (k, n), dtype=np.int8)
    a[0], b[:, 0] = -128, -128
    return a, b


def _products(ours: Callable[[Tensor, Tensor], Tensor], kind: Any) -> Made:
    def results() -> Results:
        for m, k, n in ((1, 1, 1), (3, 7, 5), (17, 64, 33), (32, 1024, 64)):
            a, b = _matrices(m, k, n)
            exact = a.astype(np.int64) @ b.astype(np.int64)
            yield ours(torch.from_numpy(a), torch.from_numpy(b)), exact.astype(kind)

    return results


def _extremes() -> Results:
    for (a,) in _laid_out(_numbers(4)):
        rows = a[: a.numel() // 7 * 7].reshape(-1, 7)
        x = rows.numpy()
        yield rows.amax(1) + 0.0, x.max(1)
        yield rows.amin(1) + 0.0, x.min(1)
        yield rows.argmax(1), x.argmax(1)


def _bits_of_integers() -> Results:
    a, b = (_words(seed).view(torch.int32) for seed in (5, 6))
    for p, q in _laid_out(a, b):
        x, y = p.numpy(), q.numpy()
        yield from (((p + q), x + y), ((p & q), x & y), ((p | q), x | y), ((p << 3), x << 3), ((p >> 3), x >> 3))


def _casts() -> Results:
    for (a,) in _laid_out(_words(7)):
        yield a.to(torch.float16), a.numpy().astype(np.float16)
        yield a.view(torch.int32).to(torch.float32), a.numpy().view(np.int32).astype(np.float32)
    for (a,) in _laid_out(_numbers(8, 40.0).clamp(-128, 127)):
        yield a.to(torch.int8), a.numpy().astype(np.int8)
        yield a.to(torch.int32), a.numpy().astype(np.int32)


def _selects() -> Results:
    for a, b in _laid_out(_words(9), _words(10)):
        x, y = a.numpy(), b.numpy()
        yield from ((a < b, x < y), (a == b, x == y), (torch.isnan(a), np.isnan(x)))
        yield torch.where(a <= b, a, b), np.where(x <= y, x, y)


def _rounded_once() -> Results:
    """bfloat16 arithmetic is float32 arithmetic, rounded."""
    for a, b in _laid_out(_words(11), _words(12)):
        p, q = a.bfloat16(), b.bfloat16()
        x, y = p.float().numpy(), q.float().numpy()
        yield (p + q).float(), _bfloat16(x + y)
        yield (p * q).float(), _bfloat16(x * y)


def _halvings() -> Results:
    """A tree of adds on slices."""
    a = _numbers(13)[: COUNT // 64 * 64].reshape(-1, 64)
    x = a.numpy()
    while a.shape[1] > 1:
        half = a.shape[1] // 2
        a, x = a[:, :half] + a[:, half:], x[:, :half] + x[:, half:]
        yield a, x


def _subnormals() -> Results:
    """Against words written here: a processor that flushes them does so under numpy, too."""
    least = torch.tensor([0x00800000, 0x00000001, 0x00000001], dtype=torch.int32).view(torch.float32)
    yield (
        least * torch.tensor([0.5, 1.0, 2.0]),
        np.array([0x00400000, 0x00000001, 0x00000002], np.uint32).view(np.float32),
    )


RULES: Final = (
    Rule("subnormals are kept", _subnormals),
    Rule("add", _binary(torch.add, np.add)),
    Rule("sub", _binary(torch.sub, np.subtract)),
    Rule("mul", _binary(torch.mul, np.multiply)),
    Rule("div, tensor by tensor", _binary(torch.div, np.divide)),
    Rule("reciprocal", _unary(torch.reciprocal, lambda x: np.float32(1) / x)),
    Rule("number / tensor is number * reciprocal", _unary(lambda a: 10.0 / a, lambda x: np.float32(1) / x * np.float32(10))),
    Rule("neg, abs", lambda: (pair for a in (_words(14),) for pair in ((-a, -a.numpy()), (a.abs(), np.abs(a.numpy()))))),
    Rule("multiply, then add: not fused", lambda: ((a * b + a, a.numpy() * b.numpy() + a.numpy()) for a, b in _laid_out(_words(15), _words(16)))),
    Rule("sqrt in float64, rounded once", _unary(lambda a: torch.sqrt(a.double()).float(), _root)),
    Rule("round, half to even", _unary(torch.round, np.rint)),
    Rule("floor", _unary(torch.floor, np.floor)),
    Rule("ceil", _unary(torch.ceil, np.ceil)),
    Rule("trunc", _unary(torch.trunc, np.trunc)),
    Rule("clamp", _unary(lambda a: torch.clamp(a, -2.5, 3.5), _clamp)),
    Rule("where, comparisons, isnan", _selects),
    Rule("amax, amin, argmax", _extremes),
    Rule("casts of int, float32, float16, int8", _casts),
    Rule("cast to bfloat16", _unary(lambda a: a.bfloat16().float(), _bfloat16)),
    Rule("bfloat16 arithmetic, rounded once", _rounded_once),
    Rule("integer add, shift, and, or", _bits_of_integers),
    Rule("adds on slices, in their order", _halvings),
    Rule("integer matmul", _products(lambda a, b: a.int() @ b.int(), np.int32)),
    Rule("float32 matmul of int8, K <= 1024", _products(lambda a, b: a.float() @ b.float(), np.float32)),
    Rule("float64 matmul of int8", _products(lambda a, b: a.double() @ b.double(), np.float64)),
    Rule("torch._int_mm, of which torchao's linear is made", _products(torch._int_mm, np.int32)),
)  # fmt: skip
