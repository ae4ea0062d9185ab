"""Arithmetic and comparisons over the machine's state, for conditions of breakpoints and for `print`.

    s5 > 3 and i1 == 2        scalars, loop indices, `pc`, `time` (instructions so far), `v3` (the address of a view)
    sram[0x40]:i32 != 0       an element of memory

Python's grammar and precedence, of which `ast` reads a few operators here; nothing is ever executed.
"""

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from isa.architecture import LOOP_LEVELS
from isa.errors import InputError
from runtime.debug import places
from runtime.debug.launch import NotYet
from runtime.debug.session import Session
from runtime.debug.values import readable

Number = int | float
_LONGEST, _BITS = 200, 128  # so that no recursion is deep, and no number long
_MEMORY = re.compile(r"\b(?:sram|acc|dram\.[a-z]+)\[[^\]]*\](?::\w+)?", re.IGNORECASE)
_SIGN = re.compile(r"[-+*/%&|^~<>=]|\b(?:and|or|not)\b")
_HINT = "for example s5 > 3 and sram[0x40]:i32 == 7"
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.LShift: operator.lshift, ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_, ast.BitOr: operator.or_, ast.BitXor: operator.xor,
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Invert: operator.invert,
    ast.Not: operator.not_,
}  # fmt: skip
_SHAPES = (ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.Compare, ast.Constant, ast.Name)
_SIGNS = (ast.boolop, ast.unaryop, ast.operator, ast.cmpop, ast.expr_context)


class Unknown(Exception):
    """A term has no value now: memory that was never written, a view that was never set."""


@dataclass(frozen=True)
class Formula:
    """A formula that was read; `terms` gives the name of each memory term in `tree`."""

    text: str
    tree: ast.expr
    terms: dict[str, str]

    def value(self, session: Session) -> Number:
        """Raises NotYet where a term has no value now, or the arithmetic none."""
        try:
            value: Number = self._value(session, self.tree)
        except Unknown as error:
            raise NotYet(f"{self.text}: {error}") from error
        return value

    def holds(self, session: Session) -> bool:
        """Whether it is true; what was never written is not. Raises NotYet where the arithmetic has no value."""
        try:
            return bool(self._value(session, self.tree))
        except Unknown:
            return False

    def check(self, session: Session) -> None:
        """Raises InputError if a part has no value whatever the terms are: 1/0, s5 / 0, s5 & 1.5."""
        try:
            self._example(session, self.tree)
        except NotYet as error:
            raise InputError(error.what) from error

    def _example(self, session: Session, node: ast.AST) -> Number:
        """The value of numbers alone; for the rest a 1 of the type of the value."""
        if not any(isinstance(part, ast.Name) for part in ast.walk(node)):
            value: Number = self._value(session, node)
            return value
        match node:
            case ast.Name():
                name = self.terms.get(node.id)
                return 1.0 if name is not None and places.element(session, name).dtype.is_float else 1
            case ast.UnaryOp():
                found = self._operate(node.op, _one(self._example(session, node.operand)))
            case ast.BinOp():
                left, right = self._example(session, node.left), self._example(session, node.right)
                found = self._operate(node.op, _one(left), right)
            case _:  # of `and`, `or` and comparisons the value is 0 or 1; what is in them must have one, too
                for part in ast.iter_child_nodes(node):
                    if isinstance(part, ast.expr):
                        self._example(session, part)
                found = 1
        return _one(found)

    def _value(self, session: Session, node: ast.AST) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                return _term(session, self.terms.get(node.id, node.id))
            case ast.BoolOp():
                parts = (bool(self._value(session, part)) for part in node.values)
                return all(parts) if isinstance(node.op, ast.And) else any(parts)
            case ast.UnaryOp():
                return self._apply(node.op, self._value(session, node.operand))
            case ast.BinOp():
                return self._apply(node.op, self._value(session, node.left), self._value(session, node.right))
            case ast.Compare():
                return self._compare(session, node)
        raise AssertionError(node)

    def _compare(self, session: Session, node: ast.Compare) -> bool:
        left = self._value(session, node.left)
        for sign, part in zip(node.ops, node.comparators, strict=True):
            right = self._value(session, part)
            if not self._apply(sign, left, right):
                return False
            left = right
        return True

    def _apply(self, sign: ast.AST, *values: Number) -> Any:
        found = self._operate(sign, *values)
        if isinstance(found, int) and found.bit_length() > _BITS:
            raise NotYet(f"{self.text}: a number of more than {_BITS} bits")
        return found

    def _operate(self, sign: ast.AST, *values: Number) -> Any:
        try:
            if isinstance(sign, ast.LShift) and not 0 <= values[1] < _BITS:
                raise ValueError(f"a shift by {values[1]}")
            return _OPERATORS[type(sign)](*values)
        except (TypeError, ValueError, ArithmeticError) as error:
            raise NotYet(f"{self.text}: {error}") from None


def _one(value: Number) -> Number:
    return 1.0 if isinstance(value, float) else 1


def parse(session: Session, text: str) -> Formula:
    """Read a formula. Raises InputError for what is none, for names that mean nothing, and for what never has a value,
    as s5 / 0."""
    found = _read(session, text)
    found.check(session)
    return found


def _read(session: Session, text: str) -> Formula:
    terms: dict[str, str] = {}

    def named(match: re.Match[str]) -> str:
        places.element(session, match[0])  # raises for a place that cannot be
        name = f"_{len(terms)}"
        terms[name] = match[0]
        return name

    plain = _MEMORY.sub(named, text.strip())
    try:
        tree = ast.parse(plain if len(plain) < _LONGEST else "", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError(f"'{text[:80]}' cannot be read", hint=_HINT) from None
    for node in ast.walk(tree):
        _check(session, node, terms, text)
    return Formula(text.strip(), tree, terms)


def is_number(session: Session, text: str) -> bool:
    """Whether the text is a formula, with a value or without."""
    try:
        _read(session, text)
    except InputError:
        return False
    return True


def has_operator(text: str) -> bool:
    """Whether something is done with what the text names."""
    return bool(_SIGN.search(_MEMORY.sub("", text)))


def _check(session: Session, node: ast.AST, terms: dict[str, str], text: str) -> None:
    if isinstance(node, _SIGNS):
        if type(node) not in _OPERATORS and not isinstance(node, ast.boolop | ast.expr_context):
            raise InputError(f"'{text[:80]}' has an operator that is not known here", hint=_HINT)
    elif not isinstance(node, _SHAPES) or (isinstance(node, ast.Constant) and type(node.value) not in (int, float)):
        raise InputError(f"'{text[:80]}' cannot be read", hint=_HINT)
    elif isinstance(node, ast.Name) and node.id not in terms and not _is_term(node.id):
        raise InputError(
            f"'{node.id}' is nothing that has a number",
            hint="registers s5 and v3, loop indices i1, pc, time, sram[0x40]:i32",
        )


def _is_term(name: str) -> bool:
    return name in ("pc", "time") or _level(name) is not None or places.register(name) is not None


def _level(name: str) -> int | None:
    return int(name[1:]) if name[:1] == "i" and name[1:].isdecimal() and int(name[1:]) < LOOP_LEVELS else None


def _term(session: Session, name: str) -> Number:
    stepper, level = session.stepper, _level(name)
    if name in ("pc", "time"):
        return stepper.pc if name == "pc" else stepper.time
    if level is not None:
        return stepper.core.indices[level]
    register = places.register(name)
    try:
        if register is not None:
            kind, number = register
            return stepper.core.scalars[number] if kind == "s" else session.view(number).base
        view = places.element(session, name)
        number = readable(session.load(view, (1, 1, 1)), view.dtype).item()
        return float(number) if view.dtype.is_float else int(number)
    except InputError as error:
        raise Unknown(error.what) from error
