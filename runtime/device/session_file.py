"""Sessions on disk. A file says how long it must be, belongs to one program, and ends with a checksum.

    magic | version, sequences | hash of the program | lengths | tokens | rows of each cache | sha256 of all before

Behind an encoder, lengths are followed by those of the sources: all of them, or zeros.
Little endian. Nothing is allocated that the program does not have room for.
"""

import hashlib
import math
import struct
from collections.abc import Iterator, Sequence
from os import PathLike

import numpy as np

from emulator.formats import STORAGE
from isa.errors import InputError
from isa.files import read_regular, write_atomic
from isa.image.steps import is_source
from runtime.device.arrays import Array
from runtime.device.decoder import Decoder, Rows

MAGIC = b"LLMCHIPS"
VERSION = 1
_HEAD = struct.Struct("<8sII32s")
_DIGEST = 32


def write(
    path: str | PathLike[str], decoder: Decoder, texts: Sequence[Array], sources: Sequence[int], rows: Rows
) -> None:
    """Write tokens and live rows. Raises InputError where the file cannot be written."""
    try:
        write_atomic(path, _chunks(decoder, texts, sources, rows))
    except OSError as error:
        raise InputError(
            f"cannot write the session: {error.strerror or error}", str(path), "choose a folder that can be written"
        ) from error


def _chunks(decoder: Decoder, texts: Sequence[Array], sources: Sequence[int], rows: Rows) -> Iterator[bytes]:
    digest = hashlib.sha256()
    behind = (sources or (0,) * len(texts)) if decoder.source else ()
    lengths = np.array([*map(len, texts), *behind], "<u4")
    head = _HEAD.pack(MAGIC, VERSION, len(texts), decoder.program_hash)
    for chunk in (head, lengths.tobytes(), *(text.astype("<i4").tobytes() for text in texts), *map(_bytes, rows)):
        digest.update(chunk)
        yield chunk
    yield digest.digest()


def _bytes(rows: Array) -> bytes:
    return np.ascontiguousarray(rows).tobytes()


Read = tuple[tuple[Array, ...], tuple[int, ...], Rows]


def read(path: str | PathLike[str], decoder: Decoder) -> Read:
    """Tokens of each sequence, lengths of the sources, and the live rows of the caches. Raises InputError for a file
    that cannot be read, is damaged, or belongs to another program."""
    where, shapes = str(path), _shapes(decoder, decoder.capacity, decoder.source)
    most = _HEAD.size + 4 * decoder.batch * (2 + decoder.capacity) + sum(size for _, _, size in shapes) + _DIGEST
    try:
        data = read_regular(path, most)
    except OSError as error:
        raise InputError(f"cannot read the session: {error.strerror or error}", where) from error
    problem = _head_problem(data, decoder)
    if problem:
        raise InputError(problem, where, "sessions are written by Session.save")
    numbers = np.frombuffer(data, "<u4", _lengths(decoder), _HEAD.size).astype(np.int64)
    lengths, sources = numbers[: decoder.batch], numbers[decoder.batch :]
    if int(lengths.max()) > decoder.capacity:
        raise InputError(f"the session has {int(lengths.max())} tokens; the cache has {decoder.capacity}", where)
    if sources.any() and not ((sources > 0) & (sources <= decoder.source)).all():
        raise InputError(f"the session has sources of {sources.tolist()} of {decoder.source} tokens", where)
    return _body(data, decoder, lengths.tolist(), tuple(sources.tolist()) if sources.any() else (), where)


def _lengths(decoder: Decoder) -> int:
    """How many lengths there are: of texts, and of sources if there are any."""
    return decoder.batch * (2 if decoder.source else 1)


def _head_problem(data: bytes, decoder: Decoder) -> str:
    if data[: len(MAGIC)] != MAGIC:
        return "this is no session of llmchip"
    if len(data) < _HEAD.size + 4 * _lengths(decoder) + _DIGEST:
        return "the session is truncated in its header"
    _, version, batch, program = _HEAD.unpack_from(data)
    if version != VERSION:
        return f"a session of format {version}; this llmchip reads format {VERSION}"
    if program != decoder.program_hash or batch != decoder.batch:
        return "the session belongs to another program"
    if hashlib.sha256(data[:-_DIGEST]).digest() != data[-_DIGEST:]:
        return "the session is damaged: checksum mismatch"
    return ""


def _body(data: bytes, decoder: Decoder, lengths: Sequence[int], sources: tuple[int, ...], where: str) -> Read:
    shapes = _shapes(decoder, max(lengths), max(sources, default=0))
    at = _HEAD.size + 4 * _lengths(decoder)
    if len(data) != at + 4 * sum(lengths) + sum(size for _, _, size in shapes) + _DIGEST:
        raise InputError("the session has another size than it says", where, "save it again")
    texts = []
    for length in lengths:
        texts.append(np.frombuffer(data, "<i4", length, at).astype(np.int32))
        at += 4 * length
    if any(text.size and not 0 <= text.min() <= text.max() < decoder.vocabulary for text in texts):
        raise InputError("the session holds a token outside the vocabulary", where, "save it again")
    rows = []
    for shape, dtype, size in shapes:
        rows.append(np.frombuffer(data, dtype, math.prod(shape), at).reshape(shape))
        at += size
    return tuple(texts), sources, tuple(rows)


def _shapes(decoder: Decoder, count: int, source: int) -> list[tuple[tuple[int, ...], "np.dtype[np.generic]", int]]:
    """Shape, type and bytes of the first `count` rows of each cache."""
    found = []
    for spec in decoder.image.states:
        rows = source if is_source(spec) else count
        shape, dtype = (*spec.shape[:2], rows, *spec.shape[3:]), STORAGE[spec.storage]
        found.append((shape, dtype, math.prod(shape) * dtype.itemsize))
    return found
