"""Files of sessions come from strangers: one clear line for each that is not whole, and not ours."""

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from families import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

import llmchip
from llmchip import DecoderProgram, InputError

HEAD, DIGEST = 48, 32
IDS = torch.tensor([[5, 9, 3, 11]])


@pytest.fixture(scope="module")
def program() -> DecoderProgram:
    return llmchip.compile(tiny("llama", num_hidden_layers=1), {"input_ids": IDS}, max_length=16)


@pytest.fixture(scope="module")
def saved(program: DecoderProgram, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    session, path = program.new_session(), tmp_path_factory.mktemp("session") / "talk"
    session.prefill(IDS)
    session.save(path)
    return path.read_bytes()


def signed(data: bytes) -> bytes:
    """With the checksum that the bytes should have: what a malicious writer would make."""
    return data[:-DIGEST] + hashlib.sha256(data[:-DIGEST]).digest()


def refusal(program: DecoderProgram, path: Path, data: bytes) -> str:
    path.write_bytes(data)
    session = program.new_session()
    session.prefill(IDS)
    with pytest.raises(InputError) as raised:
        session.load(path)
    assert session.length == 4
    session.decode([1])  # it is still usable
    return str(raised.value)


@pytest.mark.wide
def test_what_a_file_may_not_be(program: DecoderProgram, saved: bytes, tmp_path: Path) -> None:
    """Breaks when a size, a length, a token or the program of a file is believed."""
    path = tmp_path / "talk"
    for data, words in (
        (b"", "this is no session"),
        (b"MZ" + saved[2:], "this is no session"),
        (saved[:40], "truncated"),
        (saved[:-1], "checksum"),
        (saved[:60] + b"\x99" + saved[61:], "checksum"),
        (saved + bytes(1 << 16), "larger than"),
        (signed(saved[:8] + struct.pack("<I", 9) + saved[12:]), "format 9"),
        (signed(saved[:12] + struct.pack("<I", 2) + saved[16:]), "another program"),
        (signed(saved[:16] + bytes(32) + saved[48:]), "another program"),
        (signed(saved[:HEAD] + struct.pack("<I", 17) + saved[HEAD + 4 :]), "17 tokens; the cache has 16"),
        (signed(saved[:HEAD] + struct.pack("<I", 0xFFFFFFFF) + saved[HEAD + 4 :]), "tokens; the cache has 16"),
        (signed(saved[:HEAD] + struct.pack("<I", 5) + saved[HEAD + 4 :]), "another size"),
        (signed(saved[: HEAD + 4] + struct.pack("<i", -1) + saved[HEAD + 8 :]), "outside the vocabulary"),
    ):
        found = refusal(program, path, data)
        assert words in found
        assert "\n" not in found
    with pytest.raises(InputError, match="cannot read the session: No such file"):
        program.new_session().load(tmp_path / "nothing")
    with pytest.raises(InputError, match="not a regular file"):
        program.new_session().load(tmp_path)
    with pytest.raises(InputError, match="cannot write the session"):
        program.new_session().save(tmp_path / "no" / "folder")


def test_another_models_session_is_refused(saved: bytes, tmp_path: Path) -> None:
    """Breaks when a session is taken by a program whose weights are others."""
    other = llmchip.compile(tiny("llama", 1, num_hidden_layers=1), {"input_ids": IDS}, max_length=16)
    (tmp_path / "talk").write_bytes(saved)
    with pytest.raises(InputError, match="belongs to another program"):
        other.new_session().load(tmp_path / "talk")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_changed_bit_is_found(
    program: DecoderProgram, saved: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Breaks when a part of the file is not under the checksum."""
    at, bit = data.draw(st.integers(0, len(saved) - 1)), data.draw(st.integers(0, 7))
    changed = bytearray(saved)
    changed[at] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "changed"
    path.write_bytes(changed)
    with pytest.raises(InputError):
        program.new_session().load(path)


def test_an_empty_session_is_a_file_too(program: DecoderProgram, tmp_path: Path) -> None:
    """Breaks when no rows are taken for no caches."""
    program.new_session().save(tmp_path / "talk")
    session = program.new_session()
    session.prefill(IDS)
    session.load(tmp_path / "talk")
    assert session.length == 0
    assert np.array_equal(session.prefill(IDS), program.new_session().prefill(IDS))
