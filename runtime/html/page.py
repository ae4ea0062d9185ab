"""One HTML file that shows a program: model source, graph and assembly side by side, and the memories over time.

The file is complete: data, style and script are inside, and its own policy forbids it to load anything. The
scripts in listing/ draw what `report_data` says; rows outside the window are only made when they are scrolled to, so long programs open at
once.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib import resources
from keyword import kwlist
from typing import Any

import msgspec

from isa.architecture import ISA_VERSION, WORD_BYTES, Engine, Space
from isa.asm.listing import Line, lines, operation, source_place
from isa.image.image import Image
from isa.image.records import DebugNode, PlanRecord
from runtime.listing.disassembly import fused_into
from runtime.profile.instructions import STALLS, by_instruction
from runtime.profile.run import Run

# The page's scripts, in order: each uses those before it.
SCRIPTS = (
    "data", "colour", "pane", "cycles", "rows", "highlight", "memory", "header", "columns", "keys", "follow",
)  # fmt: skip
ENGINES = tuple(engine.value for engine in Engine)


def page(image: Image, title: str, run: Run | None = None) -> str:
    """The whole file, with the cycles of a timing run beside the instructions. Its address may name what it shows first:
    `#node=NAME` or `#pc=0x40`."""
    data = msgspec.json.encode(report_data(image, title, run)).decode()
    parts = {
        "TITLE": escape(title),
        "STYLE": _part("page.css"),
        "SCRIPT": "</script>\n<script>".join(_part(f"{name}.js") for name in SCRIPTS),
        "DATA": inside_script(data),
    }
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda match: parts[match[1]], _part("page.html"))


@cache
def _part(name: str) -> str:
    return (resources.files("runtime.html.listing") / name).read_text(encoding="utf-8")


def inside_script(data: str) -> str:
    """JSON in which nothing can end the script element or begin a comment of it."""
    return (
        data.replace("<", "\\u003c").replace(">", "\\u003e").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    )


def report_data(image: Image, title: str, run: Run | None = None) -> dict[str, Any]:
    """What the page shows, as plain values."""
    nodes = image.debug.nodes
    numbers = {node.name: number for number, node in enumerate(nodes)}
    fused, computed_by = fused_into(image), _computed_by(nodes)
    files = tuple(dict.fromkeys(node.file for node in nodes if node.line))
    listing = list(lines(image))
    code = [_instruction(line) for line in listing]
    return {
        "title": title,
        "isa": ISA_VERSION,
        "chip": image.chip.name,
        "words": image.words,
        "wordBytes": WORD_BYTES,
        "engines": ENGINES,
        "keywords": kwlist,
        "cycles": None if run is None else _cycles(image, run),
        "memories": {"SRAM": image.chip.sram.bytes, "ACC": image.chip.acc.bytes},
        "files": [{"name": _short(file), "lines": source_lines(file, nodes)} for file in files],
        "nodes": [_node(node, files, numbers, fused, computed_by) for node in nodes],
        "code": code,
        "loops": _loops(listing),
        "plan": [_buffer(record, numbers, code) for record in image.plan if record.space is not Space.DRAM],
    }


def _cycles(image: Image, run: Run) -> dict[str, Any]:
    """What listing/cycles.js shows: a row for each instruction, null for those that were never executed."""
    found = by_instruction(run)
    rows = [
        [here.executed, here.work, here.stall, here.causes, here.waits_for // WORD_BYTES, here.charged]
        if here
        else None
        for here in (found.get(pc) for pc in range(0, image.words * WORD_BYTES, WORD_BYTES))
    ]
    return {"total": run.cycles, "causes": STALLS, "rows": rows}


def _instruction(line: Line) -> list[Any]:
    engine = ENGINES.index(line.engine.value) if line.engine else -1
    return [line.raw[::-1].hex(), line.depth, line.text, line.comment, list(line.nodes), engine, " ".join(line.entries)]


def _loops(listing: Sequence[Line]) -> list[list[Any]]:
    """First and last instruction of each loop's body, and how often it runs."""
    found = []
    for number, line in enumerate(listing):
        named = line.inst.named() if line.inst is not None else {}
        if named.get("len"):
            count = f"s{named['s']}" if named["dyn"] else str(named["count"])
            found.append([number + 1, number + named["len"], f"loop {named['level']}: {count} times"])
    return found


def _computed_by(nodes: Sequence[DebugNode]) -> dict[str, str]:
    """For nodes that have no instructions of their own, the node whose instructions compute them."""
    found = {part: node.name for node in nodes for part in node.results}
    for node in nodes:
        target = node.base or next(iter(node.into), "")
        if target:
            found[node.name] = target
    return found


def _node(
    node: DebugNode,
    files: Sequence[str],
    numbers: dict[str, int],
    fused: dict[str, tuple[str, ...]],
    computed_by: dict[str, str],
) -> dict[str, Any]:
    return {
        "name": node.name,
        "op": operation(node),
        "type": f"{node.dtype}[{', '.join(map(str, node.shape))}]" if node.dtype else "",
        "status": node.status,
        "reason": node.reason,
        "file": files.index(node.file) if node.line else -1,
        "line": node.line,
        "place": source_place(node),
        "code": " ".join(node.code.split()),
        "origins": node.origins,
        "passes": node.passes,
        "fused": fused.get(node.name, ()),
        "in": numbers.get(computed_by.get(node.name, ""), -1),
    }


def _buffer(record: PlanRecord, numbers: dict[str, int], code: list[list[Any]]) -> list[Any]:
    """Name, memory, place, time, and the node that the buffer belongs to: the one in its name, else the one that first
    uses it."""
    owner = named_owner(record.name, numbers)
    if owner < 0 and 0 <= record.first < len(code) and code[record.first][4]:
        owner = code[record.first][4][0]
    return [record.name, record.space.name, record.offset, record.bytes, record.first, record.last, owner]


def named_owner(buffer: str, numbers: Mapping[str, int]) -> int:
    """The node that is in a buffer's name; -1 if none is."""
    pieces = buffer.split(".")
    names = (".".join(pieces[first:end]) for first in (0, 1) for end in range(len(pieces), first, -1))
    return next((numbers[name] for name in names if name in numbers), -1)


def source_lines(file: str, nodes: Sequence[DebugNode]) -> list[list[Any]]:
    """`[number, text]` of the lines that nodes come from, as the image holds them; 0 marks a gap.

    Never from the file: the page of a stranger's image would hold lines of whatever file the image names.
    """
    texts: dict[int, str] = {}
    for node in nodes:
        if node.file == file and node.line:
            texts.update(enumerate(node.code.split("\n"), node.line))
    found: list[list[Any]] = []
    for number, text in sorted(texts.items()):
        if found and found[-1][0] != number - 1:
            found.append([0, ""])
        found.append([number, text])
    return found


def _short(file: str) -> str:
    return file.rpartition("site-packages/")[2]
