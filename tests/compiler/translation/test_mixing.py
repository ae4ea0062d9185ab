"""Symbols are mixed to the same numbers whatever the layout of their arrays."""

import numpy as np
import pytest

from compiler.translation.mixing import Symbol, Symbols, joined, stirred

KEY = Symbol(0x9E3779B1)


def numbers(*shape: int) -> Symbols:
    return np.random.default_rng(sum(shape)).integers(0, 1 << 32, shape, Symbol, endpoint=False)


@pytest.mark.parametrize("shape", [(3, 40, 50), (6000,), (2, 3, 4)])
@pytest.mark.parametrize(
    "other",
    [
        lambda x: numbers(*x.shape),
        lambda x: numbers(*x.shape[:-1], 1),
        lambda x: numbers(x.shape[-1]),
        lambda x: numbers(x.shape[-1], 1) if x.ndim == 1 else numbers(x.shape[-2], 1),
        lambda x: numbers(1),
        lambda x: Symbol(7),
        lambda x: numbers(*x.shape[::-1]).T,
        lambda x: np.broadcast_to(numbers(x.shape[-1]), x.shape),
        lambda x: numbers(2, *x.shape),
    ],
)
def test_a_sum_is_stirred_as_numpy_does(shape: tuple[int, ...], other: object) -> None:
    """Breaks if one of the fast ways takes a row's number for a column's, or wraps elsewhere than at 2**32."""
    a, b = numbers(*shape), other(numbers(*shape))  # type: ignore[operator]
    if np.broadcast_shapes(a.shape, np.shape(b)) == (6000, 6000):
        a = a[:70]
        b = b[:70]
    total = a + b
    wanted = (total ^ (total >> Symbol(16))) * KEY
    for first, second in ((a, b), (b, a)):
        found = joined(np.asarray(first), second, KEY)
        assert found.dtype == Symbol and found.shape == wanted.shape and (found == wanted).all()
    assert (stirred(total.copy(), KEY) == wanted).all()
    turned = np.ascontiguousarray(total.T).T
    assert (stirred(turned, KEY) == wanted).all()
