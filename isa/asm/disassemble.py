"""Images to assembly text.

    vset v=v3, space=acc, dtype=i32, base=0x0, rs=768            ; 0x00a0
    mm c=v3, a=v1, w=v2, m=128, n=768, k=384 @ ldw<=0            ; 0x00b0 c=acc[0x0:0x60000] i32 128x768 <scores>, a=...

`disassemble` gives everything that a file holds, `disassemble_code` what a person reads on a terminal.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from isa.architecture import IMAGE_REGIONS, ISA_VERSION, Region
from isa.asm.listing import lines, node_title, on_one_line
from isa.asm.text import format_record
from isa.files import write_atomic
from isa.image.container import Data
from isa.image.image import Image

INLINE_BYTES = 4096  # data of this size or more stands in a file of its own
_HEX_LINE = 32
INDENT = "  "
_COMMENT_COLUMN = 72


def disassemble(image: Image, stem: str = "program") -> tuple[str, dict[str, Data]]:
    """The whole image as text, and the data files that it includes by name."""
    return "\n".join(listing(image, stem)) + "\n", data_files(image, stem)


def write_listing(image: Image, path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Write the text to `path` and the data files beside it; gives back all paths written."""
    target = Path(path)
    for name, data in data_files(image, target.stem).items():
        write_atomic(target.with_name(name), [data])
    write_atomic(target, (f"{line}\n".encode() for line in listing(image, target.stem)))
    return listing_paths(image, path)


def listing_paths(image: Image, path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """What `write_listing` writes."""
    target = Path(path)
    return target, *(target.with_name(name) for name in data_files(image, target.stem))


def data_files(image: Image, stem: str) -> dict[str, Data]:
    return {
        f"{stem}.{region.name.lower()}.bin": image.data(region)
        for region in IMAGE_REGIONS
        if len(image.data(region)) >= INLINE_BYTES
    }


def listing(image: Image, stem: str = "program") -> Iterator[str]:
    """The lines of `disassemble`, made one at a time."""
    yield f".isa {ISA_VERSION}"
    yield f".chip {format_record(image.chip, keep=True)}"
    if not image.debug.nodes:
        yield ".lines off"  # or the assembler would make a debug map of this text
    yield from _regions(image, stem)
    for entry in image.entries:
        yield f".entry name={_json(entry.name)}, pc={entry.pc:#x}"
        for name, records in (("input", entry.inputs), ("output", entry.outputs), ("scalar", entry.scalars)):
            yield from (f".{name} {format_record(record)}" for record in records)
    for name, tensors in (("state", image.states), ("constant", image.constants)):
        yield from (f".{name} {format_record(tensor)}" for tensor in tensors)
    for key, value in image.metadata.items():
        yield f".meta {_json(key)}={_json(value)}"
    yield ""
    yield from disassemble_code(image)
    yield ""
    yield from (f".plan {format_record(record)}" for record in image.plan)
    for number, node in enumerate(image.debug.nodes):
        yield f".node {format_record(node)} ; {number}"
    yield from (f".probe {format_record(probe)}" for probe in image.debug.probes)
    yield from (f".span {format_record(span)}" for span in image.debug.spans)


def disassemble_code(image: Image, first: int = 0, end: int | None = None) -> Iterator[str]:
    """The instructions at first <= pc < end, loops indented, with addresses, views, nodes and source lines as
    comments."""
    nodes, shown = image.debug.nodes, ""
    stop = len(image.code) if end is None else end
    for line in lines(image):
        if line.pc >= stop:
            return
        if line.pc < first:
            continue
        for name in line.entries:
            shown = on_one_line(name)  # the label of an entry is not said twice
            yield f"; ==== entry {shown}"
        title = node_title(nodes[line.nodes[0]], len(line.nodes) - 1) if line.nodes else ""
        indent = INDENT * line.depth
        if title and title != shown:
            shown = title
            yield f"{indent}; ---- {title}"
        yield f"{indent + line.text:<{_COMMENT_COLUMN}} ; {line.pc:#06x} {line.comment}".rstrip()


def _regions(image: Image, stem: str) -> Iterator[str]:
    for region in Region:
        data, size, name = image.data(region), image.size(region), region.name.lower()
        if not size:
            continue
        if len(data) >= INLINE_BYTES:
            yield f".region {name} bytes={size:#x}, file={_json(f'{stem}.{name}.bin')}"
        else:
            yield f".region {name} bytes={size:#x}"
            yield from (f'.hex {name} "{bytes(data[i : i + _HEX_LINE]).hex()}"' for i in range(0, len(data), _HEX_LINE))


def _json(value: object) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()
