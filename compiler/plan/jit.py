"""The optional compiler of the search: numba if it is installed, otherwise plain Python runs the same source.

`compiled` marks a function of the search, `vector` and `argsort` are the only two things that differ between the modes.
"""

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

numba: Any = importlib.import_module("numba") if importlib.util.find_spec("numba") else None

COMPILED = numba is not None
Vector = Any  # a list of int, or an int64 array when compiled

if numba is not None:

    def compiled(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        decorate: Callable[[Callable[..., Any]], Callable[..., Any]] = numba.njit(
            signature.replace("V", "int64[::1]"), cache=True
        )
        return decorate

    @compiled("V(int64)")
    def vector(length: int) -> Vector:
        return np.zeros(length, np.int64)

    @compiled("V(V, int64)")
    def argsort(keys: Vector, length: int) -> Vector:
        return np.argsort(keys[:length])

    def frozen(values: Sequence[int]) -> Vector:
        return np.array(values, np.int64)

else:

    def compiled(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return lambda function: function

    def vector(length: int) -> Vector:
        return [0] * length

    def argsort(keys: Vector, length: int) -> Vector:
        return sorted(range(length), key=keys.__getitem__)

    def frozen(values: Sequence[int]) -> Vector:
        return list(values)
