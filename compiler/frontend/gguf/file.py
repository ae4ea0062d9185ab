"""A reader of GGUF files (versions 2 and 3, little endian) that believes nothing it has not checked.

    with open_gguf("model.gguf") as file:
        file.metadata["general.architecture"], file.tensors["token_embd.weight"].shape
        file.rows("token_embd.weight"), file.values("token_embd.weight"), file.weights("blk.0.attn_q.weight")

Every count and length is held against the bytes that are left before anything is made of it; tensors must lie inside the
file, aligned, and none over another. Bytes of tensors are mapped, not read.
"""

import mmap
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from os import PathLike
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.frontend.gguf.blocks import NUMBERS, OTHER_TYPES, PlainType, Weights, WeightType
from isa.errors import ModelError
from isa.files import open_regular
from isa.shown import shown

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_DIMS = 4
ALIGNMENT = 32  # unless the metadata say otherwise
_LARGEST_ALIGNMENT = 1 << 16
_LEAST_PAIR, _LEAST_INFO, _LEAST_STRING = 13, 24, 8  # bytes that the shortest of each takes
_MOST_ELEMENTS = 1 << 48  # of a tensor
_MOST_NAME = 1024  # bytes of a key or a tensor's name
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9

Value = bool | int | float | str | list[Any] | NDArray[Any]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor in a file. `shape` as numpy and PyTorch say it, the dimension of consecutive elements last; `offset` from
    the start of the file; `type` None for one that llmchip does not read, `type_name` says which."""

    name: str
    shape: tuple[int, ...]
    type: WeightType | PlainType | None
    type_name: str
    offset: int
    nbytes: int


@dataclass(frozen=True, eq=False, slots=True)
class GgufFile:
    """An open file: metadata and tensors by name, in the order of the file."""

    where: str
    version: int
    metadata: Mapping[str, Value]
    tensors: Mapping[str, TensorInfo]
    _data: NDArray[np.uint8]

    def rows(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a tensor, uint8 [rows, bytes of a row], all leading dimensions in one; valid while the file is
        open. Raises ModelError for a tensor that is not there or of a type that is not read."""
        info = self._tensor(name)
        flat = self._data[info.offset : info.offset + info.nbytes]
        return flat.reshape(prod(info.shape[:-1]), info.nbytes // max(prod(info.shape[:-1]), 1))

    def values(self, name: str) -> NDArray[np.float32]:
        """The numbers of a tensor, dequantized, float32 of its shape. Raises ModelError as `rows` does."""
        info = self._tensor(name)
        assert info.type is not None
        kind = info.type
        rows = self.rows(name)
        found = kind.decode(rows).values() if isinstance(kind, WeightType) else kind.values(rows)
        return found.reshape(info.shape)

    def weights(self, name: str) -> Weights:
        """Codes and scales of a tensor of a block format, [rows, columns]. Raises ModelError for one that has none."""
        info = self._tensor(name)
        if not isinstance(info.type, WeightType):
            raise ModelError(f"tensor {shown(name)} is {info.type_name}: it has no codes", self.where)
        return info.type.decode(self.rows(name))

    def _tensor(self, name: str) -> TensorInfo:
        if name not in self.tensors:
            raise ModelError(f"the file has no tensor {shown(name)}", self.where)
        info = self.tensors[name]
        if info.type is None:
            raise ModelError(f"tensor {shown(name)} is {info.type_name}, which llmchip does not read", self.where)
        return info


@contextmanager
def open_gguf(path: str | PathLike[str]) -> Iterator[GgufFile]:
    """Check a file and map it. Raises ModelError, in one line, for what is no GGUF file of these versions or is damaged;
    OSError for what cannot be opened."""
    where = shown(str(path))
    with open_regular(path) as file:
        try:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:  # an empty file
            raise ModelError("this is not a GGUF file: it is empty", where) from error
    yield read_gguf(np.frombuffer(mapped, np.uint8), where)


def read_gguf(data: NDArray[np.uint8], where: str = "GGUF") -> GgufFile:
    """The same of bytes in memory, uint8 [bytes]. Raises ModelError."""
    reader = _Reader(data.data, where)
    version, tensors, pairs = _header(reader)
    metadata: dict[str, Value] = {}
    for _ in range(pairs):
        key = reader.name("a key")
        if key in metadata:
            raise reader.error(f"key {shown(key)} is there twice")
        metadata[key] = reader.value(shown(key))
    alignment = _alignment(reader, metadata)
    infos = [_info(reader) for _ in range(tensors)]
    start = -(-reader.at // alignment) * alignment
    found = _placed(reader, infos, start, alignment)
    return GgufFile(where, version, MappingProxyType(metadata), MappingProxyType(found), data)


class _Reader:
    """A place in the bytes, which only moves over what is there."""

    def __init__(self, data: memoryview, where: str) -> None:
        self.data, self.where, self.at = data, where, 0

    def error(self, problem: str) -> ModelError:
        return ModelError(f"a damaged GGUF file: {problem}", self.where)

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, count: int, what: str) -> memoryview:
        if count > self.left:
            raise self.error(f"{what} at byte {self.at} needs {count} bytes, {self.left} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, letter: str, what: str) -> Any:
        return struct.unpack(f"<{letter}", self.take(struct.calcsize(f"<{letter}"), what))[0]

    def count(self, what: str, least: int) -> int:
        """A count of things of at least so many bytes each, all of which must still be there."""
        count: int = self.number("Q", what)
        if count * least > self.left:
            raise self.error(f"{count} {what} do not fit in the {self.left} bytes that are left")
        return count

    def text(self, what: str) -> bytes:
        return bytes(self.take(self.number("Q", what), what))

    def name(self, what: str) -> str:
        raw = self.text(what)
        if len(raw) > _MOST_NAME:
            raise self.error(f"{what} of {len(raw)} bytes")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error(f"{what} that is not UTF-8") from error

    def value(self, key: str) -> Value:
        kind = self.number("I", key)
        if kind == _STRING:
            return self.text(key).decode("utf-8", "replace")
        if kind == _ARRAY:
            return self._array(key)
        if kind not in _NUMBERS:
            raise self.error(f"{key} has a value of type {kind}, which does not exist")
        value: bool | int | float = self.number(_NUMBERS[kind], key)
        return bool(value) if kind == _BOOL else value

    def _array(self, key: str) -> Value:
        kind = self.number("I", key)
        if kind == _STRING:
            return [
                self.text(key).decode("utf-8", "replace") for _ in range(self.count(f"texts of {key}", _LEAST_STRING))
            ]
        if kind not in _NUMBERS:
            raise self.error(f"{key} is an array of type {kind}, which is not read")
        dtype = np.dtype("?" if kind == _BOOL else f"<{_NUMBERS[kind]}")
        count = self.count(f"numbers of {key}", dtype.itemsize)
        raw = np.frombuffer(self.take(count * dtype.itemsize, key), np.uint8)
        return (raw != 0) if kind == _BOOL else raw.view(dtype).copy()


def _header(reader: _Reader) -> tuple[int, int, int]:
    """Version, number of tensors, number of metadata."""
    if bytes(reader.data[:4]) != MAGIC:
        raise ModelError("this is not a GGUF file (its first bytes are others)", reader.where)
    reader.take(4, "the header")
    version = reader.number("I", "the header")
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        kind = "big-endian " if swapped in VERSIONS else ""
        raise ModelError(
            f"{kind}GGUF version {swapped if kind else version} is not read, only little-endian versions 2 and 3",
            reader.where,
        )
    tensors = reader.count("tensors", _LEAST_INFO)
    return version, tensors, reader.count("metadata", _LEAST_PAIR)


def _alignment(reader: _Reader, metadata: Mapping[str, Value]) -> int:
    alignment = metadata.get("general.alignment", ALIGNMENT)
    whole = isinstance(alignment, int) and not isinstance(alignment, bool)
    if not whole or not 8 <= alignment <= _LARGEST_ALIGNMENT or alignment & (alignment - 1):  # type: ignore[operator]
        raise reader.error(f"an alignment of {shown(str(alignment)[:40])}")
    return alignment  # type: ignore[return-value]


def _info(reader: _Reader) -> TensorInfo:
    """A tensor's entry, its offset still relative."""
    name = reader.name("a tensor's name")
    dims = reader.number("I", f"tensor {shown(name)}")
    if not 1 <= dims <= MAX_DIMS:
        raise reader.error(f"tensor {shown(name)} has {dims} dimensions")
    shape = tuple(reader.number("Q", f"tensor {shown(name)}") for _ in range(dims))[::-1]
    number, offset = reader.number("I", f"tensor {shown(name)}"), reader.number("Q", f"tensor {shown(name)}")
    kind = NUMBERS.get(number)
    if kind is None and number not in OTHER_TYPES:
        raise reader.error(f"tensor {shown(name)} is of type {number}, which llmchip does not know")
    if prod(size or 1 for size in shape) >= _MOST_ELEMENTS:
        raise reader.error(f"tensor {shown(name)} is too large")
    if kind is None:
        return TensorInfo(name, shape, None, OTHER_TYPES[number], offset, 0)
    if shape[-1] % kind.elements:
        raise reader.error(f"tensor {shown(name)} has rows of {shape[-1]}, not whole blocks of {kind.elements}")
    nbytes = prod(shape) // kind.elements * kind.nbytes
    return TensorInfo(name, shape, kind, kind.name, offset, nbytes)


def _placed(reader: _Reader, infos: list[TensorInfo], start: int, alignment: int) -> dict[str, TensorInfo]:
    """The tensors where they lie in the file, checked against its end and each other."""
    found: dict[str, TensorInfo] = {}
    for info in infos:
        if info.name in found:
            raise reader.error(f"tensor {shown(info.name)} is there twice")
        if info.offset % alignment:
            raise reader.error(f"tensor {shown(info.name)} begins at {info.offset}, not at a multiple of {alignment}")
        end = start + info.offset + info.nbytes
        if end > len(reader.data):
            raise reader.error(f"tensor {shown(info.name)} ends at byte {end}, the file at {len(reader.data)}")
        found[info.name] = TensorInfo(
            info.name, info.shape, info.type, info.type_name, start + info.offset, info.nbytes
        )
    last: TensorInfo | None = None
    for info in sorted((i for i in found.values() if i.nbytes), key=lambda i: i.offset):
        if last is not None and last.offset + last.nbytes > info.offset:
            raise reader.error(f"tensors {shown(last.name)} and {shown(info.name)} lie over each other")
        last = info
    return found
