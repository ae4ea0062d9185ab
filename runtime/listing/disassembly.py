"""What `llmcc disasm` shows: the lines of a program that a filter lets through, as text or as JSON.

    0x00c0  7800600c 00080000 00000e42 71ffff22  gather d=v7, a=v8, idx=v9, n=128, ...    ; d=sram[0x30400:0x60400] f32
    128x384 <hidden>, ...

Text is made line by line and shown line by line; the raw word is one number, most significant digit first, as `.word`
takes it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Protocol

from isa.architecture import ISA_VERSION, NO_WAIT, QUEUES
from isa.asm.listing import Line, lines, node_title, on_one_line, operation, place, source_place
from isa.asm.text import format_float, guess
from isa.errors import InputError
from isa.fields import Kind
from isa.image.image import Image
from isa.image.records import BY_LINE, DebugNode

Paint = Callable[[str, str], str]  # (style, text) -> text
INDENT = "  "
_COLUMN = 62  # where comments begin
_COUNT = 10  # digits and commas of a count of cycles
_GUESSED = 5000  # node names that a mistyped one is compared with


def plain(style: str, text: str) -> str:
    return text


_ANSI = {
    "address": "2",
    "raw": "2",
    "mnemonic": "1",
    "comment": "2;32",
    "symbol": "33",
    "node": "36",
    "source": "1;35",
    "fault": "31",
    "label": "1;33",
}


def ansi(style: str, text: str) -> str:
    """For terminals."""
    return f"\x1b[{_ANSI[style]}m{text}\x1b[0m" if text else text


@dataclass(frozen=True)
class Filter:
    """Which instructions to show; empty fields let everything through. `nodes` are patterns for node names and their
    origins."""

    engines: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    first: int = 0
    end: int | None = None

    def lets(self, line: Line, image: Image) -> bool:
        if self.engines and (line.engine is None or line.engine.value not in self.engines):
            return False
        return not self.nodes or any(self._matches(image.debug.nodes[number]) for number in line.nodes)

    def _matches(self, node: DebugNode) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.nodes for name in (node.name, *node.origins))

    def check(self, image: Image) -> None:
        """Raise InputError for a pattern that matches no node at all."""
        for pattern in self.nodes:
            if not any(Filter(nodes=(pattern,))._matches(node) for node in image.debug.nodes):
                raise InputError(
                    f"no node is called '{pattern}'",
                    "",
                    guess(pattern.strip("*?"), sorted({n.name for n in image.debug.nodes})[:_GUESSED]),
                )


def parse_range(text: str) -> tuple[int, int | None]:
    """`A:B` in decimal or hexadecimal; either may be left out. Raises InputError."""
    first, colon, end = text.partition(":")
    try:
        low = int(first, 0) if first else 0
        high = (int(end, 0) if end else None) if colon else low + 1
    except ValueError:
        raise InputError(
            f"'{text}' is no range of addresses", "", "write --pc 0x40:0x80, the second address excluded"
        ) from None
    return low, high


class Cycles(Protocol):
    """What a timing run says of an instruction (runtime/profile/instructions.py)."""

    @property
    def executed(self) -> int: ...

    @property
    def work(self) -> int: ...

    @property
    def stall(self) -> int: ...


@dataclass(frozen=True)
class Listing:
    """A program and the instructions of it that are shown."""

    image: Image
    chosen: Filter = field(default_factory=Filter)
    cycles: Mapping[int, Cycles] | None = None  # by pc, of a timing run

    def lines(self) -> Iterator[Line]:
        for line in lines(self.image):
            if self.chosen.end is not None and line.pc >= self.chosen.end:
                return
            if line.pc >= self.chosen.first and self.chosen.lets(line, self.image):
                yield line

    @cached_property
    def fused(self) -> dict[str, tuple[str, ...]]:
        return fused_into(self.image)

    def text(self, title: str, *, source: bool = False, paint: Paint = plain) -> Iterator[str]:
        """The lines of a terminal or file."""
        yield on_one_line(
            f"{title}: llmchip image, ISA version {ISA_VERSION}, chip {self.image.chip.name}, {self.image.words} instructions"
        )
        if self.cycles is not None:
            yield paint("comment", f"{'pc':<6}  {'executed':>{_COUNT}} {'cycles':>{_COUNT}} {'stall':>{_COUNT}}")
        shown: tuple[int, ...] = ()
        heading, titled = ("", 0), ""
        for line in self.lines():
            for name in line.entries:
                yield ""
                yield paint("label", f"{line.pc:#06x} <{on_one_line(name)}>:")
                titled = on_one_line(name)  # the label of an entry is not said twice
            if line.nodes and line.nodes != shown:
                shown = line.nodes
                node = self.image.debug.nodes[line.nodes[0]]
                indent = INDENT * line.depth
                if source:
                    yield from (
                        f"{indent}{text}" if text else ""
                        for text in self._source(node, heading, len(line.nodes) - 1, paint)
                    )
                    heading = node.file, node.line
                elif (title := node_title(node, len(line.nodes) - 1)) != titled:
                    titled = title
                    yield paint("node", f"{indent}; ---- {title}")
            yield _text(line, paint, self._counts(line))

    def _timing(self, line: Line) -> dict[str, int]:
        if self.cycles is None:
            return {}
        found = self.cycles.get(line.pc)
        names = ("executed", "work", "stall")
        return dict(
            zip(names, (found.executed, found.work, found.stall) if found is not None else (0, 0, 0), strict=True)
        )

    def _counts(self, line: Line) -> str | None:
        """How often, cycles, stalls; in place of the raw word."""
        if self.cycles is None:
            return None
        found = self.cycles.get(line.pc)
        numbers = (found.executed, found.work, found.stall) if found is not None else (0, 0, 0)
        return " ".join(f"{number:>{_COUNT},}" for number in numbers)

    def _source(self, node: DebugNode, before: tuple[str, int], more: int, paint: Paint) -> Iterator[str]:
        """The user's line, then the node that it became and how."""
        if node.line and (node.file, node.line) != before:
            yield ""
            yield paint("source", on_one_line(f"; {source_place(node)}: {' '.join(node.code.split())}"))
        if node.status == BY_LINE:
            return
        shape = f"{node.dtype}[{','.join(map(str, node.shape))}]"
        others = f", and {more} more nodes in this loop" if more else ""
        yield paint("node", on_one_line(f"; ---- {node.name} = {operation(node)} {shape}, {node.status}{others}"))
        made = [f"captured as {', '.join(node.origins)}"] if node.origins and node.origins != (node.name,) else []
        made += [f"made by {', '.join(node.passes)}"] if node.passes else []
        made += [f"fused from {', '.join((*self.fused[node.name], node.name))}"] if node.name in self.fused else []
        if made:
            yield paint("node", on_one_line(f";      {'; '.join(made)}"))

    def document(self, file: str) -> dict[str, Any]:
        """One JSON document."""
        image, used = self.image, set[int]()
        code = []
        for line in self.lines():
            used.update(line.nodes)
            code.append(_instruction(line, image) | self._timing(line))
        return {
            "file": file,
            "isa": ISA_VERSION,
            "chip": image.chip.name,
            "words": image.words,
            "entries": [{"name": entry.name, "pc": entry.pc} for entry in image.entries],
            "nodes": {image.debug.nodes[n].name: _node(image.debug.nodes[n], self.fused) for n in sorted(used)},
            "code": code,
        }


def fused_into(image: Image) -> dict[str, tuple[str, ...]]:
    """The nodes that have no code of their own because they are computed with another, by that other's name."""
    found: dict[str, tuple[str, ...]] = {}
    for node in image.debug.nodes:
        for target in node.into if node.status == "fused" else ():
            found[target] = (*found.get(target, ()), node.name)
    return found


def raw_groups(line: Line) -> str:
    digits = line.hex[2:]
    return " ".join(digits[i : i + 8] for i in range(0, len(digits), 8))


def _text(line: Line, paint: Paint, counts: str | None = None) -> str:
    indent = INDENT * line.depth
    mnemonic, space, rest = line.text.partition(" ")
    gap = " " * max(_COLUMN - len(indent) - len(line.text), 1)
    style = "fault" if line.inst is None else "mnemonic"
    beside = paint("raw", raw_groups(line)) if counts is None else counts
    comment = line.comment
    shown = paint("fault" if line.fault else "comment", f"; {comment}") if comment else ""
    code = f"{paint('address', f'{line.pc:#06x}')}  {beside}  {indent}{paint(style, mnemonic)}{space}{rest}"
    return f"{code}{gap}{shown}" if shown else code


def _instruction(line: Line, image: Image) -> dict[str, Any]:
    instruction: dict[str, Any] = {
        "pc": line.pc,
        "raw": line.hex,
        "text": line.text,
        "depth": line.depth,
        "nodes": [image.debug.nodes[n].name for n in line.nodes],
    }
    if line.inst is None:
        return instruction | {"fault": line.fault}
    row = line.inst.row
    operands: dict[str, Any] = {}
    for spec, value in zip(row.fields, line.inst.operands, strict=True):
        operands[spec.name] = (
            spec.choices[value] if spec.choices else format_float(value) if spec.kind is Kind.F32 else value
        )
    views = [
        {
            "operand": o.name,
            "memory": place(o.view),
            "first": o.view.base,
            "end": o.end or None,
            "dtype": o.view.dtype.name.lower(),
            "shape": o.shape,
            "strides": [o.view.ps, o.view.rs, o.view.cs],
            "symbol": o.symbol or None,
        }
        for o in line.operands
    ]
    waits = {queue.value: count for queue, count in zip(QUEUES, line.inst.deps, strict=True) if count != NO_WAIT}
    return instruction | {
        "mnemonic": row.mnemonic,
        "engine": row.engine.value,
        "operands": operands,
        "waits": waits,
        "views": views,
        "notes": list(line.notes),
    }


def _node(node: DebugNode, fused: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    return {
        "op": operation(node),
        "shape": list(node.shape),
        "dtype": node.dtype,
        "status": node.status,
        "file": node.file,
        "line": node.line,
        "code": node.code,
        "origins": list(node.origins),
        "passes": list(node.passes),
        "fused_from": list(fused.get(node.name, ())),
    }
