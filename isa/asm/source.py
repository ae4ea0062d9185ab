"""An assembly text with its name, and errors that point at places in it."""

from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

from lark import Token
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from isa.asm.text import TextError
from isa.errors import AssemblyError, TextSpan
from isa.shown import shown

_WIDTH = 160  # of an excerpt in an error


@dataclass(frozen=True)
class Source:
    """A text, for pointing at places in it."""

    text: str
    name: str

    @cached_property
    def lines(self) -> list[str]:
        return self.text.split("\n")

    def fail(self, what: str, line: int, column: int, width: int = 1, hint: str = "", name: str = "") -> NoReturn:
        """Raises AssemblyError, with the line and a caret under the place."""
        span = TextSpan(self.name, line, column, max(width, 1), name)
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
        raise AssemblyError(f"{shown(what)}\n    {excerpt}\n    {blank}{'^' * max(width, 1)}", where, hint, span)

    def line(self, number: int) -> str:
        return self.lines[number - 1].rstrip("\r") if 0 < number <= len(self.lines) else ""

    def fail_at(self, token: Token, error: TextError) -> NoReturn:
        """Point at the piece of `token` that the error names."""
        start = max(token.find(error.at), 0) if error.at else 0
        width = len(error.at) if error.at and error.at in token else len(token)
        self.fail(error.what, token.line or 1, (token.column or 1) + start, width, error.hint, error.name)

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
