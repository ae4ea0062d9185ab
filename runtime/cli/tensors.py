"""Tensors from .npy files, and results to them."""

import io
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from isa.errors import InputError
from isa.files import open_regular, write_atomic

Array = NDArray[Any]
_HEADERS: Mapping[tuple[int, int], Callable[[BinaryIO], tuple[tuple[int, ...], bool, np.dtype[Any]]]] = {
    (1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0,
}  # fmt: skip


def read_inputs(given: Mapping[str, str], names: tuple[str, ...] = ()) -> dict[str, Array]:
    """The arrays of `--input`. A bare FILE goes to the only input. Raises InputError for a file that cannot be read, or
    does not say which input it is."""
    arrays = {}
    for name, path in given.items():
        if not name and len(names) != 1:
            choice = f", NAME one of {', '.join(names)}" if names else ""
            raise InputError(f"'{path}' does not say which input it is", hint=f"write --input NAME=FILE.npy{choice}")
        arrays[name or names[0]] = _read(path)
    return arrays


def _read(path: str) -> Array:
    try:
        with open_regular(path) as file:
            loaded = read_array(file)
    except FileNotFoundError as error:
        raise InputError("the file does not exist", path, "write it with numpy.save") from error
    except OSError as error:
        raise InputError(
            f"cannot read the array: {error.strerror or error}", path, "write it with numpy.save"
        ) from error
    except Exception as error:  # numpy evaluates the header as a Python literal, and says whatever that raises
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"cannot read the array: {what}", path, "write it with numpy.save") from error
    if loaded.dtype == np.float64:
        raise InputError("the array is float64, which the chip does not have", path, "save array.astype(numpy.float32)")
    if loaded.dtype.kind not in "iub" and loaded.dtype not in (np.float32, np.float16):
        raise InputError(f"the array is {loaded.dtype}, which the chip does not have", path, "save integers or float32")
    return loaded


def read_array(file: BinaryIO) -> Array:
    """The array of a .npy file, in this machine's byte order. Nothing is allocated that the file does not hold;
    ValueError and others."""
    magic = file.read(2)
    if magic == b"PK":
        raise ValueError("this is an archive of several arrays; give one .npy file per input")
    file.seek(0)
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"format version {version[0]}.{version[1]}")
    shape, _, dtype = _HEADERS[version](file)
    if dtype.hasobject or dtype.names or dtype.itemsize == 0:
        raise ValueError(f"an array of {str(dtype)[:80]}")
    stated, held = math.prod(shape) * dtype.itemsize, os.fstat(file.fileno()).st_size - file.tell()
    if stated != held or min(shape, default=0) < 0:
        raise ValueError(f"its header says {stated} bytes, it has {held}")
    file.seek(0)
    array: Array = npy.read_array(file, allow_pickle=False)
    if array.dtype == np.bool_:
        return np.asarray(array.view(np.uint8) != 0)  # a bool of another byte than 0 and 1 is equal to neither
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def plan_outputs(given: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    """Which output goes to which file, checked before anything runs. Raises InputError for a name that is no
    output."""
    planned = {}
    for name, path in given.items():
        if not name and len(names) != 1:
            raise InputError(
                f"'{path}' does not say which output it is for",
                hint=f"write --output NAME=FILE.npy, NAME one of {', '.join(names)}",
            )
        if name and name not in names:
            raise InputError(f"there is no output '{name}'", hint=f"the outputs are {', '.join(names)}")
        planned[name or names[0]] = path
    return planned


def write_outputs(planned: Mapping[str, str], outputs: Mapping[str, Array]) -> None:
    """Write the files; each is complete or not there."""
    for name, path in planned.items():
        buffer = io.BytesIO()
        np.save(buffer, outputs[name], allow_pickle=False)
        write_atomic(path, [buffer.getvalue()])


def describe(array: Array) -> dict[str, Any]:
    """Shape, type and a glimpse of the values."""
    flat = array.reshape(-1)
    return {"shape": list(array.shape), "dtype": array.dtype.name, "first": flat[:4].tolist()}
