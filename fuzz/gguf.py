"""GGUF files, written from the format's description (nothing of the reader is in here), and the fuzzer of the reader.

Cases are files of a few tensors with one number changed, a piece cut out, or a part that says something else.
"""

import random
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compiler.frontend.gguf.blocks import NUMBERS, WeightType
from compiler.frontend.gguf.file import read_gguf
from fuzz.harness import Fuzzer
from fuzz.mutate import INTERESTING, damage
from isa.errors import ModelError

KINDS = {"u8": (0, "B"), "i8": (1, "b"), "u16": (2, "H"), "i16": (3, "h"), "u32": (4, "I"), "i32": (5, "i"),
         "f32": (6, "f"), "bool": (7, "?"), "u64": (10, "Q"), "i64": (11, "q"), "f64": (12, "d")}  # fmt: skip


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str, kind: str, value: Any) -> bytes:
    """Metadata: `kind` is a key of KINDS, "text", or either in brackets for an array."""
    if kind.startswith("["):
        inner = kind[1:-1]
        number = 8 if inner == "text" else KINDS[inner][0]
        items = b"".join(text(v) if inner == "text" else struct.pack(f"<{KINDS[inner][1]}", v) for v in value)
        return text(key) + struct.pack("<IIQ", 9, number, len(value)) + items
    if kind == "text":
        return text(key) + struct.pack("<I", 8) + text(value)
    return text(key) + struct.pack("<I", KINDS[kind][0]) + struct.pack(f"<{KINDS[kind][1]}", value)


def info(name: str, shape: Sequence[int], kind: int, offset: int) -> bytes:
    dims = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
    return text(name) + dims + struct.pack("<IQ", kind, offset)


def gguf(
    pairs: Sequence[bytes], tensors: Mapping[str, tuple[Sequence[int], int, bytes]], version: int = 3, align: int = 32
) -> bytes:
    """A file of metadata and of tensors: name to (shape, ggml's number of the type, bytes)."""
    infos, data = [], b""
    for name, (shape, kind, raw) in tensors.items():
        data += bytes(-len(data) % align)
        infos.append(info(name, shape, kind, len(data)))
        data += raw
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join((*pairs, *infos))
    return head + bytes(-len(head) % align) + data


_SOME = (
    pair("general.architecture", "text", "llama"),
    pair("general.alignment", "u32", 32),
    pair("llama.block_count", "u32", 2),
    pair("tokenizer.ggml.tokens", "[text]", ["a", "\u202eb", "\x1b[2J"]),
    pair("tokenizer.ggml.scores", "[f32]", [0.0, -1.0]),
)


def make_gguf(rng: random.Random) -> bytes:
    tensors: dict[str, tuple[Sequence[int], int, bytes]] = {}
    for number in rng.sample(sorted(NUMBERS), rng.randrange(4)):
        kind, rows = NUMBERS[number], rng.randrange(4)
        shape = (rows, kind.elements * rng.randrange(3))
        tensors[f"t{number}"] = (shape, number, rng.randbytes(rows * shape[1] // kind.elements * kind.nbytes))
    data = gguf(rng.sample(_SOME, rng.randrange(len(_SOME) + 1)), tensors)
    chance = rng.random()
    if chance < 0.1:
        return data
    if chance < 0.3:
        return damage(rng, data)
    out = bytearray(data)
    for _ in range(rng.randint(1, 3)):  # one number of the header, which says something else
        width = rng.choice((4, 8))
        at = rng.randrange(0, max(1, len(out) - width), rng.choice((1, 4)))
        value = rng.choice((*INTERESTING, len(data), rng.randrange(64))) % (1 << 8 * width)
        out[at : at + width] = value.to_bytes(width, "little")
    return bytes(out)


def run_gguf(case: bytes) -> None:
    """Every tensor of an accepted file can be read, and lies inside it."""
    file = read_gguf(np.frombuffer(case, np.uint8), "case")
    for name, info_ in file.tensors.items():
        assert info_.offset + info_.nbytes <= len(case), "a tensor outside the file"
        if info_.type is None:
            continue
        assert file.rows(name).nbytes == info_.nbytes
        assert file.values(name).shape == info_.shape
        if isinstance(info_.type, WeightType):
            file.weights(name)
        else:
            try:
                file.weights(name)
            except ModelError:
                continue
            raise AssertionError("codes of plain numbers")


GGUF = Fuzzer("gguf", make_gguf, run_gguf)
