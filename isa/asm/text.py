"""One instruction or record as text, and back. No grammar here: `isa.asm.assemble` finds the pieces, this gives them
meaning.

vop f=mul, d=v3, a=v1, rows=128, cols=768, imm=0.125 @ mxu<=0, vec<=2
"""

import difflib
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import NODEFAULT, Struct

from isa.architecture import MAX_COUNT, NO_WAIT, QUEUES, SCALARS, VIEWS, Dtype, Region, Space
from isa.asm.expression import ExpressionError, evaluate
from isa.codec import NO_WAITS, IllegalInstruction, Inst, encode
from isa.fields import Field, Instruction, Kind
from isa.image.records import PlanRecord, Probe, Scalar, Span, TensorSpec
from isa.spec import ALSO_CALLED, ISA

HEX_FIELDS = frozenset({"base", "inc", "imm", "off"})  # addresses and bit patterns read better in hexadecimal
_HEX_KEYS: dict[type[Struct], frozenset[str]] = {
    TensorSpec: frozenset({"offset"}), Scalar: frozenset({"offset"}), PlanRecord: frozenset({"offset", "bytes"}),
    Probe: frozenset({"pc"}), Span: frozenset({"first", "end"}),
}  # fmt: skip
_ENUM_KEYS: dict[str, type[IntEnum]] = {"storage": Dtype, "region": Region, "space": Space}
_LISTED = 24  # names in a hint
_QUEUE_NAMES = tuple(queue.value for queue in QUEUES)


class TextError(ValueError):
    """Text that means nothing. `at` is the piece at fault, `hint` the remedy, `name` a name that is not defined
    (yet)."""

    def __init__(self, what: str, at: str = "", hint: str = "", name: str = "") -> None:
        super().__init__(what)
        self.what, self.at, self.hint, self.name = what, at, hint, name


@lru_cache(1 << 14)
def format_inst(inst: Inst) -> str:
    """The instruction in its fixed order; operands that equal their default are left out."""
    parts = [
        _format_operand(field, value)
        for field, value in zip(inst.row.fields, inst.operands, strict=True)
        if value != field.default
    ]
    marks = [f"{name}<={count}" for name, count in zip(_QUEUE_NAMES, inst.deps, strict=True) if count != NO_WAIT] + [
        "dbg"
    ] * inst.dbg
    return f"{inst.mnemonic} {', '.join(parts)}".rstrip() + (f" @ {', '.join(marks)}" if marks else "")


@lru_cache(1 << 16)
def parse_word(mnemonic: str, operands: str, marks: str) -> bytes:
    """The word of an instruction. Cached, because the lines of a program repeat. Raises TextError."""
    return encode(parse_inst(mnemonic, operands, marks))


def parse_inst(mnemonic: str, operands: str = "", marks: str = "", names: Mapping[str, Any] | None = None) -> Inst:
    """The instruction of its three pieces of text. Operands may be expressions in `names`. Raises TextError."""
    row = ISA.get(mnemonic)
    if row is None:
        raise TextError(f"unknown instruction '{mnemonic}'", mnemonic, guess_instruction(mnemonic))
    given = _operands(row, operands, names or {})
    values = []
    for field in row.fields:
        value = given.get(field.name, field.default)
        if value is None:
            meaning = f": {field.doc}" if field.doc else ""
            raise TextError(f"{mnemonic}: operand {field.name} is missing", mnemonic, f"add {field.name}=...{meaning}")
        values.append(value)
    deps, dbg = _marks(marks)
    try:
        return Inst(mnemonic, tuple(values), deps, dbg)
    except IllegalInstruction as error:
        raise TextError(str(error), operands) from error


def guess(name: str, names: Iterable[str]) -> str:
    """The hint for a name that is not among `names`."""
    known = list(names)
    near = difflib.get_close_matches(name, known, 1, 0.4)
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return f"did you mean '{near[0]}'?" if near else f"known are: {', '.join(known[:_LISTED]) or 'none'}{more}"


def guess_instruction(name: str) -> str:
    """The hint for an unknown mnemonic: what other machines call so, then a function of one (`exp`: act f=exp), then
    the nearest spelling."""
    plain = name.lower().replace(".", "_")
    if plain in ISA:
        return f"did you mean '{plain}'?"
    stems = (plain, plain.removeprefix("v"), plain.partition("_")[0], plain.partition("_")[0].removeprefix("v"))
    meant = next((ALSO_CALLED[stem] for stem in stems if stem in ALSO_CALLED), "")
    if meant:
        return f"did you mean '{meant}'?"
    called = [
        f"{row.mnemonic} f={stem}"
        for stem in stems[:2]
        for row in ISA.values()
        for f in row.fields
        if f.name == "f" and stem in f.choices
    ]
    engine = [
        text for text in called if not text.startswith("salu")
    ]  # scalar arithmetic is for addresses; rarely meant
    if called:
        return f"did you mean '{(engine or called)[0]}'?"
    return guess(plain, ISA)


def format_float(bits: int) -> str:
    """The shortest literal that gives these float32 bits; hexadecimal for NaN and subnormals (and so for small
    integers)."""
    value: float = struct.unpack("<f", bits.to_bytes(4, "little"))[0]
    if math.isnan(value) or 0 < abs(value) < 2**-126:
        return f"{bits:#010x}"
    text = next(
        t for t in (f"{value:.{digits}g}" for digits in range(1, 10)) if math.isinf(value) or _rounds_to(t, bits)
    )
    return text if any(c in text for c in ".einf") else f"{text}.0"


def _rounds_to(text: str, bits: int) -> bool:
    """Whether the literal means these bits. Few digits of the largest float32 mean more than it can hold."""
    try:
        return parse_float(text) == bits
    except ValueError:
        return False


def parse_float(text: str) -> int:
    """float32 bits of a literal, or the bits themselves in hexadecimal. Raises ValueError."""
    if text[:2].lower() == "0x":
        return int(text, 16)
    try:
        return int.from_bytes(struct.pack("<f", float(text)), "little")
    except OverflowError:
        raise ValueError(f"{text} does not fit a float32") from None


def format_record(record: Struct, keep: bool = False) -> str:
    """`key=value` pairs of a record; fields that equal their default are left out unless `keep`."""
    kind = type(record)
    fields = kind.__struct_fields__
    defaults = (NODEFAULT,) * (len(fields) - len(kind.__struct_defaults__)) + kind.__struct_defaults__
    shown = [name for name, default in zip(fields, defaults, strict=True) if keep or getattr(record, name) != default]
    hexadecimal = _HEX_KEYS.get(kind, frozenset())
    return ", ".join(
        f"{name}={_format_value(value, name in hexadecimal)}"
        for name, value in ((n, getattr(record, n)) for n in shown)
    )


def parse_record(kind: type[Struct], pairs: dict[str, Any]) -> Any:
    """The record of parsed pairs. Raises TextError."""
    for key in pairs:
        if key not in kind.__struct_fields__:
            raise TextError(f"unknown key '{key}'", key, guess(key, kind.__struct_fields__))
    for key, names in _ENUM_KEYS.items():
        if isinstance(pairs.get(key), str):
            value = str(pairs[key])
            if value.upper() not in names.__members__:
                raise TextError(f"'{value}' is no {key}", value, guess(value, [n.lower() for n in names.__members__]))
            pairs = {**pairs, key: int(names[value.upper()])}
    try:
        return msgspec.convert(pairs, kind)
    except msgspec.ValidationError as error:
        raise TextError(str(error).replace("`", ""), hint=f"keys are: {', '.join(kind.__struct_fields__)}") from error


def _format_operand(field: Field, value: int) -> str:
    if field.kind is Kind.FLAG:
        return field.name
    return f"{field.name}={_FORMAT[field.kind](field, value)}"


_FORMAT: dict[Kind, Callable[[Field, int], str]] = {
    Kind.VIEW: lambda field, value: f"v{value}",
    Kind.SCALAR: lambda field, value: f"s{value}",
    Kind.INT: lambda field, value: f"{value:#x}" if field.name in HEX_FIELDS else str(value),
    Kind.F32: lambda field, value: format_float(value),
    Kind.CHOICE: lambda field, value: field.choices[value],
}


def split_operands(text: str) -> list[str]:
    """Pieces between the commas that are outside parentheses."""
    if "(" not in text:
        return text.split(",") if text else []
    pieces, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth <= 0:
            pieces.append("")
        else:
            pieces[-1] += character
    return pieces


def _operands(row: Instruction, text: str, names: Mapping[str, Any]) -> dict[str, int]:
    given: dict[str, int] = {}
    for piece in split_operands(text):
        name, equals, value = (part.strip() for part in piece.partition("="))
        field = next((f for f in row.fields if f.name == name), None)
        if field is None:
            raise TextError(
                f"{row.mnemonic} has no operand '{name}'", piece.strip(), guess(name, [f.name for f in row.fields])
            )
        if name in given:
            raise TextError(f"{row.mnemonic}: operand {name} is given twice", piece.strip(), "remove one")
        if not equals and field.kind is not Kind.FLAG:
            raise TextError(f"{row.mnemonic}: operand {name} needs a value", piece.strip(), f"write {name}=...")
        given[name] = 1 if not equals else _value(row, field, value, piece.strip(), names)
    return given


def _value(row: Instruction, field: Field, text: str, piece: str, names: Mapping[str, Any]) -> int:
    """The bits of one operand: a literal of its kind, else an expression. Raises TextError for the wrong kind or
    range."""
    try:
        value = _PARSE[field.kind](field, text)
    except (ValueError, OverflowError) as error:
        value = _expression(row, field, text, piece, names, error)
    if not 0 <= value < 1 << field.bits:
        what = f"{row.mnemonic}: {field.name}={text} does not fit in {field.bits} bits{_shown(text, value)}"
        raise TextError(what, piece, f"at most {(1 << field.bits) - 1}")
    return value


def _shown(text: str, value: int) -> str:
    return "" if text.isalnum() and not text[0].isalpha() else f": it is {value}"


def _expression(
    row: Instruction, field: Field, text: str, piece: str, names: Mapping[str, Any], cause: Exception
) -> int:
    """The operand as an alias of a register or as arithmetic; `cause` is what was wrong with it as a literal."""
    alias = names.get(text)
    if isinstance(alias, str) and field.kind in (Kind.VIEW, Kind.SCALAR):
        return _value(row, field, alias, piece, {})
    if not _is_arithmetic(field, text):
        raise TextError(
            f"{row.mnemonic}: {field.name}={text} is not {_EXPECTED[field.kind]}",
            piece,
            _value_hint(field, text, cause),
        ) from None
    try:
        number = evaluate(text, names)
        if field.kind is Kind.F32:
            return parse_float(repr(float(number))) if not text.startswith("bits(") else int(number)
    except ExpressionError as error:
        hint = guess(error.name, [n for n in names if not n.startswith("_")][:200]) if error.name and names else ""
        what = f"{row.mnemonic}: {field.name}={text} is not {_EXPECTED[field.kind]}: {error}"
        raise TextError(what, piece, hint, error.name) from None
    except (ValueError, OverflowError) as error:
        raise TextError(
            f"{row.mnemonic}: {field.name}={text} is not {_EXPECTED[field.kind]}", piece, str(error)
        ) from None
    if not isinstance(number, int):
        raise TextError(
            f"{row.mnemonic}: {field.name}={text} is {number}, not an integer",
            piece,
            "// divides integers and rounds down",
        )
    return number


def _is_arithmetic(field: Field, text: str) -> bool:
    return field.kind in (Kind.INT, Kind.FLAG, Kind.F32) and _literal_float(text) is None


def _literal_float(text: str) -> float | None:
    """The value of what is a float literal already, so that it is not tried again as arithmetic."""
    try:
        return float(text)
    except ValueError:
        return None


def _value_hint(field: Field, text: str, error: Exception) -> str:
    return guess(text, field.choices) if field.choices else str(error) if field.kind is Kind.F32 else ""


def _register(letter: str, count: int, text: str) -> int:
    if text[:1] != letter or not text[1:].isdecimal() or int(text[1:]) >= count:
        raise ValueError(text)
    return int(text[1:])


_PARSE: dict[Kind, Callable[[Field, str], int]] = {
    Kind.VIEW: lambda field, text: _register("v", VIEWS, text),
    Kind.SCALAR: lambda field, text: _register("s", SCALARS, text),
    Kind.INT: lambda field, text: int(text, 0),
    Kind.F32: lambda field, text: parse_float(text),
    Kind.FLAG: lambda field, text: int(text, 0),
    Kind.CHOICE: lambda field, text: field.choices.index(text),
}
_EXPECTED = {
    Kind.VIEW: f"a view v0..v{VIEWS - 1}", Kind.SCALAR: f"a scalar register s0..s{SCALARS - 1}", Kind.INT: "an integer",
    Kind.F32: "a float32 literal or its bits in hexadecimal", Kind.FLAG: "0 or 1", Kind.CHOICE: "one of its choices",
}  # fmt: skip


def _marks(text: str) -> tuple[tuple[int, ...], int]:
    """Dependence counts and the debug flag behind the `@`."""
    if not text:
        return NO_WAITS, 0
    counts, dbg = list(NO_WAITS), 0
    for piece in (part.strip() for part in text.split(",")):
        name, waits, count = (part.strip() for part in piece.partition("<="))
        if piece == "dbg":
            dbg = 1
        elif not waits or name not in _QUEUE_NAMES:
            raise TextError(f"unknown queue '{name}'", piece, guess(name, _QUEUE_NAMES))
        elif not count.isdecimal() or len(count) > 9 or int(count) > MAX_COUNT:
            raise TextError(
                f"{piece}: a dependence count is 0 to {MAX_COUNT}", piece, "leave it out to wait for nothing"
            )
        else:
            counts[_QUEUE_NAMES.index(name)] = int(count)
    return tuple(counts), dbg


def _format_value(value: Any, hexadecimal: bool) -> str:
    if isinstance(value, IntEnum):
        return value.name.lower()
    if hexadecimal and isinstance(value, int):
        return f"{value:#x}"
    return msgspec.json.encode(value, order="deterministic").decode()
