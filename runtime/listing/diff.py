"""Two programs side by side: their nodes aligned, then the instructions of each node, and the counts of instructions
per engine.

    comparison = compare(old, new)    comparison.engines["mxu"] == (12, 10)    [part for part in comparison.parts if
    part.changed]

Instructions are compared by their text; addresses in memory count, `pc` does not. Cycles come from a timing run of each
program: the total, and for engines and nodes the cycles in which an engine works for them (those of different engines
overlap).
"""

import difflib
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from isa.architecture import WORD_BYTES, Engine
from isa.asm.listing import Line, lines, operation
from isa.image.image import Image
from isa.image.records import BY_LINE
from isa.replay import ReplayError

_ENOUGH = 4000  # instructions; longer stretches are compared without difflib's quadratic search


@dataclass(frozen=True, slots=True)
class Row:
    """An instruction of A beside an instruction of B: one of them is missing where the other has no partner."""

    a: Line | None
    b: Line | None

    @property
    def mark(self) -> str:
        """`=` the same, `|` another instruction, `-` only in A, `+` only in B."""
        if self.a is None or self.b is None:
            return "+" if self.a is None else "-"
        return "=" if self.a.text == self.b.text else "|"


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of instructions of one node, in A, in B, or in both."""

    node: str
    title: str
    rows: tuple[Row, ...]
    busy: tuple[int, int] = (0, 0)

    @property
    def changed(self) -> bool:
        return any(row.mark != "=" for row in self.rows)

    @property
    def counts(self) -> tuple[int, int]:
        return sum(row.a is not None for row in self.rows), sum(row.b is not None for row in self.rows)


@dataclass(frozen=True)
class Comparison:
    parts: tuple[Part, ...]
    engines: dict[str, tuple[int, int]]
    cycles: dict[str, tuple[int, int]] = field(default_factory=dict)  # empty when a program's time is not known

    @property
    def same(self) -> bool:
        return not any(part.changed for part in self.parts)

    def as_dict(self) -> dict[str, Any]:
        return {
            "same": self.same, "words": {name: list(pair) for name, pair in self.engines.items()},
            "cycles": {name: list(pair) for name, pair in self.cycles.items()},
            "nodes": [_part(part) for part in self.parts],
        }  # fmt: skip


@dataclass(frozen=True)
class _Times:
    """What a timing run says: cycles in all, of each engine, and of each instruction over all its executions."""

    total: int
    engines: Mapping[str, int]
    instructions: Mapping[int, int]


@dataclass(frozen=True)
class _Stretch:
    node: str
    op: str
    instructions: tuple[Line, ...]


def compare(a: Image, b: Image) -> Comparison:
    """Align two programs."""
    left, right = _stretches(a), _stretches(b)
    times = _times(a), _times(b)
    parts = []
    for mine, other in _align([s.node for s in left], [s.node for s in right]):
        one, two = (left[mine] if mine is not None else None), (right[other] if other is not None else None)
        known = one or two
        assert known is not None
        title = f"{known.node} ({known.op})" if known.op else known.node
        parts.append(Part(known.node, title, _rows(one, two), (_busy(one, times[0]), _busy(two, times[1]))))
    return Comparison(tuple(parts), _engines(left, right), _cycles(*times))


def _times(image: Image) -> _Times | None:
    """None for a program that cannot be followed without data, or not at all."""
    from emulator.timing.simulate import simulate  # numpy only when needed

    try:
        timeline = simulate(image)
    except ReplayError:
        return None
    instructions = [0] * (image.words + 1)
    for instruction, start, end in zip(
        timeline.instructions, timeline.work_start.tolist(), timeline.work_end.tolist(), strict=True
    ):
        instructions[instruction.pc // WORD_BYTES] += end - start
    return _Times(
        timeline.cycles,
        {e.value: timeline.busy(e) for e in Engine},
        {i * WORD_BYTES: busy for i, busy in enumerate(instructions)},
    )


def _busy(stretch: _Stretch | None, times: _Times | None) -> int:
    return (
        sum(times.instructions.get(instruction.pc, 0) for instruction in stretch.instructions)
        if stretch and times
        else 0
    )


def _cycles(a: _Times | None, b: _Times | None) -> dict[str, tuple[int, int]]:
    if a is None or b is None:
        return {}
    return {**{name: (a.engines[name], b.engines[name]) for name in a.engines}, "all": (a.total, b.total)}


def _stretches(image: Image) -> list[_Stretch]:
    """Runs of instructions of one node or label."""
    found = []
    for (name, op), group in groupby(lines(image), key=lambda line: _work(image, line)):
        found.append(_Stretch(name, op, tuple(group)))
    return found


def _work(image: Image, line: Line) -> tuple[str, str]:
    """What an instruction works for: a node and its operator; in a hand-written program, whose lines move when one is
    inserted, a label."""
    node = image.debug.nodes[line.nodes[0]] if line.nodes else None
    if node is None or node.status == BY_LINE:
        return "".join(node.origins) if node else "", ""
    return node.name, operation(node)


def _align(a: Sequence[Hashable], b: Sequence[Hashable]) -> list[tuple[int | None, int | None]]:
    """Pairs of indices, in order, each index once; None where there is no partner."""
    pairs: list[tuple[int | None, int | None]] = []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(
        None, a, b, autojunk=max(len(a), len(b)) > _ENOUGH
    ).get_opcodes():
        if tag == "equal":
            pairs += zip(range(i1, i2), range(j1, j2), strict=True)
        else:
            pairs += [(i, None) for i in range(i1, i2)] + [(None, j) for j in range(j1, j2)]
    return pairs


def _rows(a: _Stretch | None, b: _Stretch | None) -> tuple[Row, ...]:
    left, right = (a.instructions if a else ()), (b.instructions if b else ())
    rows: list[Row] = []
    matcher = difflib.SequenceMatcher(
        None, [w.text for w in left], [w.text for w in right], autojunk=max(len(left), len(right)) > _ENOUGH
    )
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag == "equal":
            rows += [Row(x, y) for x, y in zip(left[i1:i2], right[j1:j2], strict=True)]
        else:
            rows += _replaced(left[i1:i2], right[j1:j2])
    return tuple(rows)


def _replaced(left: Sequence[Line], right: Sequence[Line]) -> list[Row]:
    """Different instructions face each other where the instruction is the same."""
    pairs = _align([_mnemonic(instruction) for instruction in left], [_mnemonic(instruction) for instruction in right])
    return [Row(left[i] if i is not None else None, right[j] if j is not None else None) for i, j in pairs]


def _mnemonic(line: Line) -> str:
    return line.inst.mnemonic if line.inst is not None else ""


def _engines(left: list[_Stretch], right: list[_Stretch]) -> dict[str, tuple[int, int]]:
    a, b = (Counter(instruction.engine for s in side for instruction in s.instructions) for side in (left, right))
    counts = {engine.value: (a[engine], b[engine]) for engine in Engine}
    illegal = (a[None], b[None])
    return {**counts, **({"illegal": illegal} if any(illegal) else {}), "all": (a.total(), b.total())}


def _part(part: Part) -> dict[str, Any]:
    rows = [_row(row) for row in part.rows] if part.changed else []
    return {
        "node": part.node,
        "words": list(part.counts),
        "busy": list(part.busy),
        "changed": part.changed,
        "rows": rows,
    }


def _row(row: Row) -> dict[str, Any]:
    return {"mark": row.mark, "a": _side(row.a), "b": _side(row.b)}


def _side(line: Line | None) -> dict[str, Any] | None:
    return None if line is None else {"pc": line.pc, "text": line.text}
