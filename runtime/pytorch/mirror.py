"""Caches of transformers whose contents are on the chip, too.

The caller has tensors of keys and values, which PyTorch code may read or write at any time; the chip has the same in
codes and scales. After a step the new rows go from the chip to the caller's tensors, and we remember what these were
then: memory, place and version. Are they the same at the next step, nothing has to go to the chip; else (another order
of sequences, fewer tokens, a copy) it takes the caller's values: those that it made itself become the same codes and
scales again, others are rounded as new ones are.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, UntypedStorage

from compiler.reference.functions import quantize_rows
from isa import constants
from isa.errors import UnsupportedError
from runtime.device.arrays import Array
from runtime.device.decoder import Decoder
from runtime.device.session import Session, greedy
from runtime.pytorch.step_inputs import Places, aligned
from runtime.pytorch.tensors import to_array
from runtime.pytorch.weights import version

Layers = Sequence[tuple[Tensor, Tensor]]  # keys and values of each layer, [B, H, rows, D]
NAMES = "keys", "values"


@dataclass(frozen=True, slots=True)
class _Mark:
    """What a tensor was after a step."""

    memory: "weakref.ref[UntypedStorage]"
    place: tuple[int, torch.Size, tuple[int, ...]]
    version: Any

    @staticmethod
    def of(tensor: Tensor) -> "_Mark":
        place = tensor.data_ptr(), tensor.shape, tensor.stride()
        return _Mark(weakref.ref(tensor.untyped_storage()), place, version(tensor))

    def is_of(self, tensor: Tensor) -> bool:
        return (
            self.memory() is tensor.untyped_storage()
            and self.place == (tensor.data_ptr(), tensor.shape, tensor.stride())
            and self.version == version(tensor)
        )


@dataclass(frozen=True)
class Mirror:
    """A session, and the caller's tensors with the same contents, of `past` rows."""

    session: Session[Array]
    decoder: Decoder
    past: int
    padding: tuple[int, ...]
    lengths: tuple[int, ...]
    marks: tuple[_Mark, ...]


_mirrors: dict[int, Mirror] = {}


def find(layers: Layers) -> Mirror | None:
    """The mirror of these tensors, if they are as the last step has left them."""
    tensors = [tensor for layer in layers for tensor in layer]
    mirror = _mirrors.get(id(tensors[0].untyped_storage())) if tensors else None
    if mirror is None or len(mirror.marks) != len(tensors) or mirror.session.lengths != mirror.lengths:
        return None
    return mirror if all(mark.is_of(t) for mark, t in zip(mirror.marks, tensors, strict=True)) else None


def keep(session: Session[Array], decoder: Decoder, past: int, padding: tuple[int, ...], layers: Layers) -> None:
    """Remember that these tensors have what the session has. It is forgotten with them."""
    tensors = [tensor for layer in layers for tensor in layer]
    memory = tensors[0].untyped_storage()
    if id(memory) not in _mirrors:
        weakref.finalize(memory, _mirrors.pop, id(memory), None).atexit = False
    marks = tuple(map(_Mark.of, tensors))
    _mirrors[id(memory)] = Mirror(session, decoder, past, padding, session.lengths, marks)


def fresh(decoder: Decoder) -> Session[Array]:
    """A session of its own."""
    return Session(decoder, lambda array: array, greedy(decoder))


def uploaded(decoder: Decoder, layers: Layers, past: int, places: Places) -> Session[Array]:
    """A session that has what the caller's tensors hold."""
    session = fresh(decoder)
    rows: dict[str, Array] = {}
    for number, layer in enumerate(layers):
        for name, tensor in zip(NAMES, layer, strict=True):
            codes, scales = codes_of(live(tensor, past).detach())
            rows[f"{name}_{number}"] = _moved(to_array(codes), past, places)
            rows[f"{name}_{number}_scales"] = _moved(to_array(scales.to(torch.float32)), past, places)
    texts = tuple(np.zeros(length, np.int32) for length in places.before)
    session.adopt(texts, tuple(rows[spec.name] for spec in decoder.image.states))
    return session


def live(tensor: Tensor, past: int) -> Tensor:
    """The rows that count, of `past`: a cache with a window has but the last ones."""
    return tensor[:, :, :past]


def codes_of(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and scales of rows [..., D]: of those that are products of both, the very same; else as `quantize_rows`
    makes them. (It would round once more: the largest code is 127, -127 or -128, and the largest value 127.5 scales.)"""
    codes, scales = quantize_rows(rows)
    least = torch.tensor(constants.Q_MIN_SCALE, dtype=torch.int32).view(torch.float32)
    bits = torch.int32 if rows.dtype is torch.float32 else torch.int16
    for extreme, code in ((rows.amin(-1), -127), (rows.amin(-1), -128), (rows.amax(-1), 127)):
        near = (extreme.to(torch.float32) / code).to(rows.dtype)
        for step in (-1, 1, 0):  # the quotient is rounded; the last that fits counts
            scale = (near.view(bits) + step).view(rows.dtype).to(torch.float32).unsqueeze(-1)
            code_of = torch.round(rows.to(torch.float32) / scale)
            fits = ((code_of * scale).to(rows.dtype) == rows) & (code_of >= -128) & (code_of <= 127) & (scale >= least)
            fits = fits.all(-1, keepdim=True)
            codes = torch.where(fits, code_of.to(torch.int8), codes)
            scales = torch.where(fits[..., 0], scale[..., 0].to(rows.dtype), scales)
    return codes, scales


def _moved(rows: Array, past: int, places: Places) -> Array:
    """Rows [B, H, n, …], the last of `past`, without the padding before each sequence."""
    lost = past - rows.shape[2]
    moved = np.zeros((*rows.shape[:2], max(places.before), *rows.shape[3:]), rows.dtype)
    for number, padding in enumerate(places.padding):
        first = max(lost, padding)
        moved[number, :, first - padding : past - padding] = rows[number, :, first - lost :]
    return moved


def made(decoder: Decoder, places: Places, dtype: torch.dtype) -> list[Tensor]:
    """Keys and values [B, H, T, D] of the new tokens of a step that the chip has just made, layer by layer; 0 for
    padding."""
    specs = {spec.name: decoder.executable.tensor(spec) for spec in decoder.image.states}
    found = []
    for number in range(len(specs) // 4):
        for name in NAMES:
            codes, scales = specs[f"{name}_{number}"], specs[f"{name}_{number}_scales"]
            parts = [_row(codes[b], first, places, b) for b, first in enumerate(places.before)]
            factors = [_row(scales[b], first, places, b) for b, first in enumerate(places.before)]
            product = np.stack(parts).astype(np.float32) * np.stack(factors).astype(np.float32)[..., None]
            found.append(torch.from_numpy(product).to(dtype))
    return found


def _row(cache: Array, first: int, places: Places, sequence: int) -> Array:
    real = places.real[sequence]
    count = int(real.sum())
    return aligned(cache[:, first : first + count], len(real), len(real) - count)


def check_rows(layers: Layers, past: int, window: int) -> None:
    """Raise UnsupportedError for tensors that do not hold all rows that the next step can see."""
    for layer in layers:
        for tensor in layer:
            if tensor.dim() != 4 or tensor.shape[2] < (min(past, window - 1) if window else past):
                raise UnsupportedError(f"a cache of {list(tensor.shape)} where {past} tokens were before")


def check_form(decoder: Decoder, heads: Sequence[tuple[int, int]]) -> None:
    """Raise UnsupportedError unless the decoder has caches like the caller's: heads and their width, of keys and values
    in turn, layer by layer."""
    own = {spec.name: (spec.shape[1], *spec.shape[3:]) for spec in decoder.image.states}
    names = [f"{name}_{number}" for number in range(len(heads) // 2) for name in NAMES]
    if len(own) != 2 * len(names) or [own.get(name) for name in names] != list(heads):
        raise UnsupportedError("the caches of the model's layers are not those of its attention")
