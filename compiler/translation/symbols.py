"""Symbols: 32-bit numbers that stand for the expression by which an element came about.

    add(x[3], mul(y[3], 0.5))   →   stir(stir(y[3] + imm(0.5), "mul") + x[3], "add")

Both sides of the check, graph and program, are written in terms of the operations on this page and of nothing else, so
equal expressions have equal symbols however the program was fused and cut. Equal symbols mean equal expressions but for
a collision of 32-bit hashes: as long as no one builds a program to fool the hash, a single wrong element goes unnoticed
once in some 2**32 times, and a wrong block of them never. (64 bits cost twice the time: no vector unit of 256 bits
multiplies them, and a cache holds half as many.)

What is normalised, because the two sides may say it differently: widening is nothing (a bfloat16 value is a float32
value), rounding to the type that a value has is nothing, a product with 1 is nothing, relu is the larger of x and 0,
the operands of commutative operations may change places. Nothing else: (a + b) + c is not a + (b + c).
"""

from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import Final

import numpy as np

from compiler.translation.mixing import Symbol as Symbol
from compiler.translation.mixing import Symbols as Symbols
from compiler.translation.mixing import joined, stirred
from isa.architecture import FLOATS, Dtype

BITS: Final = 32
_HALF: Final = Symbol(BITS // 2)
NOTHING: Final = Symbol(0)  # the symbol of memory that nobody has written


@cache
def number(*parts: object) -> Symbol:
    """A fixed odd number for anything that has a text."""
    return Symbol(int.from_bytes(blake2b(repr(parts).encode(), digest_size=BITS // 8).digest(), "little") | 1)


_SECOND: Final = number("second operand")


def stir(x: Symbols, *key: object) -> Symbols:
    """A bijection of the symbols, another for every key. `x` is used up."""
    return stirred(x, number(*key))


def _join(a: Symbols, b: Symbols | Symbol, *key: object) -> Symbols:
    """`stir` of the sum, whichever comes first."""
    return joined(a, b, number(*key))


def _order(a: Symbols, b: Symbols, *key: object) -> Symbols:
    """`stir` of the two, in this order."""
    return joined(a, b * _SECOND, number(*key))


# ---- given values: element i of a constant or input is stir(first + i * step), which makes sums over its rows closed
# formulas

_GIVEN: Final = "given"
_UNDO: Final = Symbol(pow(int(number(_GIVEN)), -1, 1 << BITS))


def raw_given(name: str, index: Symbols) -> Symbols:
    """The number behind element `index` of the value `name`, linear in the index."""
    return index * number("step", name) + number("first", name)


def given(name: str, index: Symbols, shift: Symbols | Symbol = NOTHING) -> Symbols:
    """`shift` is not zero for what was looked up, see `shift_of`."""
    return stir(raw_given(name, index) + shift, _GIVEN)


def raw(x: Symbols) -> Symbols:
    """What `given` stirred."""
    x = x * _UNDO
    x ^= x >> _HALF
    return x


def immediate(integer: bool, bits: int) -> Symbols:
    """A number of the program text: the bits of a float32, or an int32."""
    return np.full((1,), number("imm", integer, bits & 0xFFFFFFFF), Symbol)


# ---- operations on single elements; floats are float32 throughout

_COMMUTE: Final = frozenset({"add", "mul", "max", "min", "eq", "ne", "and", "or", "xor"})


def binary(name: str, a: Symbols, b: Symbols, integer: bool = False) -> Symbols:
    """`integer` operations are int32 and wrap, the others float32."""
    return _join(a, b, name, integer) if name in _COMMUTE else _order(a, b, name, integer)


def add(a: Symbols, b: Symbols) -> Symbols:
    return _join(a, b, "add", False)


def mul(a: Symbols, b: Symbols) -> Symbols:
    return _join(a, b, "mul", False)


ONE: Final = 0x3F800000  # the bits of 1.0


def scaled(x: Symbols, bits: int) -> Symbols:
    """x times a number of the program text; times 1 is x, in every bit."""
    return x if bits == ONE else mul(x, immediate(False, bits))


def sub(a: Symbols, b: Symbols) -> Symbols:
    return _order(a, b, "sub", False)


def select(condition: Symbols, x: Symbols, y: Symbols) -> Symbols:
    """x where the condition is not zero, else y."""
    return stir(condition * number("condition") + x + y * _SECOND, "select")


def function(kind: str, x: Symbols) -> Symbols:
    if kind == "relu":  # NaN stays, a zero is +0
        return binary("max", x, immediate(False, 0))
    return _join(x, number("argument"), "function", kind)


def scale_of(absmax: Symbols, kind: Dtype) -> Symbols:
    """The quantization scale of a row, of this type."""
    return _join(absmax, number("absmax"), "scale", kind)


def quantized(x: Symbols, scale: Symbols) -> Symbols:
    return _order(x, scale, "quantized")


def group_scale(norm: str, absmax: Symbols) -> Symbols:
    """The float32 scale of a group, before it is stored."""
    return _join(absmax, number("absmax"), "group scale", norm)


def group_codes(norm: str, ties: str, x: Symbols, absmax: Symbols) -> Symbols:
    """Elements divided by the unrounded scale of their group."""
    return _order(x, absmax, "group codes", norm, ties)


@dataclass(frozen=True, slots=True)
class Grouped:
    """The arithmetic of a grouped product: elements of a group and of a sub-block (0: none), codes, order, rounding."""

    group: int
    sub: int
    codes: str
    pre: bool
    half: bool

    @property
    def spans(self) -> "dict[str, int]":
        """Elements of k for one column of each operand."""
        return {"a": 1, "sa": self.group, "w": 1 if self.codes == "i8" else 2, "sw": self.group, "zw": self.group,
                "ss": self.sub, "sm": self.sub}  # fmt: skip

    def factor(self, name: str) -> Symbol:
        """By which an operand's part in the symbol of the result is told from the others'."""
        return number("grouped product", name, self)


def float_product() -> Symbol:
    """By which the symbol of a sum of products of floats, in the order of k, is told from that of integers."""
    return number("float product")


# ---- types


@dataclass(frozen=True, slots=True)
class Value:
    """Symbols with the type that the elements have; operations give F32 or I32 until they are stored."""

    symbols: Symbols
    kind: Dtype

    @property
    def float(self) -> Symbols:
        """As float32. From an integer that is a conversion; a narrower float has the same value."""
        return self.symbols if self.kind in FLOATS else self.symbols * number("float of an integer")


def rounded(value: Value, kind: Dtype) -> Symbols:
    """As it is stored in an element of type `kind`."""
    if (
        kind is value.kind
        or (kind is Dtype.F32 and value.kind in FLOATS)
        or (kind is Dtype.I32 and value.kind is Dtype.I8)
    ):
        return value.symbols
    if kind in FLOATS:
        return value.float if kind is Dtype.F32 else _join(value.float, number("rounded"), "rounded", kind)
    return _join(value.symbols, number("narrow"), "narrow", value.kind, kind)


def known(value: Value, kind: Dtype) -> Value:
    """The value rounded to `kind`, and known to be."""
    return Value(rounded(value, kind), kind)


# ---- rows


@cache
def _table(name: str, length: int) -> Symbols:
    seed = int(number("table", name)) % 2**32
    return np.random.default_rng(seed).integers(0, 2**BITS, length, Symbol, endpoint=False) | Symbol(1)


def weights(name: str, length: int) -> Symbols:
    """Odd numbers by which the places of a row are told apart; a longer table begins like a shorter one."""
    return _table(name, max(1 << 13, 1 << (length - 1).bit_length()))[:length]


def summed(x: Symbols, numbers: Symbols) -> Symbols:
    """The last dimension times these numbers, summed; for integers einsum is faster than @."""
    total: Symbols = np.einsum("...k,k->...", x, numbers)
    return total


def reduced(kind: str, x: Symbols) -> Symbols:
    """A reduction of the last dimension, which stays with size 1."""
    total = summed(x, weights("row", x.shape[-1]))
    return _join(total, number("reduced"), "reduced", kind)[..., None]


def dot_rows(a: Symbols, first: int) -> Symbols:
    """What rows of the left operand add to the symbols of a product: their part k = first … of the sum."""
    return summed(a, weights("left", first + a.shape[-1])[first:])


def dot_columns(w: Symbols, first: int, axis: int) -> Symbols:
    """The same of the columns of the right operand, whose dimension k is `axis` (-1 or -2)."""
    numbers = weights("right", first + w.shape[axis])[first:]
    return summed(raw(w) if axis == -1 else raw(w).swapaxes(-1, -2), numbers)


@cache
def _sums(length: int) -> tuple[Symbols, Symbols]:
    """Sums of the first i numbers of the table "right", and of each times its place."""
    numbers = weights("right", length)
    zero = np.zeros(1, Symbol)
    places = np.arange(length, dtype=Symbol)
    return np.concatenate([zero, np.cumsum(numbers, dtype=Symbol)]), np.concatenate(
        [zero, np.cumsum(numbers * places, dtype=Symbol)]
    )


def dot_given(
    name: str, start: Symbols, step: int, first: int, count: int, shift: Symbols | Symbol = NOTHING
) -> Symbols:
    """`dot_columns` of `count` elements start, start + step, … of a given value, for every start, in closed form."""
    plain, placed = _sums(max(1 << 13, 1 << (first + count - 1).bit_length()))
    low, high = first, first + count
    total = plain[high] - plain[low]
    by_place = placed[high] - placed[low] - Symbol(first) * total
    result: Symbols = (raw_given(name, start) + shift) * total + number("step", name) * Symbol(
        step % 2**BITS
    ) * by_place
    return result


def shift_of(row: Symbols, step: int, limit: int) -> Symbols:
    """What looking up row `row` of a table, whose rows are `step` elements apart, adds to a given value: its sums over
    a row stay closed formulas."""
    table = np.full(1, step % 2**BITS, Symbol) * number("row step") + Symbol(limit) * number("limit")
    shift: Symbols = row * _SECOND + table
    return shift


def looked_up(row: Symbols, name: str, start: Symbols, step: int, limit: int) -> Symbols:
    """Element `row` of a table's column: start, start + step, … of a given value."""
    return given(name, start, shift_of(row, step, limit))


def looked_up_in(row: Symbols, table: Symbols, limit: int) -> Symbols:
    """Element `row` of each column of a computed table, whose last two dimensions are rows and columns."""
    return stir(
        row * _SECOND
        + summed(table.swapaxes(-1, -2), weights("looked up", table.shape[-2]))
        + Symbol(limit) * number("limit"),
        "looked up",
    )
