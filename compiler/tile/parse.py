"""The tile program that a text stands for: the other direction of `str(program)` (compiler/tile/ir.py).

Lines that are empty or begin with `#` say nothing. A buffer is declared before an op names it, once.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from compiler.tile.ir import Buffer, Length, Loop, Op, Probe, Program, Ref
from isa.architecture import Dtype, Region, Space
from isa.fields import Field, Kind
from isa.spec import ISA

_NAME = r'("(?:[^"\\]|\\.)*"|[\w.-]+)'
_NUMBER = r"(-?(?:0x[0-9a-f]+|\d+))"
_STRIDES = r"((?: (?:rs|ps|cs)=-?\d+)*)"
_BUFFER = re.compile(
    rf"%{_NAME} : (\w+)(?:\.(\w+))? {_NUMBER}(?: @ {_NUMBER})?(?: \+ {_NUMBER} per iteration)?", re.ASCII
)
_LOOP = re.compile(rf"loop {_NUMBER} {{")
_MNEMONIC = re.compile(r"(\w+) ", re.ASCII)
_LENGTH = rf"(-?)%{_NAME}\[(\d+)~(\d+)<=(\d+)\]([+-]\d+)<=(\d+)"
_VIEW = re.compile(rf"(\w+)=%{_NAME}\[{_NUMBER}\]:(\w+){_STRIDES}(?: \+ (\d+) \* {_LENGTH})?(?:, )?", re.ASCII)
_CUT = re.compile(rf" ~ (\w+) = {_LENGTH}", re.ASCII)
_ATTRIBUTE = re.compile(r"(\w+)(?:=([\w-]+))?(?:, )?", re.ASCII)
_NODE = re.compile(rf" ?; {_NAME}", re.ASCII)
_TAP = re.compile(rf" \| (\w+)={_NAME}\[{_NUMBER}\]{_STRIDES}", re.ASCII)

T = TypeVar("T")


def parse(text: str) -> Program:
    """The program that `text` is of. Raises ValueError with the number of a line that is none of a program."""
    buffers: dict[str, Buffer] = {}
    ops: list[Op] = []
    first, end, count = -1, -1, 0
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        try:
            if not line or line.startswith("#"):
                continue
            if line.startswith("%"):
                buffer = _buffer(line)
                if buffers.setdefault(buffer.name, buffer) is not buffer:
                    raise ValueError(f"%{buffer.name} is declared twice")
            elif found := _LOOP.fullmatch(line):
                if first >= 0:
                    raise ValueError("a second loop")
                first, count = len(ops), int(found[1], 0)
            elif line == "}":
                if first < 0 or end >= 0:
                    raise ValueError("no loop ends here")
                end = len(ops)
            else:
                ops.append(_op(line, buffers))
        except (KeyError, ValueError) as error:
            raise ValueError(f"line {number}: {error}") from error
    if first >= 0 and end < 0:
        raise ValueError("the loop has no end")
    return Program(tuple(ops), Loop(first, end, count) if first >= 0 else None)


def _buffer(line: str) -> Buffer:
    found = _BUFFER.fullmatch(line)
    if not found:
        raise ValueError(f"no buffer: {line}")
    name, space, region, size, fixed, step = found.groups()
    where = Region[region.upper()] if region else Region.WEIGHTS
    return Buffer(
        _name(name),
        Space[space.upper()],
        int(size, 0),
        where,
        None if fixed is None else int(fixed, 0),
        int(step or "0", 0),
    )


def _op(line: str, buffers: dict[str, Buffer]) -> Op:
    """One op. Views come first; what follows them up to the `;` are attributes."""
    at = _Cursor(line)
    mnemonic = at.need(_MNEMONIC, "a mnemonic")[1]
    row = ISA[mnemonic]
    views = _once((m[1], _ref(m.groups()[1:], buffers)) for m in at.all(_VIEW))
    if unknown := views.keys() - {field.name for field in row.views}:
        raise ValueError(f"{mnemonic} has no view {', '.join(sorted(unknown))}")
    attrs = tuple(_once((m[1], _value(row.field(m[1]), m[2])) for m in at.all(_ATTRIBUTE)).items())
    cut = next(((m[1], _length(m.groups()[1:], buffers)) for m in at.all(_CUT)), None)
    node = _name(at.need(_NODE, "`; node`")[1])
    probes = tuple(
        Probe(m[1], _name(m[2]), int(m[3], 0), **{"ps": 0, "rs": 0, "cs": 1, **_strides(m[4])}) for m in at.all(_TAP)
    )
    at.finished()
    return Op(mnemonic, tuple(views.get(field.name) for field in row.views), attrs, node, probes, cut)


def _ref(parts: Sequence[str], buffers: dict[str, Buffer]) -> Ref:
    name, offset, dtype, strides, unit, *length = parts
    moved = _length(length, buffers) if unit else None
    return Ref(
        buffers[_name(name)],
        int(offset, 0),
        Dtype[dtype.upper()],
        **_strides(strides),
        moved=moved,
        unit=int(unit or 0),
    )


def _length(parts: Sequence[str], buffers: dict[str, Buffer]) -> Length:
    sign, name, *numbers = parts
    index, usual, largest, plus, width = map(int, numbers)
    return Length(buffers[_name(name)], index, largest, plus, width, bool(sign), usual)


def _once(pairs: Iterable[tuple[str, T]]) -> dict[str, T]:
    found: dict[str, T] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name} is given twice")
        found[name] = value
    return found


class _Cursor:
    """A place in a line."""

    def __init__(self, line: str) -> None:
        self.line, self.place = line, 0

    def all(self, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
        while found := pattern.match(self.line, self.place):
            self.place = found.end()
            yield found

    def need(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        found = pattern.match(self.line, self.place)
        if not found:
            raise ValueError(f"{what} is missing before '{self.line[self.place :]}'")
        self.place = found.end()
        return found

    def finished(self) -> None:
        if self.place < len(self.line):
            raise ValueError(f"not understood: '{self.line[self.place :]}'")


def _name(text: str) -> str:
    if not text.startswith('"'):
        return text
    name: str = json.loads(text)
    return name


def _strides(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in (part.split("=") for part in text.split())}


def _value(field: Field, text: str | None) -> int:
    if text is None:
        if field.kind is not Kind.FLAG:
            raise ValueError(f"{field.name} needs a value")
        return 1
    return field.choices.index(text) if text in field.choices else int(text, 0)
