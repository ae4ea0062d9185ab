"""GGUF files: what is read is what was written, and what is wrong is said in one line."""

import struct
from pathlib import Path

import numpy as np
import pytest
from ggml_vectors import arrays, bits

from compiler.frontend.gguf.blocks import NUMBERS, OTHER_TYPES, PLAIN_TYPES, WEIGHT_TYPES
from compiler.frontend.gguf.file import GgufFile, open_gguf, read_gguf
from fuzz.gguf import gguf, info, pair, text
from isa.errors import ModelError

ROW = np.arange(8, dtype=np.float32)
PAIRS = [
    pair("general.architecture", "text", "llama"),
    pair("llama.rope.freq_base", "f32", 10000.0),
    pair("llama.block_count", "u32", 2),
    pair("tokenizer.ggml.tokens", "[text]", ["a", "ß", ""]),
    pair("tokenizer.ggml.scores", "[f32]", [0.5, -1.0]),
    pair("tokenizer.ggml.types", "[i32]", [1, -3]),
    pair("flags", "[bool]", [True, False]),
    pair("yes", "bool", True),
    pair("big", "u64", 2**63),
    pair("small", "i64", -(2**63)),
]


def read(data: bytes) -> GgufFile:
    return read_gguf(np.frombuffer(data, np.uint8), "x.gguf")


def test_metadata_of_every_kind() -> None:
    """Breaks when a type is read with another width, or an array as something else."""
    found = dict(read(gguf(PAIRS, {})).metadata)
    assert found.pop("tokenizer.ggml.scores").tolist() == [0.5, -1.0]  # type: ignore[union-attr]
    assert found.pop("tokenizer.ggml.types").tolist() == [1, -3]  # type: ignore[union-attr]
    assert found.pop("flags").tolist() == [True, False]  # type: ignore[union-attr]
    assert found == {
        "general.architecture": "llama",
        "llama.rope.freq_base": 10000.0,
        "llama.block_count": 2,
        "tokenizer.ggml.tokens": ["a", "ß", ""],
        "yes": True,
        "big": 2**63,
        "small": -(2**63),
    }


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("align", [8, 32, 64])
def test_tensors_of_every_type(version: int, align: int) -> None:
    """Breaks when a shape is reversed, an offset counts from elsewhere, or a type's bytes are another's."""
    tensors: dict[str, tuple[tuple[int, ...], int, bytes]] = {
        name: ((3, 2, kind.elements), kind.number, arrays(name)["one_w"][:6].tobytes())
        for name, kind in WEIGHT_TYPES.items()
    }
    tensors["f32"] = ((2, 4), PLAIN_TYPES["F32"].number, ROW.tobytes())
    tensors["f16"] = ((8,), PLAIN_TYPES["F16"].number, ROW.astype(np.float16).tobytes())
    tensors["bf16"] = ((2, 2, 2), PLAIN_TYPES["BF16"].number, (ROW.view(np.uint32) >> 16).astype(np.uint16).tobytes())
    tensors["none"] = ((0, 4), PLAIN_TYPES["F32"].number, b"")
    file = read(gguf([*PAIRS, pair("general.alignment", "u32", align)], tensors, version, align))
    assert list(file.tensors) == list(tensors) and file.version == version
    for name, kind in WEIGHT_TYPES.items():
        got = file.values(name)
        assert got.shape == (3, 2, kind.elements)
        assert np.array_equal(bits(got.reshape(6, -1)), arrays(name)["one_wf"][:6])
        assert file.weights(name).codes.shape == (6, kind.elements)
    for name, shape in (("f32", (2, 4)), ("f16", (8,)), ("bf16", (2, 2, 2))):
        assert np.array_equal(file.values(name), ROW.reshape(shape))
    assert file.values("none").shape == (0, 4)
    with pytest.raises(ModelError, match="tensor f32 is F32: it has no codes"):
        file.weights("f32")


def test_other_types_are_refused_by_name_and_hinder_nobody_else() -> None:
    """Breaks when a file cannot be opened because of a tensor that nobody asks for, or an unknown one is read."""
    raw = ROW.tobytes()
    for number, name in OTHER_TYPES.items():
        file = read(gguf([], {"odd": ((4,), number, raw), "good": ((8,), 0, raw)}))
        assert np.array_equal(file.values("good"), ROW)
        with pytest.raises(ModelError, match=f"tensor odd is {name}, which llmchip does not read"):
            file.values("odd")
    assert not OTHER_TYPES.keys() & NUMBERS.keys()
    with pytest.raises(ModelError, match="the file has no tensor nobody"):
        file.values("nobody")


def raw_file(infos: list[bytes], pairs: list[bytes], data: bytes = b"", tensors: int | None = None) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos) if tensors is None else tensors, len(pairs))
    head += b"".join((*pairs, *infos))
    return head + bytes(-len(head) % 32) + data


GOOD = gguf(PAIRS, {"w": ((8,), 0, ROW.tobytes())})
WRONG = {
    "no GGUF": (b"GGML" + GOOD[4:], "not a GGUF file"),
    "nothing but the magic": (b"GGUF", "needs 4 bytes, 0 are left"),
    "version 1": (b"GGUF" + struct.pack("<I", 1) + GOOD[8:], "GGUF version 1 is not read"),
    "big endian": (b"GGUF" + struct.pack(">I", 3) + GOOD[8:], "big-endian GGUF version 3 is not read"),
    "too many tensors": (raw_file([], [], tensors=2**60), "tensors do not fit"),
    "too many pairs": (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63), "metadata do not fit"),
    "cut off in the metadata": (GOOD[:60], "are left"),
    "cut off in the data": (GOOD[:-1], "tensor w ends at byte"),
    "long text": (raw_file([], [text("k") + struct.pack("<IQ", 8, 2**62)]), "k at byte .* needs"),
    "long array": (raw_file([], [text("k") + struct.pack("<IIQ", 9, 4, 2**61)]), "numbers of k do not fit"),
    "many texts": (raw_file([], [text("k") + struct.pack("<IIQ", 9, 8, 2**61)]), "texts of k do not fit"),
    "arrays of arrays": (raw_file([], [text("k") + struct.pack("<IIQ", 9, 9, 1)]), "array of type 9"),
    "unknown value": (raw_file([], [text("k") + struct.pack("<I", 77)]), "type 77, which does not exist"),
    "two keys": (raw_file([], [pair("k", "u8", 1)] * 2), "key k is there twice"),
    "an odd key": (raw_file([], [text(b"\xff\xff") + struct.pack("<I", 0)]), "a key that is not UTF-8"),
    "a hostile key": (raw_file([], [pair("\x1b[2J", "u8", 1)] * 2), r"key \\x1b\[2J is there twice"),
    "a key without end": (raw_file([], [pair("k" * 2000, "u8", 1)]), "a key of 2000 bytes"),
    "alignment": (raw_file([], [pair("general.alignment", "u32", 24)]), "an alignment of 24"),
    "alignment of text": (raw_file([], [pair("general.alignment", "text", "x" * 99)]), "an alignment of xxx"),
    "no dimensions": (raw_file([info("w", (), 0, 0)], []), "has 0 dimensions"),
    "many dimensions": (raw_file([info("w", (1,) * 5, 0, 0)], []), "has 5 dimensions"),
    "unknown type": (raw_file([info("w", (8,), 99, 0)], []), "of type 99, which llmchip does not know"),
    "part of a block": (raw_file([info("w", (40,), 2, 0)], []), "rows of 40, not whole blocks of 32"),
    "huge and empty": (raw_file([info("w", (2**62, 2**62, 0), 0, 0)], []), "is too large"),
    "huge": (raw_file([info("w", (2**62, 2**62), 0, 0)], []), "is too large"),
    "crooked": (raw_file([info("w", (1,), 0, 4)], [], bytes(64)), "begins at 4, not at a multiple of 32"),
    "behind the end": (raw_file([info("w", (1,), 0, 2**40)], [], bytes(64)), "tensor w ends at byte"),
    "twice": (raw_file([info("w", (1,), 0, 0)] * 2, [], bytes(64)), "tensor w is there twice"),
    "overlap": (
        raw_file([info("w", (16,), 0, 0), info("v", (1,), 0, 32)], [], bytes(64)),
        "tensors w and v lie over each other",
    ),
}


@pytest.mark.parametrize(("data", "message"), WRONG.values(), ids=WRONG)
def test_wrong_files_are_refused_in_one_line(data: bytes, message: str) -> None:
    """Breaks when a file that lies about its sizes is believed."""
    with pytest.raises(ModelError, match=message) as caught:
        read(data)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("x.gguf: ")


def test_every_truncation_is_refused() -> None:
    """Breaks when a file that ends early is read past its end, or fails with another error."""
    for length in range(len(GOOD)):
        with pytest.raises(ModelError):
            read(GOOD[:length])


def test_opened_from_a_path(tmp_path: Path) -> None:
    """Breaks when a file's bytes are gone while it is open, or an empty one fails in mmap."""
    path = tmp_path / "x.gguf"
    path.write_bytes(GOOD)
    with open_gguf(path) as file:
        assert np.array_equal(file.values("w"), ROW) and file.where == str(path)
    path.write_bytes(b"")
    with pytest.raises(ModelError, match="it is empty"), open_gguf(path):
        pass
    with pytest.raises(OSError, match="folder"), open_gguf(tmp_path):
        pass
