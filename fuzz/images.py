"""Corrupted image files: raw damage, which a checksum must catch, and damage with the checksums made right, which goes
deeper."""

import contextlib
import hashlib
import random
import struct

import numpy as np

from fuzz.mutate import INTERESTING, damage, damage_text, flip_bits, number, pieces
from fuzz.samples import program, sample
from isa.asm.assemble import assemble
from isa.asm.disassemble import disassemble
from isa.chip import chip_hash, read_toml
from isa.errors import Error
from isa.image.container import ALIGN, HEADER_BYTES
from isa.image.image import Image, image_bytes, read_image
from lint.analyse import lint
from runtime.debug.session import Session
from runtime.device.arrays import host_dtype, to_user

WORDS = 2000  # executed of a program; more would only be more of the same
DECLARED = 64 << 20  # an image that asks for more memory than this is read and printed, not run
_HEADER, _ROW = struct.Struct("<8sIIIIQ32s32s32s"), struct.Struct("<24sQQ32s")
Sections = list[tuple[bytes, bytes]]


def make_image(rng: random.Random) -> bytes:
    image = sample() if rng.random() < 0.7 else program(rng)
    data = image_bytes(image)
    kind = rng.random()
    if kind < 0.25:
        return b"raw" + damage(rng, data)
    return b"sum" + (_repacked(rng, _sections(data)) if kind < 0.85 else _rechecked(rng, data))


def _sections(data: bytes) -> Sections:
    count = _HEADER.unpack(data[: _HEADER.size])[3]
    rows = _ROW.iter_unpack(data[HEADER_BYTES : HEADER_BYTES + count * _ROW.size])
    return [(name, data[offset : offset + size]) for name, offset, size, _ in rows]


def _repacked(rng: random.Random, sections: Sections) -> bytes:
    """Sections damaged, dropped, doubled or exchanged, in a container that is right again."""
    for _ in range(rng.randint(1, 3)):
        where = rng.randrange(len(sections))
        name, data = sections[where]
        kind = rng.randrange(12)
        if kind == 0:
            sections = sections[:where] + sections[where + 1 :] or sections
        elif kind == 1:
            sections = [*sections, (name, data)]
        elif kind == 2:
            sections[where] = (rng.choice(sections)[0], data)
        elif data[:1] in (b"{", b"["):
            sections[where] = (name, _damaged_json(rng, data))
        else:
            sections[where] = (name, rng.choice((flip_bits, pieces))(rng, data))
    return _packed(sections)


def _damaged_json(rng: random.Random, data: bytes) -> bytes:
    text = data.decode("utf-8", "replace")
    numbers = [i for i, c in enumerate(text) if c.isdigit()]
    if numbers and rng.random() < 0.7:
        at = rng.choice(numbers)
        end = at
        while end < len(text) and text[end].isdigit():
            end += 1
        text = text[:at] + number(rng) + text[end:]
    else:
        text = damage_text(rng, text)
    return text.encode("utf-8", "replace")


def _packed(sections: Sections) -> bytes:
    """The container, with all checksums right, and the chip's hash too if the chip is one."""
    offset = _aligned(HEADER_BYTES + _ROW.size * len(sections))
    rows, body = [], b""
    for name, data in sections:
        rows.append(_ROW.pack(name, offset + len(body), len(data), hashlib.sha256(data).digest()))
        body += data + bytes(_aligned(len(data)) - len(data))
    table = b"".join(rows)
    good = image_bytes(sample())
    magic, version, isa_version, _, zero, _, isa_hash, chip_digest, _ = _HEADER.unpack(good[: _HEADER.size])
    chip = next((data for name, data in sections if name.rstrip(b"\0") == b"chip"), b"")
    with contextlib.suppress(Error, UnicodeDecodeError):
        chip_digest = chip_hash(read_toml(chip.decode(), "chip"))
    size = offset + len(body)
    head = _HEADER.pack(
        magic, version, isa_version, len(sections), zero, size, isa_hash, chip_digest, hashlib.sha256(table).digest()
    )
    gap = bytes(offset - HEADER_BYTES - len(table))
    return head + hashlib.sha256(head).digest() + table + gap + body


def _rechecked(rng: random.Random, data: bytes) -> bytes:
    """Header fields and section table rows changed, their checksums made right again."""
    fields = list(_HEADER.unpack(data[: _HEADER.size]))
    count = fields[3]
    table = bytearray(data[HEADER_BYTES : HEADER_BYTES + count * _ROW.size])
    row = rng.randrange(count) * _ROW.size
    struct.pack_into(
        "<Q", table, row + rng.choice((24, 32)), abs(rng.choice((*INTERESTING, rng.randrange(len(data))))) % 2**64
    )
    if rng.random() < 0.3:
        fields[rng.choice((1, 2, 3, 4))] = rng.choice((0, 1, 2, 7, 63, 64, 65, 2**31, 2**32 - 1))
    if rng.random() < 0.2:
        fields[5] = abs(rng.choice(INTERESTING)) % 2**64
    fields[8] = hashlib.sha256(table).digest()
    head = _HEADER.pack(*fields)
    return head + hashlib.sha256(head).digest() + bytes(table) + data[HEADER_BYTES + len(table) :]


def _aligned(offset: int) -> int:
    return -(-offset // ALIGN) * ALIGN


def run_image(case: bytes) -> None:
    data = case[3:]
    image = read_image(data, "case")
    if case[:3] == b"raw" and data not in (image_bytes(sample()), image_bytes(image)):
        raise AssertionError("a changed file was accepted")
    exercise(image)


def exercise(image: Image) -> None:
    """Everything that reads an image."""
    text, files = disassemble(image)
    if not files and read_image(image_bytes(image)) == image:
        again = assemble(text, "again")
        assert image_bytes(again) == image_bytes(image), "assemble(disassemble(image)) differs"
    declared = sum(image.sizes) + image.chip.sram.bytes + image.chip.acc.bytes
    if declared > DECLARED or sum(t.elements for e in image.entries for t in (*e.inputs, *e.outputs)) > DECLARED:
        return
    lint(image)  # however long its loops are
    execute(image)


def execute(image: Image) -> None:
    entry = image.entry()
    inputs = {spec.name: np.zeros(spec.shape, host_dtype(spec.dtype)) for spec in entry.inputs}
    session = Session(image, inputs, scalars={s.name: max(s.minimum, min(s.maximum, 3)) for s in entry.scalars})
    session.step(WORDS)
    for spec in entry.outputs:
        to_user(spec, session.stepper.device.tensor(spec))
    for index in range(len(image.debug.nodes[:4])):
        try:
            session.collect(index)
        except Error:
            continue
