"""Assembly text to images. `assemble(disassemble(image))` gives the very bytes of the image file.

A program needs nothing but its instructions; directives give the rest of an image (`isa.asm.directives`,
docs/assembly.md). Operands and directive values may be expressions in `.equ` constants, labels, buffers and tensors.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn

import msgspec
from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from isa.architecture import WORD_BYTES, Region
from isa.asm.directives import DIRECTIVES, Parts, read_string, read_value
from isa.asm.source_map import Place, source_map
from isa.asm.text import TextError, guess, parse_inst, parse_record, parse_word
from isa.chip import DEFAULT_CHIP, Chip, load_chip
from isa.codec import encode
from isa.errors import AssemblyError, ChipError, ImageError
from isa.files import read_text
from isa.image.image import DebugMap, Entry, Image, PlanRecord, check_image
from isa.shown import shown

_LENGTH = re.compile(
    r"\blen[ \t]*=[ \t]*([A-Za-z_][\w.]*)[ \t]*(?=,|$)"
)  # the one operand that may be a label: a loop's length, up to that label
_INCLUDES = 16
_WIDTH = 160  # of an excerpt in an error


def assemble_file(path: str | PathLike[str], chip: Chip | str | None = None) -> Image:
    """The image of an assembly file. With `chip`, a text for another chip is refused. Included files are looked for
    beside it. Raises AssemblyError."""
    return assemble(
        _read(Path(path), "name a text file, for example one made by 'llmcc disasm'"),
        str(path),
        Path(path).parent,
        chip,
    )


def assemble(
    text: str, name: str = "<text>", folder: str | PathLike[str] = ".", chip: Chip | str | None = None
) -> Image:
    """The image of an assembly text. `name` stands in errors, `folder` is where included files are. Raises
    AssemblyError."""
    builder = _Builder(_Source(text, name), Parts(Path(folder), Path(folder)))
    try:
        builder.parts.count_text(text)
    except TextError as error:
        raise AssemblyError(error.what, name, error.hint) from None
    builder.read()
    return builder.finish(chip)


def _read(path: Path, hint: str) -> str:
    try:
        return read_text(path)
    except OSError as error:
        raise AssemblyError(f"cannot read the assembly text: {error.strerror or error}", str(path), hint) from error
    except UnicodeDecodeError as error:
        raise AssemblyError(f"cannot read the assembly text: {error}", str(path), hint) from error


@lru_cache
def _parser() -> Lark:
    return Lark(
        (resources.files("isa.asm") / "asm.lark").read_text(encoding="utf-8"), parser="lalr", maybe_placeholders=True
    )


@dataclass(frozen=True)
class _Source:
    """A text, for pointing at places in it."""

    text: str
    name: str

    @cached_property
    def lines(self) -> list[str]:
        return self.text.split("\n")

    def fail(self, what: str, line: int, column: int, width: int = 1, hint: str = "") -> NoReturn:
        excerpt = self.line(line)
        if len(excerpt) > _WIDTH:  # of a very long line, what is around the fault
            cut = max(column - 1 - _WIDTH // 2, 0)
            excerpt, column, width = excerpt[cut : cut + _WIDTH], column - cut, min(width, _WIDTH)
            where = f"{self.name}:{line}:{column + cut}"
        else:
            where = f"{self.name}:{line}:{column}"
        what = what if len(what) <= 2 * _WIDTH else f"{what[:_WIDTH]}…"
        # tabs are kept in front of the caret, so that it stands where the reader sees the fault
        blank = "".join("\t" if c == "\t" else " " for c in excerpt[: column - 1])
        raise AssemblyError(f"{shown(what)}\n    {excerpt}\n    {blank}{'^' * max(width, 1)}", where, hint)

    def line(self, number: int) -> str:
        return self.lines[number - 1].rstrip("\r") if 0 < number <= len(self.lines) else ""

    def fail_at(self, token: Token, error: TextError) -> NoReturn:
        """Point at the piece of `token` that the error names."""
        start = max(token.find(error.at), 0) if error.at else 0
        width = len(error.at) if error.at and error.at in token else len(token)
        self.fail(error.what, token.line or 1, (token.column or 1) + start, width, error.hint)

    def fail_syntax(self, error: UnexpectedInput) -> NoReturn:
        where = error.line if error.line > 0 else self.text.count("\n") + 1, max(error.column, 1)
        if isinstance(error, UnexpectedToken):
            found, width = (
                ("end of line", 1) if error.token.type in ("_NL", "$END") else (f"'{error.token}'", len(error.token))
            )
            expected = sorted(error.accepts or error.expected)
        else:
            assert isinstance(error, UnexpectedCharacters)
            found, width, expected = f"'{self.text[(error.pos_in_stream or 0) :][:1]}'", 1, sorted(error.allowed or ())
        names = dict.fromkeys(_READABLE.get(e, e) for e in expected)
        self.fail(f"{found} is not expected here", *where, width, f"expected {' or '.join(names)}")


_READABLE = {
    "_NL": "end of line",
    "NAME": "a name",
    "OPERANDS": "operands name=value",
    "MARKS": "counts like 'ldw<=0'",
    "AT": "'@'",
    "COMMA": "','",
    "LABEL": "a label",
    "DIRECTIVE": "a directive",
    "STRING": "a string",
    "VALUE": "a value",
    "KEY": "key=value",
    "EQUAL": "'='",
    "LSQB": "'['",
    "RSQB": "']'",
    "LBRACE": "'{'",
    "RBRACE": "'}'",
    "COLON": "':'",
    "__ANON_0": "','",
    "$END": "the end",
}


@dataclass(frozen=True)
class _Later:
    """An instruction that uses a name which the text has not defined yet."""

    source: _Source
    index: int
    mnemonic: Token
    operands: Token
    marks: Token | None


@dataclass
class _Builder:
    """Collects statements; `finish` makes the image. Methods named like grammar rules take the children of that
    rule."""

    source: _Source
    parts: Parts
    later: list[_Later] = field(default_factory=list)
    places: list[tuple[_Source, int, str]] = field(
        default_factory=list
    )  # of each instruction: text, line, mnemonic or directive
    depth: int = 0

    def read(self) -> None:
        try:
            tree = _parser().parse(self.source.text + "\n")
        except UnexpectedInput as error:
            self.source.fail_syntax(error)
        for statement in tree.children:
            assert isinstance(statement, Tree)
            getattr(self, statement.data)(*statement.children)
            if len(self.places) < len(self.parts.words):
                token = statement.children[0]
                assert isinstance(token, Token)
                self.places += [(self.source, token.line or 0, str(token))] * (len(self.parts.words) - len(self.places))

    def label(self, token: Token) -> None:
        name = token[:-1]
        if name in self.parts.labels:
            self.source.fail_at(token, TextError(f"label '{name}' is defined twice", name, "rename one"))
        if name in self.parts.names:
            self.source.fail_at(token, TextError(f"'{name}' is already the name of something else", name, "rename one"))
        self.parts.labels[name] = len(self.parts.words)

    def instruction(self, mnemonic: Token, operands: Token | None, marks: Token | None) -> None:
        length = _LENGTH.search(operands) if operands is not None else None
        if operands is not None and length and length[1] not in self.parts.names:
            self._postpone(mnemonic, operands, marks)
            return
        try:
            self.parts.words.append(self._word(str(mnemonic), str(operands or ""), str(marks or "")))
        except TextError as error:
            if not error.name or operands is None:
                self._fail(self.source, error, mnemonic, operands, marks)
            self._postpone(mnemonic, operands, marks)

    def _postpone(self, mnemonic: Token, operands: Token, marks: Token | None) -> None:
        self.later.append(_Later(self.source, len(self.parts.words), mnemonic, operands, marks))
        self.parts.words.append(b"")

    def _word(self, mnemonic: str, operands: str, marks: str) -> bytes:
        try:
            return parse_word(mnemonic, operands, marks)  # cached
        except TextError:
            return encode(parse_inst(mnemonic, operands, marks, self.parts.names))

    def _fail(self, source: _Source, error: TextError, *pieces: Token | None) -> NoReturn:
        found = [piece for piece in pieces if piece is not None]
        source.fail_at(next((piece for piece in reversed(found) if error.at and error.at in piece), found[0]), error)

    def directive(self, token: Token, *arguments: Any) -> None:
        if token == ".include":
            self._include(token, [a for a in arguments if a is not None])
            return
        handler = DIRECTIVES.get(token[1:])
        try:
            if handler is None:
                raise TextError(
                    f"unknown directive '{token}'", "", guess(token, [f".{d}" for d in (*DIRECTIVES, "include")])
                )
            values = [self._value(a) for a in arguments if a is not None and not _is_pair(a)]
            pairs = [a for a in arguments if _is_pair(a)]
            # one constant after the other, so that each may use those before it
            for some in ([pair] for pair in pairs) if token == ".equ" and pairs else (pairs,):
                handler(self.parts, str(token), values, {_key(a): self._value(a.children[-1]) for a in some})
            self.parts.note_place(token, self.source.fail_at)
        except TextError as error:
            self.source.fail_at(token, error)
        except (
            ChipError,
            ValueError,
            RecursionError,
        ) as error:  # ValueError: a string or number that JSON does not know
            self.source.fail_at(token, TextError(str(error)))

    def _value(self, node: Any) -> Any:
        return read_value(node, self.parts.names)

    def _include(self, token: Token, arguments: list[Any]) -> None:
        if len(arguments) != 1 or not isinstance(arguments[0], Token) or arguments[0].type != "STRING":
            self.source.fail_at(token, TextError(".include takes the name of a file", "", 'write .include "common.s"'))
        if self.depth >= _INCLUDES:
            self.source.fail_at(
                token,
                TextError(f"files include each other more than {_INCLUDES} deep", "", "does a file include itself?"),
            )
        try:
            name = read_string(arguments[0])
            path = self.parts.folder / name
            text = _read(self.parts.path(name), "")
            self.parts.count_text(text)
        except AssemblyError as error:
            self.source.fail_at(arguments[0], TextError(error.what, "", "paths are relative to the assembly text"))
        except TextError as error:
            self.source.fail_at(arguments[0], error)
        except ValueError as error:
            self.source.fail_at(arguments[0], TextError(f"not a string: {error}"))
        with self._inside(_Source(text, str(path)), path.parent):
            self.read()

    @contextmanager
    def _inside(self, source: _Source, folder: Path) -> Iterator[None]:
        outer = self.source, self.parts.folder
        self.source, self.parts.folder, self.depth = source, folder, self.depth + 1
        yield
        self.source, self.parts.folder, self.depth = *outer, self.depth - 1

    def finish(self, chip: Chip | str | None) -> Image:
        parts = self.parts
        parts.names.update({name: number * WORD_BYTES for name, number in parts.labels.items()})
        for later in self.later:
            parts.words[later.index] = self._postponed(later)
        data = {region: bytes(parts.data.get(region, b"")) for region in Region}
        plan = (
            *parts.records["plan"],
            *(PlanRecord(b.name, b.space, b.offset, b.bytes, 0, max(len(parts.words) - 1, 0)) for b in parts.buffers),
        )
        if chip is not None and parts.chip is not None and load_chip(chip) != parts.chip:
            raise AssemblyError(
                f"the text is for chip '{parts.chip.name}', not for '{load_chip(chip).name}'",
                self.source.name,
                "change its .chip line",
            )
        image = Image(
            b"".join(parts.words),
            data[Region.WEIGHTS],
            data[Region.CONST],
            tuple(parts.sizes),
            self._entries(),
            tuple(parts.records["state"]),
            tuple(parts.records["constant"]),
            plan,
            self._debug(),
            parts.metadata,
            parts.chip or load_chip(chip or DEFAULT_CHIP),
        )
        try:
            check_image(image)
        except ImageError as error:
            raise AssemblyError(
                error.what, self.source.name, "the directives of this text do not fit each other"
            ) from error
        return image

    def _debug(self) -> DebugMap:
        """The text's own debug map if it has one, as the text of an image does; else the lines of the text."""
        records = self.parts.records
        if not self.parts.lines or records["node"] or records["probe"] or records["span"]:
            return DebugMap(tuple(records["node"]), tuple(records["probe"]), tuple(records["span"]))
        places = [Place(source.name, line, source.line(line).strip()) for source, line, _ in self.places]
        return source_map(places, [mnemonic for *_, mnemonic in self.places], self.parts.labels)

    def _postponed(self, later: _Later) -> bytes:
        length = _LENGTH.search(later.operands)
        text = str(later.operands)
        if length and length[1] in self.parts.labels:
            text = f"{text[: length.start(1)]}{self.parts.labels[length[1]] - later.index - 1}{text[length.end(1) :]}"
        elif length and length[1] not in self.parts.names:
            later.source.fail_at(
                later.operands,
                TextError(f"label '{length[1]}' is not defined", length[1], guess(length[1], self.parts.labels)),
            )
        try:
            return self._word(str(later.mnemonic), text, str(later.marks or ""))
        except TextError as error:
            self._fail(later.source, error, later.mnemonic, later.operands, later.marks)

    def _entries(self) -> tuple[Entry, ...]:
        parts = self.parts
        if not parts.entries:
            return (Entry("main", parts.labels.get("main", 0) * WORD_BYTES),)
        entries = []
        for entry in parts.entries:
            pairs = entry.pairs
            try:
                if isinstance(pairs.get("pc"), str):
                    if pairs["pc"] not in parts.labels:
                        raise TextError(f"label '{pairs['pc']}' is not defined", "", guess(pairs["pc"], parts.labels))
                    pairs = {**pairs, "pc": parts.labels[pairs["pc"]] * WORD_BYTES}
                record = parse_record(Entry, pairs)
            except TextError as error:
                entry.fail(error)
            entries.append(
                msgspec.structs.replace(record, **{name: tuple(found) for name, found in entry.tensors.items()})
            )
        return tuple(entries)


def _key(pair: Tree[Token]) -> str:
    key = str(pair.children[0])
    return read_string(key) if key.startswith('"') else key.rstrip("= \t")


def _is_pair(node: object) -> bool:
    return isinstance(node, Tree) and node.data == "pair"
