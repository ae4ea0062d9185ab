"""Constant expressions of assembly text: numbers, names, + - * / // % << >> & | ^ ~, parentheses and a few functions.

    evaluate("2*TM*K // 64 + base", {"TM": 32, "K": 128, "base": 0x400})

Integers stay integers; `/` gives one where it divides exactly and a float elsewhere. Nothing can grow without bound.
"""

import math
import operator
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

Number = int | float
_LIMIT = 1 << 128
_DEPTH = 50
_TOKEN = re.compile(
    r"\s*(0[xX][0-9a-fA-F]+|0[bB][01]+|\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|[A-Za-z_][\w.]*|<<|>>|//|[-+*/%&|^~(),])"
)


class ExpressionError(ValueError):
    """An expression that means nothing. `name` is the unknown name, if that is the reason."""

    def __init__(self, what: str, name: str = "") -> None:
        super().__init__(what)
        self.name = name


def evaluate(text: str, names: Mapping[str, Any]) -> Number:
    """The value. Raises ExpressionError."""
    parser = _Parser(_tokens(text), names)
    value = parser.binary(0, 0)
    if parser.here < len(parser.tokens):
        raise ExpressionError(f"'{parser.tokens[parser.here]}' is not expected in '{text}'")
    return value


def _tokens(text: str) -> list[str]:
    tokens, position, text = [], 0, text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ExpressionError(f"'{text[position:].strip()[:10]}' is not expected in an expression")
        tokens.append(match[1])
        position = match.end()
    return tokens


def _divide(a: Number, b: Number) -> Number:
    exact = isinstance(a, int) and isinstance(b, int) and a % b == 0
    return a // b if exact else a / b


def _shift(move: Callable[[int, int], int]) -> Callable[[Any, Any], Number]:
    def shift(a: Any, b: Any) -> int:
        if not 0 <= b < 128:
            raise ExpressionError(f"a shift by {b} is not between 0 and 127")
        return move(a, b)

    return shift


def _float_bits(value: Number) -> int:
    return int.from_bytes(struct.pack("<f", value), "little")


_LEVELS: tuple[dict[str, Callable[[Any, Any], Number]], ...] = (
    {"|": operator.or_},
    {"^": operator.xor},
    {"&": operator.and_},
    {"<<": _shift(operator.lshift), ">>": _shift(operator.rshift)},
    {"+": operator.add, "-": operator.sub},
    {"*": operator.mul, "/": _divide, "//": operator.floordiv, "%": operator.mod},
)
_UNARY: dict[str, Callable[[Any], Number]] = {"-": operator.neg, "+": operator.pos, "~": operator.invert}
FUNCTIONS: dict[str, Callable[..., Number]] = {
    "min": min,
    "max": max,
    "ceildiv": lambda a, b: -(-a // b),
    "align": lambda a, b: -(-a // b) * b,
    "sqrt": math.sqrt,
    "bits": _float_bits,
    "log2": lambda a: int(a).bit_length() - 1,
}


class _Parser:
    """Precedence climbing over the token list."""

    def __init__(self, tokens: list[str], names: Mapping[str, Any]) -> None:
        self.tokens, self.names, self.here = tokens, names, 0

    def peek(self) -> str:
        return self.tokens[self.here] if self.here < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        token = self.peek()
        if not token:
            raise ExpressionError(f"the expression ends too early{f', {expected} is missing' if expected else ''}")
        if expected and token != expected:
            raise ExpressionError(f"'{token}' is not expected")
        self.here += 1
        return token

    def binary(self, level: int, depth: int) -> Number:
        if level == len(_LEVELS):
            return self.unary(depth + 1)
        value = self.binary(level + 1, depth)
        while self.peek() in _LEVELS[level]:
            sign = self.take()
            value = _apply(_LEVELS[level][sign], sign, value, self.binary(level + 1, depth))
        return value

    def unary(self, depth: int) -> Number:
        if depth > _DEPTH:
            raise ExpressionError("the expression is nested too deeply")
        token = self.take()
        if token in _UNARY:
            return _apply(_UNARY[token], token, self.unary(depth + 1))
        if token == "(":
            value = self.binary(0, depth)
            self.take(")")
            return value
        if token[0].isdigit():
            return _number(token)
        if self.peek() == "(" and token in FUNCTIONS:
            return self.call(token, depth)
        return self.name(token)

    def call(self, function: str, depth: int) -> Number:
        self.take("(")
        arguments = [self.binary(0, depth)]
        while self.peek() == ",":
            self.take()
            arguments.append(self.binary(0, depth))
        self.take(")")
        return _apply(FUNCTIONS[function], function, *arguments)

    def name(self, token: str) -> Number:
        if not (token[0].isalpha() or token[0] == "_"):
            raise ExpressionError(f"'{token}' is not expected")
        value = self.names.get(token)
        if value is None:
            raise ExpressionError(f"'{token}' is not defined", token)
        if not isinstance(value, (int, float)):
            raise ExpressionError(f"'{token}' is {value}, not a number")
        return value


def _apply(function: Callable[..., Number], name: str, *arguments: Number) -> Number:
    try:
        value = function(*arguments)
    except ExpressionError:
        raise
    except (TypeError, ValueError, ArithmeticError, struct.error) as error:
        raise ExpressionError(f"{name} of {', '.join(map(str, arguments))}: {error}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ExpressionError(f"{name} of {', '.join(map(str, arguments))} is {value}")
    if isinstance(value, int) and abs(value) >= _LIMIT:
        raise ExpressionError(f"{name} of {', '.join(map(str, arguments))[:40]} has more than 128 bits")
    return value


def _number(text: str) -> Number:
    if text[:2].lower() in ("0x", "0b"):
        value = int(text, 0)
    elif text.isdecimal():
        value = int(text) if len(text) < 60 else _LIMIT
    else:
        return float(text)
    if value >= _LIMIT:
        raise ExpressionError(f"{text[:20]}… has more than 128 bits")
    return value
