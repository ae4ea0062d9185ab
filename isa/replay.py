"""Replay of the control instructions: which engine instructions are dispatched, in which order, on which memory.
Computes no data.

    for i in trace(image, values={"length": 17}):    i.pc, i.inst, i.indices, i.operands, i.views

Used by the checkers. Separate code from the emulator's control instructions but written to agree with them
(emulator/control.py): a rule that both misread is found by neither.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from isa.architecture import LOOP_LEVELS, SCALARS, WORD_BYTES, Dtype, Engine, Region, Space
from isa.codec import IllegalInstruction, Inst, decode
from isa.fields import Field
from isa.image.container import Data
from isa.image.image import Image
from isa.image.records import Entry
from isa.spec import SALU
from isa.views import Extents, View, extents_of

Loader = Callable[[View], int]
MAX_INSTRUCTIONS = 1 << 19  # of a launch; a list of them takes some 300 MB


class ReplayError(Exception):
    """The program cannot be followed any further. `pc` and `inst` say where."""

    def __init__(self, what: str, pc: int, inst: Inst | None = None) -> None:
        super().__init__(what)
        self.what, self.pc, self.inst = what, pc, inst


class TooLong(ReplayError):
    """The program was left after `limit` instructions. `running` are the loops around that place, outermost first: pc,
    iterations done, all iterations."""

    def __init__(self, limit: int, pc: int, running: tuple[tuple[int, int, int], ...]) -> None:
        super().__init__(f"still running after {limit} instructions", pc)
        self.running = running


class Skipper(Protocol):
    """Decides which iterations a replay leaves out. What they would have done must be known in another way
    (lint/induction.py)."""

    def entered(self, core: "Core", loop: "Loop") -> None:
        """A loop begins; `core` is at its first instruction."""

    def skip(self, loop: "Loop", iteration: int, executed: int) -> int:
        """How many iterations to leave out before this one, when `executed` instructions have been."""
        ...


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One dispatched instruction: operands after dynamic extents, views in effect. `empty` instructions do nothing and
    have no views."""

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
    """The extent that the instruction reads from scalar register `dyn_s`, or ""."""
    operands = inst.named()
    return inst.row.field("dyn").choices[operands["dyn"]] if "dyn_s" in operands and operands["dyn"] else ""


def is_empty(inst: Inst, operands: Mapping[str, int]) -> bool:
    """Whether an extent of the instruction is 0, so that it does nothing."""
    return any(operands.get(name) == 0 for field in inst.row.views for name in field.dims)


def trace(
    image: Image, entry: str | None = None, values: Mapping[str, int] | None = None, *, control: bool = False,
    skipper: Skipper | None = None, limit: int = MAX_INSTRUCTIONS,
) -> Iterator[Dispatch]:  # fmt: skip
    """The instructions of one launch. `values` gives scalar arguments by name; the others take their maximum.

    A `skipper` may leave iterations of long loops out.
    """
    start = image.entry(entry)
    load = loader(image, start, values or {})
    return replay(image.code, start.pc, load=load, control=control, limit=limit, skipper=skipper)


def loader(image: Image, start: Entry, values: Mapping[str, int]) -> Loader:
    """What `sld` finds in a launch of entry `start`: scalar arguments, by name in `values`, and constants. It raises
    ValueError for what is not known before the launch."""
    params = {scalar.offset: values.get(scalar.name, scalar.maximum) for scalar in start.scalars}

    def load(view: View) -> int:
        if view.space is Space.DRAM and view.region is Region.PARAMS and view.base in params:
            return params[view.base]
        constant = image.data(view.region) if view.space is Space.DRAM else b""
        if 0 <= view.base <= len(constant) - 4:
            return int.from_bytes(constant[view.base : view.base + 4], "little", signed=True)
        raise ValueError(
            f"the scalar at {view} is neither constant nor an argument of entry {start.name}: its value is not known before the launch"
        )

    return load


def replay(
    code: Data,
    pc: int = 0,
    scalars: Sequence[int] = (),
    load: Loader | None = None,
    *,
    control: bool = False,
    limit: int = MAX_INSTRUCTIONS,
    skipper: Skipper | None = None,
) -> Iterator[Dispatch]:
    """The instructions that are dispatched from byte address `pc` up to `halt`, control instructions only with
    `control`.

    `scalars` are the initial scalar registers, `load` what `sld` finds. Raises ReplayError for an instruction that
    cannot run, and TooLong after `limit` instructions.
    """
    core = Core(code, pc, list(scalars) + [0] * (SCALARS - len(scalars)), load or _no_load)
    core.skipper = skipper
    for _ in range(limit):
        here = core.pc
        instruction = core.fetch()
        try:
            dispatch = core.resolve(here, instruction)
            core.pc += WORD_BYTES
            core.executed += 1
            if instruction.engine is not Engine.CTL:
                yield dispatch
            else:
                if control:
                    yield dispatch
                _CONTROL.get(instruction.inst.mnemonic, _nothing)(core, dispatch)
        except (ValueError, ZeroDivisionError) as error:
            raise ReplayError(str(error), here, instruction.inst) from error
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
class _Decoded:
    """A decoded instruction and what does not change from one execution to the next."""

    inst: Inst
    engine: Engine
    operands: dict[str, int]
    views: tuple[tuple[str, int], ...]
    dynamic: str
    empty: bool


class Core:
    """Everything that control instructions change."""

    def __init__(self, code: Data, pc: int, scalars: list[int], load: Loader) -> None:
        self.code, self.pc, self.scalars, self.load = code, pc, scalars, load
        self.registers: dict[int, _Register] = {}
        self.indices = [0] * LOOP_LEVELS
        self.loops: list[Loop] = []
        self.halted = False
        self.decoded: dict[int, _Decoded] = {}
        self.skipper: Skipper | None = None
        self.executed = 0

    def fetch(self) -> _Decoded:
        return self.fetch_at(self.pc)

    def fetch_at(self, pc: int) -> _Decoded:
        instruction = self.decoded.get(pc)
        if instruction is None:
            instruction = self.decoded[pc] = _decode_at(self.code, pc)
        return instruction

    def resolve(self, pc: int, instruction: _Decoded) -> Dispatch:
        """An instruction as it is dispatched now. Raises ValueError when an extent from a register does not fit its
        field."""
        operands, empty = instruction.operands, instruction.empty
        if instruction.dynamic:
            value = self.scalars[operands["dyn_s"]]
            if not 0 <= value < 1 << instruction.inst.row.field(instruction.dynamic).bits:
                raise ValueError(
                    f"extent {instruction.dynamic} = s{operands['dyn_s']} = {value} does not fit its field"
                )
            operands = {**operands, instruction.dynamic: value}
            empty = is_empty(instruction.inst, operands)
        views = {} if empty else {name: self.view(number) for name, number in instruction.views}
        return Dispatch(pc, instruction.inst, tuple(self.indices), operands, views, empty)

    def register(self, number: int) -> _Register:
        """A view register. Raises ValueError when it was never set."""
        if number not in self.registers:
            raise ValueError(f"view v{number} is used before it is set")
        return self.registers[number]

    def view(self, number: int) -> View:
        register = self.register(number)
        if not register.steps:
            return register.view
        base = register.view.base
        for level, inc, div, mod in register.steps:
            moved = self.indices[level] // div
            base += inc * (moved % mod if mod else moved)
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


def _decode_at(code: Data, pc: int) -> _Decoded:
    if pc < 0 or pc % WORD_BYTES or pc + WORD_BYTES > len(code):
        raise ReplayError("execution leaves the program; a halt is missing", pc)
    try:
        inst = decode(bytes(code[pc : pc + WORD_BYTES]))
    except IllegalInstruction as error:
        raise ReplayError(f"illegal instruction: {error}", pc) from error
    operands = inst.named()
    missing = [f.name for f in inst.row.views if f.default is None and operands[f.name] == 0]
    if missing:
        raise ReplayError(f"operand {missing[0]} is v0, the absent view", pc, inst)
    views = tuple((f.name, operands[f.name]) for f in inst.row.views if operands[f.name])
    return _Decoded(inst, inst.row.engine, operands, views, dynamic_extent(inst), is_empty(inst, operands))


def _no_load(view: View) -> int:
    raise ValueError(f"the scalar at {view} is not known before the launch")


def signed(bits: int) -> int:
    """The signed value of the low 32 bits."""
    return ((bits & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000


def _nothing(core: Core, instruction: Dispatch) -> None:
    pass


def _halt(core: Core, instruction: Dispatch) -> None:
    core.halted = True


def _loop(core: Core, instruction: Dispatch) -> None:
    operands = instruction.operands
    level, end = operands["level"], core.pc + WORD_BYTES * operands["len"]
    count = core.scalars[operands["s"]] if operands["dyn"] else operands["count"]
    if any(outer.level == level for outer in core.loops):
        raise ValueError(f"loop level {level} is already in use")
    if end > (core.loops[-1].end if core.loops else len(core.code)):
        raise ValueError(
            f"the loop body of {operands['len']} instructions leaves the {'enclosing loop' if core.loops else 'program'}"
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


def combined(f: int, a: int, b: int) -> int:
    """What `salu` with function number `f` makes of two registers, 32 bits, signed. Raises ZeroDivisionError."""
    return signed(_SALU[f](a, b))


def _salu(core: Core, instruction: Dispatch) -> None:
    operands = instruction.operands
    second = signed(operands["imm"]) if operands["bi"] else core.scalars[operands["b"]]
    core.scalars[operands["d"]] = combined(operands["f"], core.scalars[operands["a"]], second)


def _sld(core: Core, instruction: Dispatch) -> None:
    view = instruction.views["v"]
    core.scalars[instruction.operands["d"]] = signed(
        core.load(replace(view, base=view.base + instruction.operands["off"] * view.cs * 4))
    )


def _vset(core: Core, instruction: Dispatch) -> None:
    if not instruction.operands["v"]:
        raise ValueError("v0 is the absent view and cannot be set")
    core.registers[instruction.operands["v"]] = _Register(view_of(instruction.operands))


def _vinc(core: Core, instruction: Dispatch) -> None:
    operands = instruction.operands
    if not operands["div"]:
        raise ValueError("vinc divides by zero")
    core.register(operands["v"]).steps.append((operands["level"], operands["inc"], operands["div"], operands["mod"]))


def _vadd(core: Core, instruction: Dispatch) -> None:
    register = core.register(instruction.operands["v"])
    register.view = replace(
        register.view, base=register.view.base + core.scalars[instruction.operands["s"]] * instruction.operands["scale"]
    )


_CONTROL: dict[str, Callable[[Core, Dispatch], None]] = {
    "halt": _halt, "loop": _loop, "salu": _salu, "sld": _sld, "vset": _vset, "vinc": _vinc, "vadd": _vadd,
}  # fmt: skip
