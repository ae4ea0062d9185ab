"""Tensors from .npy files, and results to them."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isa.errors import InputError
from isa.files import write_atomic

Array = NDArray[Any]


def read_inputs(given: Mapping[str, str], names: tuple[str, ...] = ()) -> dict[str, Array]:
    """The arrays of `--input`. A bare FILE goes to the only input."""
    arrays = {}
    for name, path in given.items():
        if not name and len(names) != 1:
            choice = f", NAME one of {', '.join(names)}" if names else ""
            raise InputError(f"'{path}' does not say which input it is", hint=f"write --input NAME=FILE.npy{choice}")
        arrays[name or names[0]] = _read(path)
    return arrays


def _read(path: str) -> Array:
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise InputError("the file does not exist" if missing else f"cannot read the array: {error}", path, "write it with numpy.save") from error
    if not isinstance(loaded, np.ndarray):
        raise InputError("this is an archive of several arrays", path, "give one .npy file per input")
    if loaded.dtype == np.float64:
        raise InputError("the array is float64, which the chip does not have", path, "save array.astype(numpy.float32)")
    if loaded.dtype.kind not in "iufb":
        raise InputError(f"the array is {loaded.dtype}, which the chip does not have", path, "save integers or float32")
    return loaded


def plan_outputs(given: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    """Which output goes to which file, checked before anything runs."""
    planned = {}
    for name, path in given.items():
        if not name and len(names) != 1:
            raise InputError(f"'{path}' does not say which output it is for", hint=f"write --output NAME=FILE.npy, NAME one of {', '.join(names)}")
        if name and name not in names:
            raise InputError(f"there is no output '{name}'", hint=f"the outputs are {', '.join(names)}")
        if not Path(path).resolve().parent.is_dir():
            raise InputError("the folder of the output file does not exist", path)
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
