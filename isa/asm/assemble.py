"""Assembly text to images. `assemble(disassemble(image))` gives the very bytes of the image file.

A program needs nothing but its instructions; directives give the rest of an image (`isa.asm.directives`,
docs/assembly.md). Operands and directive values may be expressions in `.equ` constants, labels, buffers and tensors.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn

import msgspec
from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput

from isa.architecture import WORD_BYTES, Region
from isa.asm.directives import DIRECTIVES, Parts, read_string, read_value
from isa.asm.source import Source
from isa.asm.source_map import Place, source_map
from isa.asm.text import TextError, guess, parse_inst, parse_record, parse_word
from isa.chip import DEFAULT_CHIP, Chip, load_chip
from isa.codec import encode
from isa.errors import AssemblyError, ChipError, ImageError
from isa.files import read_text
from isa.image.image import DebugMap, Entry, Image, PlanRecord, check_image

_LENGTH = re.compile(
    r"\blen[ \t]*=[ \t]*([A-Za-z_][\w.]*)[ \t]*(?=,|$)"
)  # the one operand that may be a label: a loop's length, up to that label
_INCLUDES = 16


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
    builder = Builder(Source(text, name), Parts(Path(folder), Path(folder)))
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
class Later:
    """An instruction that uses a name which the text has not defined yet."""

    source: Source
    index: int
    mnemonic: Token
    operands: Token
    marks: Token | None


@dataclass
class Builder:
    """Collects statements; `finish` makes the image. Methods named like grammar rules take the children of that
    rule."""

    source: Source
    parts: Parts
    later: list[Later] = field(default_factory=list)
    places: list[tuple[Source, int, str]] = field(
        default_factory=list
    )  # of each instruction: text, line, mnemonic or directive
    depth: int = 0

    def read(self) -> None:
        for statement in self.parse():
            self.statement(statement)

    def parse(self) -> list[Any]:
        """The statements of the text at hand. Raises AssemblyError."""
        try:
            return list(_parser().parse(self.source.text + "\n").children)
        except UnexpectedInput as error:
            self.source.fail_syntax(error)

    def statement(self, statement: Any) -> None:
        """Take one statement in. Raises AssemblyError."""
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
        self.later.append(Later(self.source, len(self.parts.words), mnemonic, operands, marks))
        self.parts.words.append(b"")

    def _word(self, mnemonic: str, operands: str, marks: str) -> bytes:
        try:
            return parse_word(mnemonic, operands, marks)  # cached
        except TextError:
            return encode(parse_inst(mnemonic, operands, marks, self.parts.names))

    def _fail(self, source: Source, error: TextError, *pieces: Token | None) -> NoReturn:
        found = [piece for piece in pieces if piece is not None]
        operands = [operand.strip() for piece in found[1:] for operand in piece.split(",")]
        if error.at == found[0] and error.at not in operands:  # it may be a part of an operand, too
            source.fail_at(found[0], error)
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
            self.source.fail_at(_named(arguments, error.at) or token, error)
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
            text = self.included(self.parts.path(name))
            self.parts.count_text(text)
        except AssemblyError as error:
            self.source.fail_at(arguments[0], TextError(error.what, "", "paths are relative to the assembly text"))
        except TextError as error:
            self.source.fail_at(arguments[0], error)
        except ValueError as error:
            self.source.fail_at(arguments[0], TextError(f"not a string: {error}"))
        with self._inside(Source(text, str(path)), path.parent):
            self.read()

    def included(self, path: Path) -> str:
        """The text of an included file. Raises AssemblyError."""
        return _read(path, "")

    @contextmanager
    def _inside(self, source: Source, folder: Path) -> Iterator[None]:
        outer = self.source, self.parts.folder
        self.source, self.parts.folder, self.depth = source, folder, self.depth + 1
        yield
        self.source, self.parts.folder, self.depth = *outer, self.depth - 1

    def finish(self, chip: Chip | str | None) -> Image:
        """The image of all that was read. Raises AssemblyError."""
        parts = self.parts
        parts.names.update({name: number * WORD_BYTES for name, number in parts.labels.items()})
        for later in self.later:
            parts.words[later.index] = self.postponed(later)
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

    def postponed(self, later: Later) -> bytes:
        """The word of an instruction, now that all names are known. Raises AssemblyError."""
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


def _named(arguments: Iterable[Any], at: str) -> Token | None:
    """The piece of a directive that an error speaks of."""
    leaves: list[Token] = []
    for argument in arguments if at else ():
        leaves += argument.scan_values(lambda _: True) if isinstance(argument, Tree) else [argument] * bool(argument)
    return next((leaf for leaf in leaves if leaf.rstrip("= \t").strip('"') == at), None)


def _is_pair(node: object) -> bool:
    return isinstance(node, Tree) and node.data == "pair"
