"""The program read from top to bottom, one `Line` per instruction: what every way of showing it (text, JSON, HTML,
diff) is made from.

    for line in lines(image):    line.pc, line.inst, line.depth, line.node, line.operands, line.comment

Lines are made one at a time, so that a long program starts printing at once.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter

from isa.architecture import LOOP_LEVELS, WORD_BYTES, Engine, Region, Space
from isa.asm.text import format_inst
from isa.codec import IllegalInstruction, Inst, decode
from isa.fields import Field
from isa.image.image import Image
from isa.image.records import BY_LINE, DebugNode, PlanRecord, TensorSpec
from isa.replay import dynamic_extent, view_of
from isa.shown import shown
from isa.views import Extents, View, extents_of

_PACKAGES = "site-packages/"


@dataclass(frozen=True, slots=True)
class Operand:
    """A memory operand of an instruction. `end` is one past its last byte, 0 when an extent is only known at run
    time."""

    name: str
    view: View
    end: int
    shape: str
    symbol: str = ""

    def __str__(self) -> str:
        upto = f":{self.end:#x}" if self.end else ":?"
        label = f" <{self.symbol}>" if self.symbol else ""
        return f"{self.name}={place(self.view)}[{self.view.base:#x}{upto}] {self.view.dtype.name.lower()} {self.shape}{label}"


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction. `inst` is None for bits that are no instruction; `fault` then says why. `depth` counts the loops
    around it."""

    pc: int
    raw: bytes
    inst: Inst | None
    fault: str = ""
    depth: int = 0
    nodes: tuple[int, ...] = ()
    entries: tuple[str, ...] = ()
    operands: tuple[Operand, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The instruction as the assembler reads it."""
        return format_inst(self.inst) if self.inst is not None else f".word {self.hex}"

    @property
    def hex(self) -> str:
        return f"{int.from_bytes(self.raw, 'little'):#034x}"

    @property
    def engine(self) -> Engine | None:
        return self.inst.row.engine if self.inst is not None else None

    @property
    def comment(self) -> str:
        return "; ".join(filter(None, (self.fault, ", ".join(map(str, self.operands)), *self.notes)))


def lines(image: Image) -> Iterator[Line]:
    """Every instruction of the image, in order."""
    nodes = nodes_by_instruction(image)
    entries: dict[int, tuple[str, ...]] = {}
    for entry in image.entries:
        entries[entry.pc] = (*entries.get(entry.pc, ()), entry.name)
    tracker, loops = ViewTracker(Symbols(image)), list[int]()
    for pc in range(0, len(image.code) - len(image.code) % WORD_BYTES, WORD_BYTES):
        loops = [stop for stop in loops if stop > pc]
        raw, about, names = image.word(pc), nodes[pc // WORD_BYTES] if nodes else (), entries.get(pc, ())
        try:
            inst = decode(raw)
        except IllegalInstruction as error:
            yield Line(pc, raw, None, str(error), len(loops), about, names)
            continue
        operands = tracker.operands(pc // WORD_BYTES, inst) if inst.row.views else ()
        yield Line(pc, raw, inst, "", len(loops), about, names, operands, tracker.notes(inst))
        tracker.step(inst)
        loops = (loops + _loop_ends(inst, pc))[:LOOP_LEVELS]


def place(view: View) -> str:
    """The memory that a view lies in."""
    return f"dram.{view.region.name.lower()}" if view.space is Space.DRAM else view.space.name.lower()


def nodes_by_instruction(image: Image) -> list[tuple[int, ...]]:
    """For each instruction the nodes of its span; longer spans first, so that the inner one wins. Empty without a debug
    map."""
    if not image.debug.spans:
        return []
    found: list[tuple[int, ...]] = [()] * image.words
    for span in sorted(image.debug.spans, key=lambda s: s.first - s.end):
        first, end = max(span.first // WORD_BYTES, 0), min(span.end // WORD_BYTES, image.words)
        if first < end:
            found[first:end] = [span.nodes] * (end - first)
    return found


def node_title(node: DebugNode, more: int = 0) -> str:
    """One line about a node: name, operation, the user's line. Of a line of assembly, which says no more than the
    instruction: its label."""
    if node.status == BY_LINE:
        return on_one_line("".join(node.origins))
    where = f" {source_place(node)}" if node.line else ""
    code = f": {node.code}" if node.code else ""
    others = f" (and {more} more in this loop)" if more else ""
    return on_one_line(" ".join(f"{node.name} ({operation(node)}){where}{code}{others}".split()))


def operation(node: DebugNode) -> str:
    """The node's operation; Python's own functions without their decoration."""
    return node.op.removeprefix("<built-in function ").removesuffix(">") if node.op.startswith("<") else node.op


def source_place(node: DebugNode) -> str:
    """`file:line`; of files in a package, from the package on."""
    return f"{node.file.rpartition(_PACKAGES)[2]}:{node.line}" if node.line else ""


class Symbols:
    """Names of addresses: buffers of the memory plan while they live, tensors of the DRAM regions. Asked in program
    order."""

    def __init__(self, image: Image) -> None:
        self._waiting = sorted(image.plan, key=attrgetter("first"), reverse=True)
        self._live: list[PlanRecord] = []
        tensors = [t for entry in image.entries for t in (*entry.inputs, *entry.outputs)] + [
            *image.states,
            *image.constants,
        ]
        self._tensors: dict[Region, list[TensorSpec]] = {
            r: sorted((t for t in tensors if t.region is r), key=attrgetter("offset")) for r in Region
        }
        self._offsets = {region: [t.offset for t in found] for region, found in self._tensors.items()}

    def at(self, instruction: int, view: View) -> str:
        """The name of the byte where the view begins, or ""."""
        while self._waiting and self._waiting[-1].first <= instruction:
            self._live.append(self._waiting.pop())
        if any(record.last < instruction for record in self._live):
            self._live = [record for record in self._live if record.last >= instruction]
        for record in reversed(self._live):
            same = record.space is view.space and (view.space is not Space.DRAM or record.region is view.region)
            if same and record.offset <= view.base < record.offset + max(record.bytes, 1):
                return _offset(record.name, view.base - record.offset)
        return self.tensor(view) if view.space is Space.DRAM else ""

    def tensor(self, view: View) -> str:
        index = bisect_right(self._offsets[view.region], view.base) - 1
        if index < 0:
            return ""
        tensor = self._tensors[view.region][index]
        inside = view.base < tensor.offset + max(tensor.nbytes, 1)
        return _offset(tensor.name, view.base - tensor.offset) if inside else ""


class ViewTracker:
    """View registers as they stand when the text is read from top to bottom: loops at their first iteration."""

    def __init__(self, symbols: Symbols) -> None:
        self.symbols = symbols
        self.views: dict[int, View] = {}
        self.moves: dict[int, str] = {}

    def step(self, inst: Inst) -> None:
        handler = _TRACKED.get(inst.mnemonic)
        if handler:
            handler(self, inst.named())

    def operands(self, instruction: int, inst: Inst) -> tuple[Operand, ...]:
        named, found = inst.named(), []
        for field in inst.row.views:
            view = self.views.get(named[field.name])
            if named[field.name] and view is not None:
                found.append(self._operand(instruction, inst, field, named, view))
        return tuple(found)

    def _operand(self, instruction: int, inst: Inst, field: Field, named: Mapping[str, int], view: View) -> Operand:
        extents, dynamic = extents_of(field, named), dynamic_extent(inst)
        used = _dims(field, named)
        known = dynamic not in used or not dynamic
        shape = _shape(extents, tuple(name == dynamic for name in used), named)
        return Operand(
            field.name, view, view.span(extents)[1] if known else 0, shape, self.symbols.at(instruction, view)
        )

    def notes(self, inst: Inst) -> tuple[str, ...]:
        used = sorted(
            {
                value
                for field, value in zip(inst.row.fields, inst.operands, strict=True)
                if field.access is not None and value
            }
        )
        moves = [f"v{register} moves by {self.moves[register]}" for register in used if register in self.moves]
        if inst.mnemonic in _NAMED:
            symbol = self.symbols.tensor(view_of(inst.named())) if inst.named()["space"] == Space.DRAM else ""
            return (*moves, f"<{symbol}>") if symbol else tuple(moves)
        return tuple(moves)

    def define(self, named: Mapping[str, int]) -> None:
        self.views[named["v"]] = view_of(named)
        self.moves.pop(named["v"], None)

    def increment(self, named: Mapping[str, int]) -> None:
        index = (
            f"i{named['level']}"
            + (f"//{named['div']}" if named["div"] != 1 else "")
            + (f"%{named['mod']}" if named["mod"] else "")
        )
        self._move(named["v"], f"{named['inc']:#x}*{index}" if named["mod"] != 1 else "0")

    def add(self, named: Mapping[str, int]) -> None:
        self._move(named["v"], f"s{named['s']}*{named['scale']}")

    def _move(self, register: int, text: str) -> None:
        self.moves[register] = f"{self.moves[register]} + {text}" if register in self.moves else text


_TRACKED: dict[str, Callable[[ViewTracker, Mapping[str, int]], None]] = {
    "vset": ViewTracker.define, "vinc": ViewTracker.increment, "vadd": ViewTracker.add,
}  # fmt: skip
_NAMED = frozenset({"vset"})  # instructions that give a view its address


def _dims(field: Field, named: Mapping[str, int]) -> tuple[str, str, str]:
    return next((w.dims for w in field.when if w.dims and named.get(w.field) == w.value), field.dims)


def _shape(extents: Extents, dynamic: tuple[bool, ...], named: Mapping[str, int]) -> str:
    """`2x128x384`, without a single plane; an extent from a scalar register by the register's name."""
    texts = [f"s{named['dyn_s']}" if scalar else str(extent) for extent, scalar in zip(extents, dynamic, strict=True)]
    return "x".join(texts[1:] if texts[0] == "1" else texts)


def _loop_ends(inst: Inst, pc: int) -> list[int]:
    named = inst.named()
    return [pc + WORD_BYTES * (1 + named["len"])] if named.get("len") else []


def _offset(name: str, distance: int) -> str:
    name = on_one_line(name)
    return f"{name}+{distance:#x}" if distance else name


def on_one_line(text: str) -> str:
    """A name that may stand in a comment: it breaks neither the line nor the terminal."""
    return shown(text)
