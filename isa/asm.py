"""Assembly text to images. `assemble(disassemble(image))` gives the very bytes of the image file.

A program needs nothing but its instructions; directives give the rest of an image:

    .chip "edge"                                          a stock chip, a TOML file, or all its keys
    .region weights bytes=0x10000, file="p.weights.bin"   size of a region, and where its bytes are
    .hex const "00ff12"                                   ... or its bytes, appended
    .entry name="main", pc=main                           then .input, .output, .scalar of that entry
    .state .constant .plan .node .tap .span .meta         records; see isa.records
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn

import msgspec
from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken
from msgspec import Struct

from isa.chip import Chip, load_chip, parse_chip
from isa.errors import AssemblyError, ChipError, ImageError
from isa.image import INITIALISED, DebugMap, DebugNode, Entry, Image, PlanRecord, Scalar, Span, Tap, TensorSpec, check_image
from isa.spec import ISA_VERSION, WORD_BYTES, Region
from isa.text import TextError, guess, parse_record, parse_word

_NAMES = {"true": True, "false": False, "null": None}
_LABELLED = "len"  # the one operand that may be a label: a loop's length, up to that label
Pairs = dict[str, Any]


def assemble_file(path: str | PathLike[str], chip: Chip | str | None = None) -> Image:
    """The image of an assembly file. Included files are looked for beside it. Raises AssemblyError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AssemblyError(f"cannot read the assembly text: {error}", str(path), "name a text file, for example one made by 'llmcc disasm'") from error
    return assemble(text, str(path), Path(path).parent)


def assemble(text: str, name: str = "<text>", folder: str | PathLike[str] = ".") -> Image:
    """The image of an assembly text. `name` stands in errors, `folder` is where included files are. Raises AssemblyError."""
    source = _Source(text, name)
    try:
        tree = _parser().parse(text + "\n")
    except UnexpectedInput as error:
        source.fail_syntax(error)
    builder = _Builder(source, Path(folder))
    for statement in tree.children:
        assert isinstance(statement, Tree)
        getattr(builder, statement.data)(*statement.children)
    return builder.finish()


@lru_cache
def _parser() -> Lark:
    return Lark((resources.files("isa") / "asm.lark").read_text(encoding="utf-8"), parser="lalr", maybe_placeholders=True)


@dataclass(frozen=True)
class _Source:
    """The text, for pointing at places in it."""

    text: str
    name: str

    def fail(self, what: str, line: int, column: int, width: int = 1, hint: str = "") -> NoReturn:
        lines = self.text.split("\n")
        excerpt = lines[line - 1].rstrip("\r") if 0 < line <= len(lines) else ""
        # tabs are kept in front of the caret, so that it stands where the reader sees the fault
        blank = "".join("\t" if c == "\t" else " " for c in excerpt[: column - 1])
        raise AssemblyError(f"{what}\n    {excerpt}\n    {blank}{'^' * max(width, 1)}", f"{self.name}:{line}:{column}", hint)

    def fail_at(self, token: Token, error: TextError) -> NoReturn:
        """Point at the piece of `token` that the error names."""
        start = max(token.find(error.at), 0) if error.at else 0
        width = len(error.at) if error.at and error.at in token else len(token)
        self.fail(error.what, token.line or 1, (token.column or 1) + start, width, error.hint)

    def fail_syntax(self, error: UnexpectedInput) -> NoReturn:
        where = error.line if error.line > 0 else self.text.count("\n") + 1, max(error.column, 1)
        if isinstance(error, UnexpectedToken):
            found, width = ("end of line", 1) if error.token.type in ("_NL", "$END") else (f"'{error.token}'", len(error.token))
            expected = sorted(error.accepts or error.expected)
        else:
            assert isinstance(error, UnexpectedCharacters)
            found, width, expected = f"'{self.text[(error.pos_in_stream or 0) :][:1]}'", 1, sorted(error.allowed or ())
        self.fail(f"{found} is not expected here", *where, width, f"expected {' or '.join(_READABLE.get(e, e) for e in expected)}")


_READABLE = {
    "_NL": "end of line", "NAME": "a name", "OPERANDS": "operands name=value", "MARKS": "counts like 'ldw<=0'", "AT": "'@'", "COMMA": "','",
    "LABEL": "a label", "DIRECTIVE": "a directive", "STRING": "a string", "NUMBER": "a number", "KEY": "key=value", "EQUAL": "'='",
    "LSQB": "'['", "RSQB": "']'", "LBRACE": "'{'", "RBRACE": "'}'", "COLON": "':'", "__ANON_0": "','", "$END": "the end",
}  # fmt: skip


@dataclass
class _Builder:
    """Collects statements; `finish` makes the image. Methods named like grammar rules take the children of that rule."""

    source: _Source
    folder: Path
    words: list[bytes] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    fixups: list[tuple[int, Token, Token, str, str]] = field(default_factory=list)
    chip: Chip | None = None
    sizes: list[int] = field(default_factory=lambda: [0] * len(Region))
    data: dict[Region, bytes | bytearray] = field(default_factory=dict)
    entries: list[tuple[Token, Pairs, dict[str, list[Any]]]] = field(default_factory=list)
    records: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in _RECORDS})
    metadata: Pairs = field(default_factory=dict)

    def label(self, token: Token) -> None:
        name = token[:-1]
        if name in self.labels:
            self.source.fail_at(token, TextError(f"label '{name}' is defined twice", name, "rename one"))
        self.labels[name] = len(self.words)

    def instruction(self, mnemonic: Token, operands: Token | None, marks: Token | None) -> None:
        if operands is not None and f"{_LABELLED}=" in operands.replace(" ", ""):
            target = next(p.partition("=")[2].strip() for p in operands.split(",") if p.strip().startswith(_LABELLED))
            if target[:1].isalpha() or target[:1] == "_":
                self.fixups.append((len(self.words), mnemonic, operands, target, str(marks or "")))
                self.words.append(b"")
                return
        self.words.append(self._word(mnemonic, operands, str(operands or ""), marks))

    def _word(self, mnemonic: Token, operands: Token | None, text: str, marks: Token | str | None) -> bytes:
        try:
            return parse_word(str(mnemonic), text, str(marks or ""))
        except TextError as error:
            pieces = [t for t in (mnemonic, operands, marks) if isinstance(t, Token)]
            self.source.fail_at(next((t for t in reversed(pieces) if error.at and error.at in t), mnemonic), error)

    def directive(self, token: Token, *arguments: Any) -> None:
        handler = _DIRECTIVES.get(token[1:])
        try:
            values = [_plain(a) for a in arguments if a is not None and not _is_pair(a)]
            pairs = [(str(a.children[0]), _plain(a.children[-1])) for a in arguments if _is_pair(a)]
            named = {(json.loads(k) if k.startswith('"') else k.rstrip("= \t")): v for k, v in pairs}
            if handler is None:
                raise TextError(f"unknown directive '{token}'", "", guess(token, [f".{d}" for d in _DIRECTIVES]))
            handler(self, token, values, named)
        except TextError as error:
            self.source.fail_at(token, error)
        except (ChipError, ValueError, RecursionError) as error:  # ValueError: a string or number that JSON does not know
            self.source.fail_at(token, TextError(str(error)))

    def finish(self) -> Image:
        for index, mnemonic, operands, target, marks in self.fixups:
            if target not in self.labels:
                self.source.fail_at(operands, TextError(f"label '{target}' is not defined", target, guess(target, self.labels)))
            length = self.labels[target] - index - 1
            self.words[index] = self._word(mnemonic, operands, operands.replace(target, str(length)), marks)
        image = Image(
            b"".join(self.words), bytes(self.data.get(Region.WEIGHTS, b"")), bytes(self.data.get(Region.CONST, b"")), tuple(self.sizes),
            self._entries(), tuple(self.records["state"]), tuple(self.records["constant"]), tuple(self.records["plan"]),
            DebugMap(tuple(self.records["node"]), tuple(self.records["tap"]), tuple(self.records["span"])), self.metadata, self.chip or load_chip(),
        )  # fmt: skip
        try:
            check_image(image)
        except ImageError as error:
            raise AssemblyError(error.what, self.source.name, "the directives of this text do not fit each other") from error
        return image

    def _entries(self) -> tuple[Entry, ...]:
        if not self.entries:
            return (Entry("main", self.labels.get("main", 0) * WORD_BYTES),)
        entries = []
        for token, pairs, tensors in self.entries:
            if isinstance(pairs.get("pc"), str):
                if pairs["pc"] not in self.labels:
                    self.source.fail_at(token, TextError(f"label '{pairs['pc']}' is not defined", "", guess(pairs["pc"], self.labels)))
                pairs = {**pairs, "pc": self.labels[pairs["pc"]] * WORD_BYTES}
            try:
                entry = parse_record(Entry, pairs)
            except TextError as error:
                self.source.fail_at(token, error)
            entries.append(msgspec.structs.replace(entry, **{name: tuple(found) for name, found in tensors.items()}))
        return tuple(entries)


Handler = Callable[[_Builder, Token, list[Any], Pairs], None]
_RECORDS: dict[str, type[Struct]] = {
    "state": TensorSpec, "constant": TensorSpec, "plan": PlanRecord, "node": DebugNode, "tap": Tap, "span": Span,
}  # fmt: skip


def _record(name: str, kind: type[Struct]) -> Handler:
    def handle(builder: _Builder, token: Token, values: list[Any], pairs: Pairs) -> None:
        builder.records[name].append(parse_record(kind, pairs))

    return handle


def _of_entry(name: str, kind: type[Struct]) -> Handler:
    def handle(builder: _Builder, token: Token, values: list[Any], pairs: Pairs) -> None:
        if not builder.entries:
            raise TextError(f"{token} stands before any .entry", "", 'write .entry name="main", pc=0 first')
        builder.entries[-1][2][name].append(parse_record(kind, pairs))

    return handle


def _entry(builder: _Builder, token: Token, values: list[Any], pairs: Pairs) -> None:
    builder.entries.append((token, pairs, {"inputs": [], "outputs": [], "scalars": []}))


def _isa(builder: _Builder, token: Token, values: list[Any], pairs: Pairs) -> None:
    if values != [ISA_VERSION]:
        raise TextError(f"this text is for ISA version {values[0] if values else '?'}; this llmchip has version {ISA_VERSION}")


def _chip(builder: _Builder, token: Token, values: list[Any], pairs: Pairs) -> None:
    if values:
        path = builder.folder / str(values[0])
        builder.chip = load_chip(str(path) if path.is_file() else str(values[0]))
    else:
        builder.chip = parse_chip(pairs, "chip")


def _word(builder: _Builder, token: Token, values: list[Any], pairs: Pairs) -> None:
    for value in values:
        if not isinstance(value, int) or not 0 <= value < 1 << 8 * WORD_BYTES:
            raise TextError(".word takes an integer of 128 bits", "", "write .word 0x0123...")
        builder.words.append(value.to_bytes(WORD_BYTES, "little"))


def _region_named(values: list[Any]) -> Region:
    names = [r.name.lower() for r in Region]
    if not values or values[0] not in names:
        raise TextError(f"'{values[0] if values else ''}' is no region", "", guess(str(values[0]) if values else "", names))
    return Region(names.index(values[0]))


def _append(builder: _Builder, region: Region, data: bytes) -> None:
    if region not in INITIALISED:
        raise TextError(f"region {region.name.lower()} has no initial data", "", f"only {', '.join(r.name.lower() for r in INITIALISED)} have")
    builder.data[region] = builder.data[region] + data if builder.data.get(region) else data


def _region(builder: _Builder, token: Token, values: list[Any], pairs: Pairs) -> None:
    region, size, file = _region_named(values), pairs.pop("bytes", 0), pairs.pop("file", None)
    if pairs or not isinstance(size, int) or size < 0:
        raise TextError('.region takes a name, bytes=N and file="..."', "", 'for example: .region weights bytes=4096, file="weights.bin"')
    builder.sizes[region] = size
    if file is not None:
        try:
            _append(builder, region, (builder.folder / str(file)).read_bytes())
        except OSError as error:
            raise TextError(f"cannot read '{builder.folder / str(file)}': {error.strerror}", "", "paths are relative to the assembly text") from None


def _hex(builder: _Builder, token: Token, values: list[Any], pairs: Pairs) -> None:
    try:
        data = b"".join(bytes.fromhex(str(value)) for value in values[1:])
    except ValueError as error:
        raise TextError(f"not hexadecimal: {error}") from None
    _append(builder, _region_named(values), data)


def _meta(builder: _Builder, token: Token, values: list[Any], pairs: Pairs) -> None:
    builder.metadata.update(pairs)


_DIRECTIVES: dict[str, Handler] = {
    "isa": _isa, "chip": _chip, "region": _region, "hex": _hex, "entry": _entry, "word": _word, "meta": _meta,
    "input": _of_entry("inputs", TensorSpec), "output": _of_entry("outputs", TensorSpec), "scalar": _of_entry("scalars", Scalar),
    **{name: _record(name, kind) for name, kind in _RECORDS.items()},
}  # fmt: skip


def _is_pair(node: object) -> bool:
    return isinstance(node, Tree) and node.data == "pair"


def _plain(node: Any) -> Any:
    """The Python value of a JSON-like piece of the tree; names other than true, false, null are strings."""
    if isinstance(node, Token):
        return _TOKENS[node.type](str(node))
    if node.data == "array":
        return [_plain(child) for child in node.children if child is not None]
    return {json.loads(member.children[0]): _plain(member.children[1]) for member in node.children if member is not None}


def _number(text: str) -> int | float:
    return int(text, 0) if text.lstrip("+-").isdecimal() or "x" in text.lower() else float(text)


_TOKENS: dict[str, Callable[[str], Any]] = {"STRING": json.loads, "NUMBER": _number, "NAME": lambda text: _NAMES.get(text, text)}
