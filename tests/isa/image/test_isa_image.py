"""The image file: complete, reproducible, and every bit of it verified."""

import dataclasses
import os
import struct
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isa_strategies import small_image

from isa import files
from isa.architecture import Dtype, Region, Space
from isa.chip import Chip, Sram, load_chip
from isa.errors import ImageError
from isa.image import container
from isa.image.container import HEADER_BYTES
from isa.image.image import (
    Entry,
    Image,
    PlanRecord,
    TensorSpec,
    image_bytes,
    is_image,
    load_image,
    read_image,
    write_image,
)
from isa.image.records import DebugMap, DebugNode, Span

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def test_file_round_trip(tmp_path: Path) -> None:
    """Breaks when a part of the image is not in the file, or the bytes depend on anything but the image."""
    image = small_image()
    path = tmp_path / "a.llmchip"
    write_image(image, path)
    loaded = load_image(path, "edge")
    assert loaded == image
    assert image_bytes(loaded) == path.read_bytes() == image_bytes(image)
    assert is_image(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.llmchip"]


@settings(max_examples=50)
@given(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), json_values, max_size=4),
    st.binary(max_size=200),
    st.binary(max_size=200),
)
def test_any_metadata_and_data_round_trip(metadata: dict[str, object], weights: bytes, const: bytes) -> None:
    """Breaks when metadata is not canonical or data is padded wrongly."""
    image = Image(bytes(16), weights, const, metadata=metadata)
    loaded = read_image(image_bytes(image))
    assert (loaded.weights, loaded.const, loaded.metadata) == (weights, const, metadata)
    assert image_bytes(loaded) == image_bytes(dataclasses.replace(image, metadata=dict(reversed(metadata.items()))))


def test_every_single_flipped_bit_is_refused() -> None:
    """Breaks when any bit of the file is not covered by a checksum, or a damaged file gives another error than
    ImageError."""
    good = bytearray(image_bytes(small_image()))
    sections: set[str] = set()
    for bit in range(8 * len(good)):
        good[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(ImageError) as caught:
            read_image(good)
        good[bit >> 3] ^= 1 << (bit & 7)
        sections.add(caught.value.what.split(":")[0])
    assert {"section code", "section const", "section debug", "section metadata", "section table", "header"} <= sections
    assert any(name.startswith("padding between") for name in sections)


def test_every_truncation_and_extension_is_refused() -> None:
    """Breaks when a half-written file loads."""
    good = image_bytes(small_image())
    for size in (*range(0, len(good), 7), len(good) - 1):
        with pytest.raises(ImageError):
            read_image(good[:size])
    with pytest.raises(ImageError, match="longer than it should be"):
        read_image(good + b"\0")


def test_foreign_and_missing_files_say_what_they_are(tmp_path: Path) -> None:
    """Breaks when a wrong path ends in a traceback."""
    foreign = tmp_path / "model.safetensors"
    foreign.write_bytes(b"something else entirely")
    assert not is_image(foreign)
    assert not is_image(tmp_path)
    assert not is_image(tmp_path / "none")
    for path, problem in (
        (foreign, "not an llmchip image"),
        (tmp_path / "none", "cannot read"),
        (tmp_path, "not a regular file"),
    ):
        with pytest.raises(ImageError, match=problem):
            load_image(path)
    (tmp_path / "empty").touch()
    with pytest.raises(ImageError, match="not an llmchip image"):
        load_image(tmp_path / "empty")


def test_another_chip_is_refused() -> None:
    """Breaks when a program can run on a chip that it was not planned for."""
    data = image_bytes(small_image())
    with pytest.raises(ImageError, match="built for chip 'edge', not for 'server'"):
        read_image(data, chip="server")
    with pytest.raises(ImageError, match="they differ in sram"):
        read_image(data, chip=msgspec.structs.replace(load_chip("edge"), sram=Sram(1 << 20)))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ISA_VERSION", 99, "ISA version 99"),
        ("FORMAT_VERSION", 7, "image format 7"),
        ("table_hash", lambda: bytes(32), "another ISA table"),
    ],
)
def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: object, message: str) -> None:
    """Breaks when a program for another instruction set is executed."""
    with monkeypatch.context() as patch:
        patch.setattr(container, name, value)
        data = image_bytes(small_image())
    with pytest.raises(ImageError, match=message):
        read_image(data)


def test_a_forged_length_allocates_nothing() -> None:
    """Breaks when a size in a file with correct checksums is believed before it is compared with the file."""
    import hashlib

    data = bytearray(image_bytes(small_image()))
    sections = struct.unpack_from("<I", data, 16)[0]
    struct.pack_into("<Q", data, HEADER_BYTES + 24 + 8, 2**62)
    table = bytes(data[HEADER_BYTES : HEADER_BYTES + 72 * sections])
    data[HEADER_BYTES - 64 : HEADER_BYTES - 32] = hashlib.sha256(table).digest()
    data[HEADER_BYTES - 32 : HEADER_BYTES] = hashlib.sha256(data[: HEADER_BYTES - 32]).digest()
    with pytest.raises(ImageError, match=r"section code .* leaves the file"):
        read_image(data)


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when Ctrl-C leaves half a file, or destroys the one that was there."""
    path = tmp_path / "a.llmchip"
    path.write_bytes(b"old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_image(small_image(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_no_folder_is_a_clear_error(tmp_path: Path) -> None:
    """Breaks when an unwritable path gives a traceback."""
    with pytest.raises(ImageError, match="cannot write"):
        write_image(small_image(), tmp_path / "none" / "a.llmchip")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"code": bytes(17)}, "section code: 17 bytes"),
        ({"entries": (Entry("main", 160),)}, "entry main starts at 0xa0"),
        ({"entries": (Entry(), Entry())}, "two entry points"),
        ({"states": (TensorSpec("k", (99,), "int8", Dtype.I8, Region.STATE),)}, "tensor k .* leaves region state"),
        ({"debug": DebugMap((DebugNode("n", "op"),), (), (Span(0, 16, (1,)),))}, "section debug"),
        ({"metadata": {"x": object()}}, "section metadata: not JSON"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    """Breaks when the compiler can write an image that means nothing."""
    with pytest.raises(ImageError, match=message):
        image_bytes(dataclasses.replace(small_image(), **change))  # type: ignore[arg-type]


def test_sections_are_aligned_and_not_copied() -> None:
    """Breaks when weights cannot be used where the file was read to."""
    import numpy as np

    data = image_bytes(Image(bytes(16), bytes(1000), bytes(10)))
    loaded = read_image(data)
    weights = np.frombuffer(loaded.weights, np.uint8)
    whole = np.frombuffer(data, np.uint8)
    assert np.shares_memory(weights, whole)
    assert (weights.ctypes.data - whole.ctypes.data) % 64 == 0


def test_nodes_are_found_by_pc_and_loop_index() -> None:
    """Breaks when the debug map of a layer loop names the wrong layer."""
    nodes = tuple(DebugNode(name, "op") for name in ("layer0", "layer1", "outer"))
    debug = DebugMap(nodes, (), (Span(0, 64, (2,)), Span(16, 32, (0, 1), 1)))
    found = [debug.node_at(pc, indices) for pc, indices in ((0, ()), (16, (0, 1)), (16, {1: 0}), (64, ()))]
    assert [node and node.name for node in found] == ["outer", "layer1", "layer0", None]


def test_images_load_without_torch() -> None:
    """Breaks when isa imports torch, numpy or the assembler's parser on the way to an image."""
    code = "import sys, isa.image.image, isa.asm.disassemble, isa.chip, lint.check; sys.exit(bool({'torch', 'numpy', 'lark'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_atomic_write_replaces(tmp_path: Path) -> None:
    """Breaks when an existing file is not replaced as a whole."""
    target = tmp_path / "x"
    files.write_atomic(target, [b"long content"])
    files.write_atomic(target, [b"a", b"b"])
    assert target.read_bytes() == b"ab"


def test_plan_records_and_custom_chip_survive() -> None:
    """Breaks when enumerations or a user's chip change on the way through the file."""
    chip = Chip(name="mine", sram=Sram(1000))
    image = Image(bytes(16), plan=(PlanRecord("b", Space.ACC, 64, 64, 0, 0),), chip=chip)
    loaded = read_image(image_bytes(image))
    assert loaded.plan[0].space is Space.ACC
    assert loaded.chip == chip
