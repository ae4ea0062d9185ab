"""Torch tensors as the device's arrays, and back; and a hash that tells one set of weights from another."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from compiler.frontend.checks import check_layout
from compiler.types import flat_bytes
from isa.errors import InputError
from isa.image.records import TensorSpec
from runtime.device.arrays import Array


def name_of(dtype: torch.dtype) -> str:
    """`float32` for torch.float32, as `TensorSpec.dtype` has it."""
    return str(dtype).removeprefix("torch.")


def to_array(tensor: Tensor) -> Array:
    """The tensor's elements, row-major, shared where that is possible; bfloat16 as uint16 bit patterns.

    By DLPack: `Tensor.numpy()` would mark the user's storage as one that can never be resized.
    """
    tensor = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    array: Array = np.from_dlpack(tensor.view(torch.uint16) if tensor.dtype is torch.bfloat16 else tensor)
    return array


def to_tensor(array: Array, dtype: str) -> Tensor:
    """A tensor of an array's elements, in memory of its own: a storage that belongs to numpy cannot be resized, and its
    strides of nothing are 0."""
    shared = torch.from_numpy(array)
    tensor = torch.empty(array.shape, dtype=shared.dtype).copy_(shared)
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor


def bind(specs: Iterable[TensorSpec], tensors: Iterable[Tensor]) -> dict[str, Array]:
    """Arrays by name. Raises InputError for float types other than those that were compiled (shapes are checked by the
    device)."""
    arrays = {}
    for spec, tensor in zip(specs, tensors, strict=True):
        if name_of(tensor.dtype) != spec.dtype and (tensor.is_floating_point() or spec.storage.is_float):
            raise InputError(
                f"input '{spec.name}' is {name_of(tensor.dtype)}, the program was compiled for {spec.dtype}",
                hint="convert it, or compile again",
            )
        check_layout(f"input '{spec.name}'", tensor)
        arrays[spec.name] = to_array(tensor)
    return arrays


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names, types, shapes and bytes of a model's weights."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {name_of(tensor.dtype)} {list(tensor.shape)}\n".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The tensor's bytes, row-major, not copied if it is contiguous."""
    shared: Array = np.from_dlpack(flat_bytes(tensor.cpu()))
    return shared.data
