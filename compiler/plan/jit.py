"""The optional compiler of the search: numba if it is installed, otherwise plain Python runs the same source.

`compiled` marks a function of the search, `vector` and `argsort` are the only two things that differ between the modes.
Without a signature (named tuples have no name in one) a function is compiled when it is called first.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Protocol, TypeVar, overload

import numpy as np

numba: ModuleType | None = importlib.import_module("numba") if importlib.util.find_spec("numba") else None

COMPILED = numba is not None
Function = TypeVar("Function", bound=Callable[..., object])


class Vector(Protocol):
    """A list of int, or an int64 array when compiled."""

    @overload
    def __getitem__(self, place: int, /) -> int: ...

    @overload
    def __getitem__(self, place: slice, /) -> "Vector": ...

    def __setitem__(self, place: int, value: int, /) -> None: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[int]: ...


if numba is not None:
    njit = numba.njit

    def compiled(signature: str = "") -> Callable[[Function], Function]:
        given = (signature.replace("V", "int64[::1]"),) if signature else ()
        decorate: Callable[[Function], Function] = njit(*given, cache=True)
        return decorate

    @compiled("V(int64)")
    def vector(length: int) -> Vector:
        return np.zeros(length, np.int64)

    @compiled("V(V, int64)")
    def argsort(keys: Vector, length: int) -> Vector:
        return np.argsort(keys[:length])  # type: ignore[arg-type]  # compiled for arrays

    def frozen(values: Sequence[int]) -> Vector:
        return np.array(values, np.int64)

else:

    def compiled(signature: str = "") -> Callable[[Function], Function]:
        return lambda function: function

    def vector(length: int) -> Vector:
        return [0] * length

    def argsort(keys: Vector, length: int) -> Vector:
        return sorted(range(length), key=keys.__getitem__)

    def frozen(values: Sequence[int]) -> Vector:
        return list(values)
