"""User tensors as numpy arrays, and back: conversions between the user's types and the chip's, and bits to compare.

numpy has no bfloat16: such an array is its uint16 bit patterns. NaN has one value, whatever made it.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emulator.formats import STORAGE
from isa.architecture import Dtype
from isa.errors import InputError
from isa.image.records import TensorSpec

Array = NDArray[Any]

_BITS: Final[Mapping[Dtype, tuple[np.dtype[Any], int]]] = {
    Dtype.F32: (np.dtype(np.uint32), 0x7FC00000),
    Dtype.BF16: (np.dtype(np.uint16), 0x7FC0),
    Dtype.F16: (np.dtype(np.uint16), 0x7E00),
}


def host_dtype(dtype: str) -> np.dtype[Any]:
    """The numpy type that holds values of the user's type."""
    return np.dtype(np.uint16 if dtype == "bfloat16" else dtype)


def to_storage(spec: TensorSpec, value: Array) -> Array:
    """`value` as the chip stores it. Raises InputError naming the input when shape, type or range do not fit."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"input '{spec.name}' is no array: {error}", hint="pass a numpy array") from error
    if array.shape != spec.shape:
        raise InputError(
            f"input '{spec.name}' has shape {list(array.shape)}, the program was compiled for {list(spec.shape)}",
            hint="compile the model for this shape",
        )
    if array.dtype.name == "bfloat16" and spec.dtype == "bfloat16":  # the type of ml_dtypes
        array = array.view(np.uint16)
    target = STORAGE[spec.storage]
    host = host_dtype(spec.dtype)
    if array.dtype == host == target:
        return array
    if not _accepted(array.dtype, host, spec):
        raise InputError(
            f"input '{spec.name}' is {array.dtype.name}, the program takes {spec.dtype}",
            hint=f"convert it to {host.name}",
        )
    limits = np.iinfo(target)
    if array.size and (int(array.min()) < limits.min or int(array.max()) > limits.max):
        raise InputError(
            f"input '{spec.name}' holds a value outside {limits.min} to {limits.max}",
            hint="the chip keeps integers in 32 bits",
        )
    return array.astype(target)


def _accepted(given: np.dtype[Any], host: np.dtype[Any], spec: TensorSpec) -> bool:
    """Any integer type may stand for another, since the values are checked; floats must be what was compiled."""
    if host.kind == "b":
        return given.kind == "b"
    return not spec.storage.is_float and given.kind in "iub"


def to_user(spec: TensorSpec, stored: Array) -> Array:
    """A copy of `stored` in the user's type, NaN in its one form."""
    if spec.storage.is_float:
        return canonical(stored.copy(), spec.storage)
    return stored.astype(host_dtype(spec.dtype))


def canonical(array: Array, dtype: Dtype) -> Array:
    """The same array with every NaN replaced, in place, by the chip's one NaN."""
    if dtype.is_float:
        bits, nan = _BITS[dtype]
        found = _is_nan(array, dtype)
        if found.any():  # rarely, and much sooner seen than done
            array.view(bits)[found] = nan
    return array


def _is_nan(array: Array, dtype: Dtype) -> NDArray[np.bool_]:
    if dtype is Dtype.BF16:
        return (array & np.uint16(0x7FFF)) > np.uint16(0x7F80)
    return np.isnan(array)


def comparable(array: Array, dtype: Dtype) -> Array:
    """The bits of `array` as integers, NaN canonicalised: equal exactly when the values are the same bits."""
    if not dtype.is_float:
        return array
    return canonical(np.array(array, order="C"), dtype).view(_BITS[dtype][0])
