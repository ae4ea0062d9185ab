"""The bytes of an image file: header, section table, sections, and a checksum over every bit of them.

    header (160 bytes) | section table (72 bytes per section) | padding | section | padding | section ...

Little endian. The header's checksum covers the header, its table checksum the table, each table row the
bytes of its section; padding must be zero and the length of the file is in the header. So any changed bit is found.
"""

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from isa.architecture import ISA_VERSION
from isa.errors import ImageError
from isa.spec import HEADER, ISA

MAGIC = b"LLMCHIP\x1a"
FORMAT_VERSION = 1
ALIGN = 64  # of every section, so that numpy can use it in place
MAX_SECTIONS = 64
_HEADER = struct.Struct(
    "<8sIIIIQ32s32s32s"
)  # magic, format, ISA version, sections, 0, file size, ISA table, chip, section table
_DIGEST = 32
HEADER_BYTES = _HEADER.size + _DIGEST
_ROW = struct.Struct("<24sQQ32s")  # name, offset, size, sha256

Data = bytes | bytearray | memoryview
DAMAGED = "the file is damaged; compile it again or copy it again"


@dataclass(frozen=True, slots=True)
class Header:
    """What can be known about an image before any section is read."""

    isa_version: int
    isa_hash: bytes
    chip_hash: bytes
    sections: int
    file_size: int
    table_digest: bytes


@dataclass(frozen=True, slots=True)
class Section:
    """A row of the section table."""

    name: str
    offset: int
    size: int
    sha256: bytes

    @property
    def end(self) -> int:
        return self.offset + self.size


@lru_cache
def table_hash() -> bytes:
    """sha256 of everything in the ISA table that changes what an instruction means to hardware: not its prose, costs or
    defaults."""

    def describe(field: object) -> list[object]:
        names = ("name", "bits", "kind", "choices", "access", "dims", "dtypes", "spaces", "when")
        return [repr(getattr(field, name)) for name in names]

    rows = [
        [row.mnemonic, row.opcode, row.engine.value, [describe(f) for f in row.fields]]
        for row in ISA.values()
        if not row.extension
    ]
    return hashlib.sha256(msgspec.json.encode([[describe(f) for f in HEADER], rows])).digest()


def pack(sections: Mapping[str, Data], chip_digest: bytes) -> Iterator[Data]:
    """The file, piece by piece; the sections themselves are passed on, not copied."""
    offset = _aligned(HEADER_BYTES + _ROW.size * len(sections))
    first, rows = offset, []
    for name, data in sections.items():
        rows.append(_ROW.pack(name.encode(), offset, len(data), hashlib.sha256(data).digest()))
        offset = _aligned(offset + len(data))
    table = b"".join(rows)
    head = _HEADER.pack(
        MAGIC,
        FORMAT_VERSION,
        ISA_VERSION,
        len(sections),
        0,
        offset,
        table_hash(),
        chip_digest,
        hashlib.sha256(table).digest(),
    )
    yield head + hashlib.sha256(head).digest() + table
    yield bytes(first - HEADER_BYTES - len(table))
    for data in sections.values():
        yield data
        yield bytes(_aligned(len(data)) - len(data))


def unpack(data: memoryview, where: str) -> tuple[Header, dict[str, memoryview]]:
    """Header and sections of a file, every bit verified. Allocates nothing that depends on a length in the file. Raises
    ImageError when a bit is wrong or the length is."""
    header = read_header(data, where)
    if header.file_size != len(data):
        problem = "truncated" if len(data) < header.file_size else "longer than it should be"
        raise ImageError(f"the image is {problem}: {len(data)} bytes instead of {header.file_size}", where, DAMAGED)
    table = _section_table(data, header, where)
    _check_padding(data, header, table, where)
    for section in table:
        if hashlib.sha256(data[section.offset : section.end]).digest() != section.sha256:
            raise ImageError(f"section {section.name}: checksum mismatch", where, DAMAGED)
    return header, {section.name: data[section.offset : section.end] for section in table}


def read_header(data: Data, where: str) -> Header:
    """The header, its checksum verified, of a file for this version of the ISA. Raises ImageError for another file, a
    damaged header, and one of another version."""
    if bytes(data[: len(MAGIC)]) != MAGIC:
        raise ImageError(
            "this is not an llmchip image (header: wrong magic bytes)",
            where,
            "images are made by 'llmcc compile' or 'llmcc asm'",
        )
    if len(data) < HEADER_BYTES:
        raise ImageError(f"the image is truncated in its header: {len(data)} bytes of {HEADER_BYTES}", where, DAMAGED)
    head = bytes(data[: _HEADER.size])
    _, version, isa_version, sections, zero, size, isa_hash, chip_digest, table_digest = _HEADER.unpack(head)
    if hashlib.sha256(head).digest() != bytes(data[_HEADER.size : HEADER_BYTES]):
        raise ImageError("header: checksum mismatch", where, DAMAGED)
    if version != FORMAT_VERSION or zero:
        raise ImageError(
            f"header: image format {version}; this llmchip reads format {FORMAT_VERSION}",
            where,
            "compile the model again",
        )
    if isa_version != ISA_VERSION:
        raise ImageError(
            f"header: made for ISA version {isa_version}; this llmchip has version {ISA_VERSION}",
            where,
            "compile the model again",
        )
    if isa_hash != table_hash():
        raise ImageError(
            f"header: made with another ISA table (hash {isa_hash.hex()[:12]}, here {table_hash().hex()[:12]})",
            where,
            "compile the model again",
        )
    return Header(isa_version, isa_hash, chip_digest, sections, size, table_digest)


def _section_table(data: memoryview, header: Header, where: str) -> Sequence[Section]:
    end = HEADER_BYTES + _ROW.size * header.sections
    if header.sections > MAX_SECTIONS or end > len(data):
        raise ImageError(f"header: {header.sections} sections do not fit", where, DAMAGED)
    if hashlib.sha256(data[HEADER_BYTES:end]).digest() != header.table_digest:
        raise ImageError("section table: checksum mismatch", where, DAMAGED)
    table = []
    for raw_name, offset, size, digest in _ROW.iter_unpack(data[HEADER_BYTES:end]):
        name = raw_name.rstrip(b"\0").decode("ascii", "replace")
        if offset < end or offset % ALIGN or offset + size > len(data):
            raise ImageError(
                f"section table: section {name} [{offset}, {offset + size}) leaves the file", where, DAMAGED
            )
        table.append(Section(name, offset, size, digest))
    return table


def _check_padding(data: memoryview, header: Header, table: Sequence[Section], where: str) -> None:
    """Whatever lies between header, sections and the end of the file must be short and zero."""
    position, before = HEADER_BYTES + _ROW.size * header.sections, "section table"
    for section in (*table, Section("end of file", len(data), 0, b"")):
        gap = data[position : section.offset]
        if not 0 <= section.offset - position < ALIGN:
            raise ImageError(f"section table: section {section.name} is not where it should be", where, DAMAGED)
        if any(gap):
            raise ImageError(f"padding between {before} and {section.name}: not zero", where, DAMAGED)
        position, before = section.end, f"section {section.name}"


def _aligned(offset: int) -> int:
    return -(-offset // ALIGN) * ALIGN
