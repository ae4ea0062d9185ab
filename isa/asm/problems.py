"""All that the assembler finds wrong with a text, not only the first: what editors underline while somebody types.

A statement that is wrong is left out, and what it would have defined is not reported again where it is used.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from isa.asm.assemble import Builder, Later
from isa.asm.directives import Parts
from isa.asm.source import Source
from isa.asm.text import TextError
from isa.asm.tokens import NAME, Role, line_tokens
from isa.errors import AssemblyError, ChipError, TextSpan
from isa.image.image import Image

MOST = 100  # errors of one text
_DEFINING = (Role.LABEL, Role.DEFINITION)
_NAME = re.compile(NAME)
_MNEMONIC = re.compile(r"(?:[ \t]*[A-Za-z_][\w.]*:)*[ \t]*")


@dataclass(frozen=True)
class Checked:
    """`image` is there when nothing is wrong; `places` says where its instructions stand."""

    errors: tuple[AssemblyError, ...]
    image: Image | None = None
    places: tuple[TextSpan, ...] = ()
    names: Mapping[str, Any] = field(default_factory=dict)  # values of what the text defines
    files: tuple[str, ...] = ()  # the text and what it includes


class _TooMany(Exception):
    pass


@dataclass
class _Tolerant(Builder):
    """A builder that notes errors and goes on."""

    errors: list[AssemblyError] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    texts: Mapping[str, str] = field(default_factory=dict)  # in place of what files hold
    broken: set[str] = field(default_factory=set)  # names that statements with errors would have defined

    def read(self) -> None:
        self.files.append(self.source.name)
        super().read()

    def included(self, path: Path) -> str:
        """The text of an included file, as the editor has it."""
        return self.texts[str(path)] if str(path) in self.texts else super().included(path)

    def parse(self) -> list[Any]:
        """The statements that can be read: a line with an error is left out."""
        while True:
            try:
                return super().parse()
            except AssemblyError as error:
                line = error.span.line - 1 if error.span else len(self.source.lines)
                self._note(error)
                lines = self.source.lines
                if not 0 <= line < len(lines) or not lines[line].strip():
                    return []  # the end of the text is at fault
                self.source = replace(self.source, text="\n".join([*lines[:line], "", *lines[line + 1 :]]))

    def statement(self, statement: Any) -> None:
        """Take a statement in, or note what is wrong with it."""
        count = len(self.parts.words)
        try:
            super().statement(statement)
        except AssemblyError as error:
            self._note(error)
            if statement.data == "instruction" and len(self.parts.words) == count:
                self.parts.words.append(b"")  # labels behind it keep their places

    def postponed(self, later: Later) -> bytes:
        """The word of an instruction, or none."""
        try:
            return super().postponed(later)
        except AssemblyError as error:
            self._note(error, later.source)
            return b""

    def _note(self, error: AssemblyError, source: Source | None = None) -> None:
        span = error.span
        if span is not None:
            line = (source or self.source).line(span.line)
            where = line[span.column - 1 : span.column - 1 + span.width]
            if self.broken.intersection(_NAME.findall(where)):
                return  # a name that would be there if its own line were right
            self.broken |= {token.text for token in line_tokens(line) if token.role in _DEFINING}
        self.errors.append(error)
        if len(self.errors) >= MOST:
            raise _TooMany


def check_text(
    text: str, name: str = "<text>", folder: str | Path = ".", texts: Mapping[str, str] | None = None
) -> Checked:
    """Assemble a text as far as it goes. `name` stands in errors, `folder` is where included files are; `texts` are
    those of files, by path, that an editor has not saved yet."""
    builder = _Tolerant(Source(text, name), Parts(Path(folder), Path(folder)), texts=texts or {})
    parts, image = builder.parts, None
    try:
        parts.count_text(text)
        builder.read()
        image = builder.finish(None)
    except _TooMany:
        pass
    except AssemblyError as error:
        if error.span is not None or not builder.errors:  # what is left of a broken text need not fit together
            builder.errors.append(error)
    except (TextError, ChipError) as error:
        builder.errors.append(AssemblyError(error.what, name, error.hint))
    names = {**parts.labels, **parts.names}
    places = tuple(instruction_span(source, line) for source, line, _ in builder.places)
    good = image if not builder.errors else None
    return Checked(tuple(builder.errors), good, places, names, tuple(dict.fromkeys(builder.files)))


def instruction_span(source: Source, line: int) -> TextSpan:
    """An instruction in its line, without label and comment."""
    text = source.line(line)
    start = _MNEMONIC.match(text)
    column = start.end() if start else 0
    width = len(text[column:].split(";")[0].rstrip())
    return TextSpan(source.name, line, column + 1, max(width, 1))
