"""The pieces of assembly text with their places, also of text that is half written: what editors ask about.

    for token in tokens("loop: vop f=add, d=OUT"):    label loop, mnemonic vop, operand f, literal add, operand d, ...

Line by line and without judgement: the assembler says what is wrong. Lines and columns count from 0.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from isa.asm.directives import DIRECTIVES, WORD_KEYS
from isa.asm.expression import FUNCTIONS
from isa.fields import Field, Kind
from isa.spec import ISA

# Directives whose `name=` may be used in expressions from then on.
NAMING = frozenset({"input", "output", "scalar", "state", "const", "buffer"})
NAME = r"[A-Za-z_][\w.]*"
_LABEL = re.compile(rf"[ \t]*({NAME}):")
_WORD = re.compile(r"[ \t]*(\.?[A-Za-z_]\w*)")
_PIECE = re.compile(rf'"(?:[^"\\]|\\.)*"?|0[xX][0-9a-fA-F]+|\d[\w.]*|{NAME}|[^\s]')
_REGISTER = re.compile(r"[vs]\d+")
_CODE = re.compile(r'(?:"(?:[^"\\]|\\.)*"?|[^";])*')


class Role(Enum):
    """What a token is in its line."""

    LABEL = "label"
    DEFINITION = "definition"  # of a constant, a tensor, a buffer
    REFERENCE = "reference"  # a name in an expression, which may be a label
    MNEMONIC = "mnemonic"
    OPERAND = "operand"
    LITERAL = "literal"  # a register or choice
    MARK = "mark"  # behind the @
    DIRECTIVE = "directive"
    KEY = "key"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Token:
    """`owner` is the mnemonic or directive of the line, `key` the operand or key whose value this is part of."""

    role: Role
    text: str
    line: int
    column: int
    owner: str = ""
    key: str = ""

    @property
    def end(self) -> int:
        return self.column + len(self.text)


def tokens(text: str) -> Iterator[Token]:
    """All tokens in order. Never fails."""
    for number, line in enumerate(text.split("\n")):
        yield from line_tokens(line, number)


def code_of(line: str) -> str:
    """The line without its comment."""
    found = _CODE.match(line)
    return found[0] if found else ""


def line_tokens(line: str, number: int = 0) -> Iterator[Token]:
    """The tokens of one line."""
    code, here = code_of(line), 0
    while label := _LABEL.match(code, here):
        yield Token(Role.LABEL, label[1], number, label.start(1))
        here = label.end()
    word = _WORD.match(code, here)
    if word is None:
        return
    owner = word[1]
    if owner.startswith("."):
        yield Token(Role.DIRECTIVE, owner, number, word.start(1), owner)
        yield from _arguments(code, word.end(), number, owner[1:])
    else:
        yield Token(Role.MNEMONIC, owner, number, word.start(1), owner)
        yield from _operands(code, word.end(), number, owner)


def _arguments(code: str, start: int, number: int, owner: str) -> Iterator[Token]:
    key = ""
    for piece in _PIECE.finditer(code, start):
        text, column = piece[0], piece.start()
        follows = code[piece.end() :].lstrip(" \t")
        if _is_name(text) and follows.startswith("="):
            key = text
            yield Token(Role.DEFINITION if owner == "equ" else Role.KEY, text, number, column, owner)
        elif text == ",":
            key = key if _in_brackets(code[start:column]) else ""
        elif text.startswith('"'):
            bare = text[1:].rstrip('"')
            role = Role.FILE if owner == "include" or key == "file" else Role.DEFINITION if _names(owner, key) else None
            if role is not None:
                yield Token(role, bare, number, column + 1, owner, key)
        elif _is_name(text):
            if _names(owner, key):
                yield Token(Role.DEFINITION, text, number, column, owner, key)
            elif key not in WORD_KEYS and not (text in FUNCTIONS and follows.startswith("(")):
                yield Token(Role.REFERENCE, text, number, column, owner, key)


def _operands(code: str, start: int, number: int, owner: str) -> Iterator[Token]:
    row, field, key, marks = ISA.get(owner), None, "", False
    for piece in _PIECE.finditer(code, start):
        text, column = piece[0], piece.start()
        follows = code[piece.end() :].lstrip(" \t")
        if text == "@":
            marks = True
        elif text == ",":
            key = key if _in_brackets(code[start:column]) else ""
        elif marks and _is_name(text):
            yield Token(Role.MARK, text, number, column, owner)
        elif not marks and not key and _is_name(text):
            key = text
            field = next((f for f in row.fields if f.name == text), None) if row else None
            yield Token(Role.OPERAND, text, number, column, owner)
        elif not marks and _is_name(text) and not (text in FUNCTIONS and follows.startswith("(")):
            role = Role.LITERAL if _is_literal(field, text) else Role.REFERENCE
            yield Token(role, text, number, column, owner, key)


def _is_literal(field: Field | None, text: str) -> bool:
    """A choice or register, which is never taken for a name."""
    if field is not None and field.kind is Kind.CHOICE:
        return True
    return (field is None or field.kind in (Kind.VIEW, Kind.SCALAR)) and _REGISTER.fullmatch(text) is not None


def _is_name(text: str) -> bool:
    return text[:1].isalpha() or text[:1] == "_"


def _names(owner: str, key: str) -> bool:
    """Whether the value of a key is a name from then on; of a directive that is misspelt it may be meant to be."""
    return key == "name" and (owner in NAMING or owner not in DIRECTIVES)


def _in_brackets(text: str) -> bool:
    return sum(text.count(c) for c in "[{(") > sum(text.count(c) for c in "]})")
