"""Mixing of 32-bit numbers, element by element and modulo 2**32: stirred(x, key) = (x ^ x >> 16) * key.

`joined` is the sum of two arrays, stirred. NumPy takes four passes over memory for it. Where numba is installed and the
layouts are the usual ones (rows of one array that lie behind each other; of the other the same, or one number for each
row, each column, or all) it is one.
"""

import importlib.util
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Symbol = np.uint32
Symbols = NDArray[np.uint32]
_HALF = Symbol(16)
_FEW = 1 << 10  # elements for which a call costs more than it gains
Function = TypeVar("Function", bound=Callable[..., object])

if importlib.util.find_spec("numba") is not None:
    import numba

    COMPILED = True

    def _compiled(signature: str) -> Callable[[Function], Function]:
        decorate: Callable[[Function], Function] = numba.njit(signature.replace("U", "uint32"), cache=True)
        return decorate

else:
    COMPILED = False

    def _compiled(signature: str) -> Callable[[Function], Function]:
        return lambda function: function


def stirred(x: Symbols, key: Symbol) -> Symbols:
    """In place: `x` is used up."""
    if COMPILED and x.size > _FEW and x.flags.c_contiguous:
        _stir(x.reshape(-1), key)
        return x
    x ^= x >> _HALF
    x *= key
    return x


def joined(a: Symbols, b: Symbols | Symbol, key: Symbol) -> Symbols:
    """A new array of the shape that both broadcast to."""
    large, small = np.asarray(a), np.asarray(b)
    if large.size < small.size:
        large, small = small, large
    usual = large.flags.c_contiguous and large.flags.writeable and small.flags.writeable and large.ndim >= small.ndim
    if not (COMPILED and large.size > _FEW and usual):
        return stirred(np.asarray(a + b), key)
    shape, columns = large.shape, large.shape[-1]
    small = small.reshape((1,) * (large.ndim - small.ndim) + small.shape)
    if small.size == 1:
        found = np.empty(shape, Symbol)
        _all(large.reshape(-1), small.reshape(-1)[0], key, found.reshape(-1))
    elif small.shape == shape and small.flags.c_contiguous:
        found = np.empty(shape, Symbol)
        _same(large.reshape(-1), small.reshape(-1), key, found.reshape(-1))
    elif small.shape == (*shape[:-1], 1):
        found = np.empty(shape, Symbol)
        _rows(large.reshape(-1, columns), np.ascontiguousarray(small).reshape(-1), key, found.reshape(-1, columns))
    elif small.size == columns == small.shape[-1]:
        found = np.empty(shape, Symbol)
        _columns(large.reshape(-1, columns), np.ascontiguousarray(small).reshape(-1), key, found.reshape(-1, columns))
    else:
        return stirred(np.asarray(a + b), key)
    return found


@_compiled("void(U[::1], U)")
def _stir(x: Any, key: Any) -> None:
    for i in range(len(x)):
        y = x[i]
        x[i] = np.uint32(y ^ (y >> np.uint32(16))) * key


@_compiled("void(U[::1], U, U, U[::1])")
def _all(a: Any, b: Any, key: Any, out: Any) -> None:
    for i in range(len(out)):
        x = np.uint32(a[i] + b)
        out[i] = np.uint32(x ^ (x >> np.uint32(16))) * key


@_compiled("void(U[::1], U[::1], U, U[::1])")
def _same(a: Any, b: Any, key: Any, out: Any) -> None:
    for i in range(len(out)):
        x = np.uint32(a[i] + b[i])
        out[i] = np.uint32(x ^ (x >> np.uint32(16))) * key


@_compiled("void(U[:, ::1], U[::1], U, U[:, ::1])")
def _rows(a: Any, b: Any, key: Any, out: Any) -> None:
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            x = np.uint32(a[i, j] + b[i])
            out[i, j] = np.uint32(x ^ (x >> np.uint32(16))) * key


@_compiled("void(U[:, ::1], U[::1], U, U[:, ::1])")
def _columns(a: Any, b: Any, key: Any, out: Any) -> None:
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            x = np.uint32(a[i, j] + b[j])
            out[i, j] = np.uint32(x ^ (x >> np.uint32(16))) * key
