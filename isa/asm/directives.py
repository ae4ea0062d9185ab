"""The directives of assembly text: what they add to the image under construction.

.equ M=64, A=v1                                       constants and register aliases, for expressions
.chip "edge"                                          a stock chip, a TOML file, or all its keys
.entry name=main, pc=main                             then .input, .output, .scalar of that entry
.input name=a, shape=[M, 128], dtype=int8             without region: placed by the assembler; `a` is then its offset
.const name=w, shape=[4], dtype=float32, values=[1, 0.5, 2, 4]      initial data with a name (also file=, fill=)
.data weights dtype=int8, values=[1, 2, 3]            ... without one, appended to a region
.buffer name=tile, space=sram, bytes=M*128            on-chip memory, placed by the assembler; `tile` is its address
.region weights bytes=0x10000, file="p.weights.bin"   size of a region, and where its bytes are
.hex const "00ff12"                                   ... or its bytes, appended
.include "common.s"                                   another text
.lines off                                            no debug map; else the lines of the text are it, if there is no
.node
.state .constant .plan .node .probe .span .meta       records as the disassembler writes them; see isa.image.records
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from lark import Token
from msgspec import Struct

from isa.architecture import IMAGE_REGIONS, ISA_VERSION, USER_TYPES, WORD_BYTES, Region, Space
from isa.asm.data import contents
from isa.asm.expression import FUNCTIONS, ExpressionError, evaluate
from isa.asm.text import TextError, guess, parse_record
from isa.chip import Chip, chip_names, load_chip, parse_chip, unknown_chip
from isa.files import TEXT_BYTES, below, read_regular
from isa.image.image import DebugNode, PlanRecord, Probe, Scalar, Span, TensorSpec

Pairs = dict[str, Any]
Failure = Callable[[Token, TextError], NoReturn]
MOST_DATA = 1 << 31  # bytes of initial data
_LEAST_TEXT = 16384  # what an included text counts at least
ALIGN = 64  # of everything that the assembler places
_CONSTANTS = {"true": True, "false": False, "null": None}
# Keys whose values are words, never names of numbers.
WORD_KEYS = frozenset(
    {"name", "dtype", "storage", "region", "space", "op", "file", "code", "operand", "status", "reason"}
)


class Name(str):
    """A bare name in a directive: a word like `sram`, or something that is defined elsewhere."""


@dataclass(frozen=True)
class Buffer:
    name: str
    space: Space
    offset: int
    bytes: int


@dataclass
class NewEntry:
    """An entry under construction; its pc may be a label that comes later."""

    pairs: Pairs
    tensors: dict[str, list[Any]] = field(default_factory=lambda: {"inputs": [], "outputs": [], "scalars": []})
    token: Token | None = None
    failure: Failure | None = None

    def fail(self, error: TextError) -> NoReturn:
        assert self.token is not None and self.failure is not None
        self.failure(self.token, error)


@dataclass
class Parts:
    """The image under construction. Files are looked for in `folder`, that of the text at hand, and must lie below
    `root`, that of the first."""

    folder: Path
    root: Path
    words: list[bytes] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    names: dict[str, Any] = field(default_factory=dict)  # numbers, and registers as text
    chip: Chip | None = None
    sizes: list[int] = field(default_factory=lambda: [0] * len(Region))
    data: dict[Region, bytearray] = field(default_factory=dict)
    entries: list[NewEntry] = field(default_factory=list)
    records: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in _RECORDS})
    buffers: list[Buffer] = field(default_factory=list)
    metadata: Pairs = field(default_factory=dict)
    text_bytes: int = 0  # of all texts
    lines: bool = True  # the lines of the text become the debug map, if the text has none

    def define(self, name: str, value: Any) -> None:
        """Give a name its value. Raises TextError when it is taken, or a function's."""
        if name in self.names or name in self.labels:
            raise TextError(f"'{name}' is defined twice", name, "rename one")
        if name in FUNCTIONS:
            raise TextError(f"'{name}' is the name of a function", name, "rename it")
        self.names[name] = value

    def place(self, region: Region, size: int) -> int:
        """Room for a tensor in a region, behind everything that is in it."""
        offset = -(-self.sizes[region] // ALIGN) * ALIGN
        self.sizes[region] = offset + size
        return offset

    def path(self, name: str) -> Path:
        """The path of a file that the text names. Raises TextError for one outside its folder."""
        try:
            return below(self.root, str(self.folder.absolute().relative_to(self.root.absolute()) / name))
        except OSError as error:
            raise TextError(
                f"cannot use '{name}': {error.strerror}",
                "",
                "name a file in the folder of the assembly text, or below it",
            ) from None

    def file(self, name: str) -> bytes:
        """The bytes of a file beside the text. Raises TextError when it cannot be read."""
        try:
            return read_regular(self.path(name), MOST_DATA - self.data_bytes)
        except OSError as error:
            raise TextError(
                f"cannot read '{self.folder / name}': {error.strerror}", "", "paths are relative to the assembly text"
            ) from None

    @property
    def data_bytes(self) -> int:
        return sum(map(len, self.data.values()))

    def count_text(self, text: str) -> None:
        """Raises TextError for texts that include more and more, however small each is."""
        self.text_bytes += max(len(text), _LEAST_TEXT)
        if self.text_bytes > TEXT_BYTES:
            raise TextError(
                f"the text and what it includes have more than {TEXT_BYTES} bytes",
                "",
                "does it include the same file again and again?",
            )

    def note_place(self, token: Token, failure: Failure) -> None:
        """Remember where the newest entry stands in the text, for errors that show later."""
        if self.entries and self.entries[-1].token is None:
            self.entries[-1].token, self.entries[-1].failure = token, failure


Handler = Callable[[Parts, str, list[Any], Pairs], None]


def read_string(text: str) -> str:
    """A string in quotation marks. Raises TextError for half a surrogate pair, which no file can hold, and ValueError
    for what is no string of JSON."""
    found = str(json.loads(text))
    if any("\ud800" <= c <= "\udfff" for c in found):
        raise TextError("the string has half a surrogate pair", text, "write both halves, or the character itself")
    return found


def read_value(node: Any, names: Mapping[str, Any]) -> Any:
    """The Python value of a piece of the tree; arithmetic is done, bare names stay `Name`."""
    if isinstance(node, Token):
        return read_string(node) if node.type == "STRING" else _scalar(str(node), names)
    if node.data == "array":
        return [read_value(child, names) for child in node.children if child is not None]
    return {
        read_string(member.children[0]): read_value(member.children[1], names)
        for member in node.children
        if member is not None
    }


def _scalar(text: str, names: Mapping[str, Any]) -> Any:
    try:
        return _number(text)
    except ValueError:
        pass
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text.replace("_", "a").replace(".", "a").isalnum() and not text[0].isdigit():
        return Name(text)
    try:
        return evaluate(text, names)
    except ExpressionError as error:
        raise TextError(f"{text}: {error}", text, guess(error.name, names) if error.name and names else "") from None


def _number(text: str) -> int | float:
    if text.lstrip("+-").isdecimal() or "x" in text.lower():
        return int(text, 0)
    if not any(c.isdigit() for c in text):
        raise ValueError(text)  # inf and nan are names here
    return float(text)


def _known(parts: Parts, pairs: Pairs) -> Pairs:
    """Bare names become what they are defined as, except where a word is wanted."""
    return {
        key: str(value) if key in WORD_KEYS and isinstance(value, str) else _replace(value, parts.names)
        for key, value in pairs.items()
    }


def _replace(value: Any, names: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_replace(item, names) for item in value]
    if isinstance(value, dict):
        return {key: _replace(item, names) for key, item in value.items()}
    return (names[value] if value in names else str(value)) if isinstance(value, Name) else value


def _plain(value: Any) -> Any:
    return _replace(value, {})


_RECORDS: dict[str, type[Struct]] = {
    "state": TensorSpec, "constant": TensorSpec, "plan": PlanRecord, "node": DebugNode, "probe": Probe, "span": Span,
}  # fmt: skip


def _record(name: str, kind: type[Struct]) -> Handler:
    def handle(parts: Parts, token: str, values: list[Any], pairs: Pairs) -> None:
        known = _known(parts, pairs)
        if kind is TensorSpec and "region" not in known:
            known = _placed(parts, known, Region.STATE if name == "state" else Region.CONST)
        parts.records[name].append(parse_record(kind, known))

    return handle


def _of_entry(name: str, kind: type[Struct], region: Region) -> Handler:
    def handle(parts: Parts, token: str, values: list[Any], pairs: Pairs) -> None:
        if not parts.entries:
            raise TextError(f"{token} stands before any .entry", "", 'write .entry name="main", pc=0 first')
        known = _known(parts, pairs)
        if kind is TensorSpec and "region" not in known:
            known = _placed(parts, known, region)
        elif kind is Scalar and "offset" not in known:
            offset = parts.place(region, 4)
            parts.define(str(known.get("name", "")), offset)
            known = {**known, "offset": offset}
        parts.entries[-1].tensors[name].append(parse_record(kind, known))

    return handle


def _placed(parts: Parts, pairs: Pairs, region: Region) -> Pairs:
    """A tensor with a place, and its name defined as its offset."""
    if "offset" in pairs:
        raise TextError("an offset without a region", "", "give both, or neither")
    pairs = {**pairs, "region": int(region), "storage": pairs.get("storage", _storage(pairs))}
    spec: TensorSpec = parse_record(TensorSpec, pairs)
    if any(extent < 0 for extent in spec.shape):
        raise TextError(f"shape {list(spec.shape)} of tensor {spec.name} is negative")
    offset = parts.place(region, spec.nbytes)
    parts.define(spec.name, offset)
    return {**pairs, "offset": offset}


def _storage(pairs: Pairs) -> int:
    dtype = str(pairs.get("dtype", ""))
    if dtype not in USER_TYPES:
        raise TextError(f"'{dtype}' is no type of a tensor", dtype, guess(dtype, USER_TYPES))
    return int(USER_TYPES[dtype].storage)


def _entry(parts: Parts, token: str, values: list[Any], pairs: Pairs) -> None:
    parts.entries.append(NewEntry({key: _plain(value) for key, value in pairs.items()}))


def _isa(parts: Parts, token: str, values: list[Any], pairs: Pairs) -> None:
    if values != [ISA_VERSION]:
        raise TextError(
            f"this text is for ISA version {values[0] if values else '?'}; this llmchip has version {ISA_VERSION}"
        )


def _chip(parts: Parts, token: str, values: list[Any], pairs: Pairs) -> None:
    if values:
        name = str(values[0])
        path = parts.path(name)
        if name not in chip_names() and not path.exists():
            raise unknown_chip(name, Path(name))
        parts.chip = load_chip(name if name in chip_names() else path)
    else:
        parts.chip = parse_chip(_plain(pairs), "chip")


def _word(parts: Parts, token: str, values: list[Any], pairs: Pairs) -> None:
    for value in _replace(values, parts.names):
        if not isinstance(value, int) or not 0 <= value < 1 << 8 * WORD_BYTES:
            raise TextError(".word takes an integer of 128 bits", "", "write .word 0x0123...")
        parts.words.append(value.to_bytes(WORD_BYTES, "little"))


def _region_named(values: list[Any]) -> Region:
    names = [r.name.lower() for r in Region]
    if not values or values[0] not in names:
        raise TextError(
            f"'{values[0] if values else ''}' is no region", "", guess(str(values[0]) if values else "", names)
        )
    return Region(names.index(values[0]))


def _append(parts: Parts, region: Region, data: bytes, align: int = 1) -> int:
    """Put bytes behind the initial data of a region; gives their offset."""
    if region not in IMAGE_REGIONS:
        raise TextError(
            f"region {region.name.lower()} has no initial data",
            "",
            f"only {', '.join(r.name.lower() for r in IMAGE_REGIONS)} have",
        )
    held = parts.data.setdefault(region, bytearray())
    if parts.data_bytes + len(data) > MOST_DATA:
        raise TextError(
            f"the initial data have more than {MOST_DATA} bytes",
            "",
            "a program of this size is made with 'llmcc compile'",
        )
    held.extend(bytes(-len(held) % align))
    offset = len(held)
    held.extend(data)
    return offset


def _region(parts: Parts, token: str, values: list[Any], pairs: Pairs) -> None:
    known = _known(parts, pairs)
    region, size, file = _region_named(values), known.pop("bytes", 0), known.pop("file", None)
    if known or not isinstance(size, int) or size < 0:
        raise TextError(
            '.region takes a name, bytes=N and file="..."',
            "",
            'for example: .region weights bytes=4096, file="weights.bin"',
        )
    parts.sizes[region] = max(parts.sizes[region], size)
    if file is not None:
        _append(parts, region, parts.file(str(file)))


def _hex(parts: Parts, token: str, values: list[Any], pairs: Pairs) -> None:
    try:
        data = b"".join(bytes.fromhex(str(value)) for value in values[1:])
    except ValueError as error:
        raise TextError(f"not hexadecimal: {error}") from None
    _append(parts, _region_named(values), data)


def _const(parts: Parts, token: str, values: list[Any], pairs: Pairs) -> None:
    known = _known(parts, pairs)
    region = _region_named([known.pop("region", "const")])
    source: Pairs = {key: known.pop(key) for key in ("values", "file", "fill") if key in known}
    spec: TensorSpec = parse_record(TensorSpec, {**known, "region": int(region), "storage": _storage(known)})
    data = contents(source, spec.dtype, spec.elements, parts.file)
    if len(data) != spec.nbytes:
        raise TextError(f"tensor {spec.name} has {spec.nbytes} bytes, its data {len(data)}")
    parts.define(spec.name, (offset := _append(parts, region, data, ALIGN)))
    parts.records["constant"].append(TensorSpec(spec.name, spec.shape, spec.dtype, spec.storage, region, offset))


def _data(parts: Parts, token: str, values: list[Any], pairs: Pairs) -> None:
    known = _known(parts, pairs)
    dtype, count = str(known.pop("dtype", "")), known.pop("count", 0)
    _storage({"dtype": dtype})
    if type(count) is not int:
        raise TextError(f"count={count} is no number of elements", "count")
    _append(parts, _region_named(values), contents(known, dtype, count, parts.file))


def _buffer(parts: Parts, token: str, values: list[Any], pairs: Pairs) -> None:
    known = _known(parts, pairs)
    name, space, size, align = (
        str(known.pop("name", "")),
        str(known.pop("space", "sram")),
        known.pop("bytes", None),
        known.pop("align", ALIGN),
    )
    spaces = {"sram": Space.SRAM, "acc": Space.ACC}
    if known or not name or not isinstance(size, int) or size < 1 or not isinstance(align, int) or align < 1:
        raise TextError(
            ".buffer takes name, bytes, space and align", "", "for example: .buffer name=tile, space=sram, bytes=64*128"
        )
    if space not in spaces:
        raise TextError(f"a buffer cannot be in '{space}'", space, guess(space, spaces))
    end = max((b.offset + b.bytes for b in parts.buffers if b.space is spaces[space]), default=0)
    parts.define(name, (offset := -(-end // align) * align))
    parts.buffers.append(Buffer(name, spaces[space], offset, size))


def _equ(parts: Parts, token: str, values: list[Any], pairs: Pairs) -> None:
    if values or not pairs:
        raise TextError(".equ takes NAME=value", "", "for example: .equ M=64, N=M*2")
    for name, value in pairs.items():
        found = _replace(value, parts.names)
        if isinstance(found, bool) or not (isinstance(found, (int, float)) or _is_register(found)):
            raise TextError(
                f"{name}={found} is neither a number nor a register", str(found), guess(str(found), parts.names)
            )
        parts.define(name, found)


def _is_register(value: Any) -> bool:
    return isinstance(value, str) and value[:1] in ("v", "s") and value[1:].isdecimal()


def _meta(parts: Parts, token: str, values: list[Any], pairs: Pairs) -> None:
    parts.metadata.update({key: _plain(value) for key, value in pairs.items()})


def _lines(parts: Parts, token: str, values: list[Any], pairs: Pairs) -> None:
    if pairs or values not in (["on"], ["off"]):
        raise TextError(".lines takes on or off", "", "'.lines off' leaves the program without a debug map")
    parts.lines = values == ["on"]


DIRECTIVES: dict[str, Handler] = {
    "isa": _isa,
    "chip": _chip,
    "region": _region,
    "hex": _hex,
    "entry": _entry,
    "word": _word,
    "meta": _meta,
    "equ": _equ,
    "buffer": _buffer,
    "lines": _lines,
    "const": _const,
    "data": _data,
    "input": _of_entry("inputs", TensorSpec, Region.IN),
    "output": _of_entry("outputs", TensorSpec, Region.OUT),
    "scalar": _of_entry("scalars", Scalar, Region.PARAMS),
    **{name: _record(name, kind) for name, kind in _RECORDS.items()},
}
