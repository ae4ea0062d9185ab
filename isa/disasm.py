"""Images to assembly text.

    vset v=v3, space=acc, dtype=i32, base=0x0, rs=768            ; 0x00a0
    mm c=v3, a=v1, w=v2, m=128, n=768, k=384 @ ldw<=0            ; 0x00b0 c=acc[0x0]:i32 128x768, a=...

`disassemble` gives everything that a file holds, `disassemble_code` what a person reads on a terminal.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from isa.codec import IllegalWord, Inst, decode
from isa.container import Data
from isa.files import write_atomic
from isa.image import INITIALISED, Image
from isa.records import DebugNode
from isa.spec import ISA_VERSION, LOOP_LEVELS, WORD_BYTES, Field, Region
from isa.text import format_inst, format_record
from isa.trace import dynamic_extent, view_of
from isa.views import View

INLINE_BYTES = 4096  # data of this size or more stands in a file of its own
_HEX_LINE = 32
_INDENT = "  "
_COMMENT_COLUMN = 72


def disassemble(image: Image, stem: str = "program") -> tuple[str, dict[str, Data]]:
    """The whole image as text, and the data files that it includes by name."""
    return "\n".join(listing(image, stem)) + "\n", data_files(image, stem)


def write_listing(image: Image, path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Write the text to `path` and the data files beside it; gives back all paths written."""
    target = Path(path)
    files = data_files(image, target.stem)
    for name, data in files.items():
        write_atomic(target.with_name(name), [data])
    write_atomic(target, (f"{line}\n".encode() for line in listing(image, target.stem)))
    return target, *(target.with_name(name) for name in files)


def data_files(image: Image, stem: str) -> dict[str, Data]:
    return {f"{stem}.{region.name.lower()}.bin": image.data(region) for region in INITIALISED if len(image.data(region)) >= INLINE_BYTES}


def listing(image: Image, stem: str = "program") -> Iterator[str]:
    """The lines of `disassemble`, made one at a time."""
    yield f".isa {ISA_VERSION}"
    yield f".chip {format_record(image.chip, keep=True)}"
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
    yield from (f".tap {format_record(tap)}" for tap in image.debug.taps)
    yield from (f".span {format_record(span)}" for span in image.debug.spans)


def disassemble_code(image: Image, first: int = 0, end: int | None = None) -> Iterator[str]:
    """The instructions at first <= pc < end, loops indented, with addresses, views, nodes and source lines as comments."""
    names = _node_comments(image)
    entries = {entry.pc: entry.name for entry in image.entries}
    views, shown = ViewTracker(), ""
    loops: list[int] = []
    for pc in range(0, len(image.code), WORD_BYTES):
        loops = [stop for stop in loops if stop > pc]
        word, inst, note = image.word(pc), None, ""
        try:
            inst = decode(word)
        except IllegalWord as error:
            note = str(error)
        indent = _INDENT * len(loops)
        if inst is not None:
            note = views.comment(inst)
            views.step(inst)
            loops = (loops + _loop_ends(inst, pc))[:LOOP_LEVELS]
        if not first <= pc < (len(image.code) if end is None else end):
            continue
        if pc in entries:
            yield f"; ==== entry {entries[pc]}"
        if names and names[pc // WORD_BYTES] not in ("", shown):
            shown = names[pc // WORD_BYTES]
            yield f"{indent}; ---- {shown}"
        text = format_inst(inst) if inst is not None else f".word {int.from_bytes(word, 'little'):#034x}"
        yield f"{indent + text:<{_COMMENT_COLUMN}} ; {pc:#06x} {note}".rstrip()


def describe_inst(inst: Inst, views: Mapping[int, View]) -> str:
    """Each memory operand as `name=place[base]:dtype extents`."""
    named = inst.named()
    parts = []
    for field in inst.row.views:
        view = views.get(named[field.name])
        if named[field.name] and view is not None:
            parts.append(f"{field.name}={view} {_extents(field, named, dynamic_extent(inst))}")
    return ", ".join(parts)


class ViewTracker:
    """View registers as they stand when the text is read from top to bottom: loops at their first iteration."""

    def __init__(self) -> None:
        self.views: dict[int, View] = {}
        self.moves: dict[int, str] = {}

    def step(self, inst: Inst) -> None:
        handler = _TRACKED.get(inst.mnemonic)
        if handler:
            handler(self, inst.named())

    def comment(self, inst: Inst) -> str:
        text = describe_inst(inst, self.views)
        moves = [f"v{register} moves by {self.moves[register]}" for register in sorted(_registers(inst)) if register in self.moves]
        return "; ".join(filter(None, (text, *moves)))

    def define(self, named: Mapping[str, int]) -> None:
        self.views[named["v"]] = view_of(named)
        self.moves.pop(named["v"], None)

    def increment(self, named: Mapping[str, int]) -> None:
        index = f"i{named['level']}" + (f"//{named['div']}" if named["div"] != 1 else "") + (f"%{named['mod']}" if named["mod"] else "")
        self._move(named["v"], f"{named['inc']:#x}*{index}" if named["mod"] != 1 else "0")

    def add(self, named: Mapping[str, int]) -> None:
        self._move(named["v"], f"s{named['s']}*{named['scale']}")

    def _move(self, register: int, text: str) -> None:
        self.moves[register] = f"{self.moves[register]} + {text}" if register in self.moves else text


_TRACKED: dict[str, Callable[[ViewTracker, Mapping[str, int]], None]] = {
    "vset": ViewTracker.define, "vinc": ViewTracker.increment, "vadd": ViewTracker.add,
}  # fmt: skip


def _registers(inst: Inst) -> set[int]:
    return {value for field, value in zip(inst.row.fields, inst.operands, strict=True) if field.access is not None and value}


def _extents(field: Field, named: Mapping[str, int], dynamic: str) -> str:
    dims = next((w.dims for w in field.when if w.dims and named.get(w.field) == w.value), field.dims)
    known = {"1": "1", "g": _groups(named) if "glog" in named else "", dynamic: f"s{named.get('dyn_s')}"}
    texts = [known.get(name) or str(named[name]) for name in dims]
    return "x".join(texts[1:] if texts[0] == "1" else texts)


def _groups(named: Mapping[str, int]) -> str:
    return str(-(-named["k"] // (16 << named["glog"])))


def _loop_ends(inst: Inst, pc: int) -> list[int]:
    named = inst.named()
    return [pc + WORD_BYTES * (1 + named["len"])] if named.get("len") else []


def _node_comments(image: Image) -> list[str]:
    """For each word, what to say about its node; longer spans first, so that the inner one wins."""
    debug = image.debug
    names = [""] * image.words if debug.spans else []
    for span in sorted(debug.spans, key=lambda s: s.first - s.end):
        text = _node_comment(debug.nodes[span.nodes[0]]) + (f" (and {len(span.nodes) - 1} more in this loop)" if len(span.nodes) > 1 else "")
        first, end = max(span.first // WORD_BYTES, 0), min(span.end // WORD_BYTES, image.words)
        names[first:end] = [text] * max(end - first, 0)
    return names


def _node_comment(node: DebugNode) -> str:
    place = f" {node.file}:{node.line}" if node.file else ""
    return " ".join(f"{node.name} ({node.op}){place}{': ' + node.code if node.code else ''}".split())


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
