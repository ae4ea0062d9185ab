"""Replay of the control words: which engine words are dispatched, in which order, on which memory. Computes no data.

    for word in trace(image, values={"length": 17}):    word.pc, word.inst, word.indices, word.operands, word.views

Used by the checkers. Separate code from the emulator's control words but written to agree with them
(emulator/control.py): a rule that both misread is found by neither.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from isa.codec import IllegalWord, Inst, decode
from isa.image.container import Data
from isa.image.image import Image
from isa.spec import LOOP_LEVELS, SALU, SCALARS, WORD_BYTES, Dtype, Engine, Field, Region, Space
from isa.views import Extents, View, extents_of

Loader = Callable[[View], int]
MAX_WORDS = 1 << 19  # of a launch; a list of them takes some 300 MB


class ReplayError(Exception):
    """The program cannot be followed any further. `pc` and `inst` say where."""

    def __init__(self, what: str, pc: int, inst: Inst | None = None) -> None:
        super().__init__(what)
        self.what, self.pc, self.inst = what, pc, inst


class TooLong(ReplayError):
    """The program was left after `limit` words. `running` are the loops around that place, outermost first: pc, turns
    done, all turns."""

    def __init__(self, limit: int, pc: int, running: tuple[tuple[int, int, int], ...]) -> None:
        super().__init__(f"still running after {limit} words", pc)
        self.running = running


class Skipper(Protocol):
    """Decides which iterations a replay leaves out. What they would have done must be known in another way
    (lint/induction.py)."""

    def entered(self, core: "Core", loop: "Loop") -> None:
        """A loop begins; `core` is at its first word."""

    def skip(self, loop: "Loop", iteration: int, executed: int) -> int:
        """How many iterations to leave out before this one, when `executed` words have been."""
        ...


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One dispatched word: operands after dynamic extents, views in effect. `empty` words do nothing and have no
    views."""

    pc: int
    inst: Inst
    indices: tuple[int, ...]
    operands: Mapping[str, int]
    views: Mapping[str, View]
    empty: bool = False

    @property
    def engine(self) -> Engine:
        return self.inst.row.engine

    def extents(self, field: Field) -> Extents:
        return extents_of(field, self.operands)


def view_of(operands: Mapping[str, int]) -> View:
    """The view that a `vset` with these operands defines."""
    return View(
        Space(operands["space"]), Region(operands["region"]), Dtype(operands["dtype"]),
        operands["base"], operands["rs"], operands["ps"], operands["cs"],
    )  # fmt: skip


def dynamic_extent(inst: Inst) -> str:
    """The extent that the word reads from scalar register `dyn_s`, or ""."""
    operands = inst.named()
    return inst.row.field("dyn").choices[operands["dyn"]] if "dyn_s" in operands and operands["dyn"] else ""


def is_empty(inst: Inst, operands: Mapping[str, int]) -> bool:
    """Whether an extent of the word is 0, so that it does nothing."""
    return any(operands.get(name) == 0 for field in inst.row.views for name in field.dims)


def trace(
    image: Image, entry: str | None = None, values: Mapping[str, int] | None = None, *, control: bool = False,
    skipper: Skipper | None = None, limit: int = MAX_WORDS,
) -> Iterator[Dispatch]:  # fmt: skip
    """The words of one launch. `values` gives scalar arguments by name; the others take their maximum.

    A `skipper` may leave iterations of long loops out.
    """
    start = image.entry(entry)
    given = values or {}
    params = {scalar.offset: given.get(scalar.name, scalar.maximum) for scalar in start.scalars}

    def load(view: View) -> int:
        if view.space is Space.DRAM and view.region is Region.PARAMS and view.base in params:
            return params[view.base]
        constant = image.data(view.region) if view.space is Space.DRAM else b""
        if 0 <= view.base <= len(constant) - 4:
            return int.from_bytes(constant[view.base : view.base + 4], "little", signed=True)
        raise ValueError(
            f"the scalar at {view} is neither constant nor an argument of entry {start.name}: its value is not known before the launch"
        )

    return replay(image.code, start.pc, load=load, control=control, limit=limit, skipper=skipper)


def replay(
    code: Data,
    pc: int = 0,
    scalars: Sequence[int] = (),
    load: Loader | None = None,
    *,
    control: bool = False,
    limit: int = MAX_WORDS,
    skipper: Skipper | None = None,
) -> Iterator[Dispatch]:
    """The words that are dispatched from byte address `pc` up to `halt`, control words only with `control`.

    `scalars` are the initial scalar registers, `load` what `sld` finds. Raises ReplayError.
    """
    core = Core(code, pc, list(scalars) + [0] * (SCALARS - len(scalars)), load or _no_load)
    core.skipper = skipper
    for _ in range(limit):
        here = core.pc
        word = core.fetch()
        try:
            dispatch = core.resolve(here, word)
            core.pc += WORD_BYTES
            core.executed += 1
            if word.engine is not Engine.CTL:
                yield dispatch
            else:
                if control:
                    yield dispatch
                _CONTROL.get(word.inst.mnemonic, _nothing)(core, dispatch)
        except (ValueError, ZeroDivisionError) as error:
            raise ReplayError(str(error), here, word.inst) from error
        if core.halted:
            return
        while core.loops and core.pc == core.loops[-1].end:
            core.next_iteration()
    raise TooLong(
        limit, core.pc, tuple((loop.start - WORD_BYTES, core.indices[loop.level], loop.count) for loop in core.loops)
    )


@dataclass(slots=True)
class Loop:
    level: int
    start: int
    end: int
    count: int


@dataclass(slots=True)
class _Register:
    view: View
    steps: list[tuple[int, int, int, int]] = field(default_factory=list)  # level, inc, div, mod


@dataclass(frozen=True, slots=True)
class _Word:
    """A decoded word and what does not change from one execution to the next."""

    inst: Inst
    engine: Engine
    operands: dict[str, int]
    views: tuple[tuple[str, int], ...]
    dynamic: str
    empty: bool


class Core:
    """Everything that control words change."""

    def __init__(self, code: Data, pc: int, scalars: list[int], load: Loader) -> None:
        self.code, self.pc, self.scalars, self.load = code, pc, scalars, load
        self.registers: dict[int, _Register] = {}
        self.indices = [0] * LOOP_LEVELS
        self.loops: list[Loop] = []
        self.halted = False
        self.decoded: dict[int, _Word] = {}
        self.skipper: Skipper | None = None
        self.executed = 0

    def fetch(self) -> _Word:
        return self.fetch_at(self.pc)

    def fetch_at(self, pc: int) -> _Word:
        word = self.decoded.get(pc)
        if word is None:
            word = self.decoded[pc] = _decode_at(self.code, pc)
        return word

    def resolve(self, pc: int, word: _Word) -> Dispatch:
        operands, empty = word.operands, word.empty
        if word.dynamic:
            value = self.scalars[operands["dyn_s"]]
            if not 0 <= value < 1 << word.inst.row.field(word.dynamic).bits:
                raise ValueError(f"extent {word.dynamic} = s{operands['dyn_s']} = {value} does not fit its field")
            operands = {**operands, word.dynamic: value}
            empty = is_empty(word.inst, operands)
        views = {} if empty else {name: self.view(number) for name, number in word.views}
        return Dispatch(pc, word.inst, tuple(self.indices), operands, views, empty)

    def register(self, number: int) -> _Register:
        if number not in self.registers:
            raise ValueError(f"view v{number} is used before it is set")
        return self.registers[number]

    def view(self, number: int) -> View:
        register = self.register(number)
        if not register.steps:
            return register.view
        base = register.view.base
        for level, inc, div, mod in register.steps:
            turn = self.indices[level] // div
            base += inc * (turn % mod if mod else turn)
        return replace(register.view, base=base)

    def next_iteration(self) -> None:
        inner = self.loops[-1]
        self.indices[inner.level] += 1
        if self.skipper is not None:
            self.indices[inner.level] += self.skipper.skip(inner, self.indices[inner.level], self.executed)
        if self.indices[inner.level] < inner.count:
            self.pc = inner.start
        else:
            self.indices[inner.level] = 0
            self.loops.pop()


def _decode_at(code: Data, pc: int) -> _Word:
    if pc < 0 or pc % WORD_BYTES or pc + WORD_BYTES > len(code):
        raise ReplayError("execution leaves the program; a halt is missing", pc)
    try:
        inst = decode(bytes(code[pc : pc + WORD_BYTES]))
    except IllegalWord as error:
        raise ReplayError(f"illegal word: {error}", pc) from error
    operands = inst.named()
    missing = [f.name for f in inst.row.views if f.default is None and operands[f.name] == 0]
    if missing:
        raise ReplayError(f"operand {missing[0]} is v0, the absent view", pc, inst)
    views = tuple((f.name, operands[f.name]) for f in inst.row.views if operands[f.name])
    return _Word(inst, inst.row.engine, operands, views, dynamic_extent(inst), is_empty(inst, operands))


def _no_load(view: View) -> int:
    raise ValueError(f"the scalar at {view} is not known before the launch")


def signed(bits: int) -> int:
    """The signed value of the low 32 bits."""
    return ((bits & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000


def _nothing(core: Core, word: Dispatch) -> None:
    pass


def _halt(core: Core, word: Dispatch) -> None:
    core.halted = True


def _loop(core: Core, word: Dispatch) -> None:
    operands = word.operands
    level, end = operands["level"], core.pc + WORD_BYTES * operands["len"]
    count = core.scalars[operands["s"]] if operands["dyn"] else operands["count"]
    if any(outer.level == level for outer in core.loops):
        raise ValueError(f"loop level {level} is already in use")
    if end > (core.loops[-1].end if core.loops else len(core.code)):
        raise ValueError(
            f"the loop body of {operands['len']} words leaves the {'enclosing loop' if core.loops else 'program'}"
        )
    if count <= 0 or not operands["len"]:
        core.pc = end
    else:
        core.loops.append(Loop(level, core.pc, end, count))
        if core.skipper is not None:
            core.skipper.entered(core, core.loops[-1])


_SALU: tuple[Callable[[int, int], int], ...] = (
    lambda a, b: b, lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, min, max,
    lambda a, b: -(-a // b), lambda a, b: a << (b & 31), lambda a, b: a >> (b & 31), lambda a, b: a & b,
)  # fmt: skip
assert len(_SALU) == len(SALU)


def _salu(core: Core, word: Dispatch) -> None:
    operands = word.operands
    second = signed(operands["imm"]) if operands["bi"] else core.scalars[operands["b"]]
    core.scalars[operands["d"]] = signed(_SALU[operands["f"]](core.scalars[operands["a"]], second))


def _sld(core: Core, word: Dispatch) -> None:
    view = word.views["v"]
    core.scalars[word.operands["d"]] = signed(
        core.load(replace(view, base=view.base + word.operands["off"] * view.cs * 4))
    )


def _vset(core: Core, word: Dispatch) -> None:
    if not word.operands["v"]:
        raise ValueError("v0 is the absent view and cannot be set")
    core.registers[word.operands["v"]] = _Register(view_of(word.operands))


def _vinc(core: Core, word: Dispatch) -> None:
    operands = word.operands
    if not operands["div"]:
        raise ValueError("vinc divides by zero")
    core.register(operands["v"]).steps.append((operands["level"], operands["inc"], operands["div"], operands["mod"]))


def _vadd(core: Core, word: Dispatch) -> None:
    register = core.register(word.operands["v"])
    register.view = replace(
        register.view, base=register.view.base + core.scalars[word.operands["s"]] * word.operands["scale"]
    )


_CONTROL: dict[str, Callable[[Core, Dispatch], None]] = {
    "halt": _halt, "loop": _loop, "salu": _salu, "sld": _sld, "vset": _vset, "vinc": _vinc, "vadd": _vadd,
}  # fmt: skip
