"""The functional machine: decodes a program once and executes its words in program order.

Engines run side by side on the chip, but a correct program's dependence counts make that invisible, so here they take turns.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emulator import activation, control, dma, matrix, vector
from emulator.formats import int_of_bits
from emulator.memory import Fault, Memory
from emulator.threads import single_threaded_blas
from emulator.word import HANDLERS, Call, Core, Handler, Scratch
from isa.codec import IllegalWord, Inst, decode
from isa.errors import Trap
from isa.spec import SCALARS, WORD_BYTES, Access, Engine, Field, Kind, Region, Space
from isa.views import Extents, View, access_of, extents_of

# (pc in bytes, loop index per level, instruction, operands, views in effect, memory), called after an engine word has executed.
Probe = Callable[[int, tuple[int, ...], Inst, Mapping[str, int], Mapping[str, View], Memory], None]

ENGINE_MODULES = (activation, control, dma, matrix, vector)  # imported so that their handlers are registered
LAZY = {"gather": frozenset({"a"})}  # only the rows that are fetched need to have been written
CACHED_PROGRAMS = 8


@dataclass(frozen=True, slots=True)
class Operand:
    """A view operand of a decoded word; `extents` is None while they depend on a scalar register."""

    field: Field
    number: int
    access: Access
    extents: Extents | None
    lazy: bool


@dataclass(frozen=True, slots=True)
class Word:
    """A decoded word with everything that does not change between executions."""

    inst: Inst
    handler: Handler
    engine: Engine
    operands: dict[str, int]
    views: tuple[Operand, ...]
    dynamic: str  # the extent that comes from a scalar register, or ""
    limit: int  # the largest value that extent can have
    empty: bool  # an extent is 0


class Machine:
    """One chip with its memories. `regions` are shared, not copied; those in `initialised` count as written."""

    def __init__(
        self,
        sram_bytes: int,
        acc_bytes: int,
        regions: Mapping[Region, NDArray[np.uint8]] | None = None,
        initialised: Set[Region] = frozenset(),
    ) -> None:
        self.memory = Memory(sram_bytes, acc_bytes, regions or {}, initialised)
        self._scratch = Scratch()
        self._programs: dict[bytes, list[Word | None]] = {}

    def run(
        self, code: bytes, pc: int = 0, scalars: Sequence[int] = (), probe: Probe | None = None, node_of: Callable[[int], str] | None = None
    ) -> int:
        """Execute from byte address `pc` until `halt`; returns its exit code. Raises Trap."""
        words = self._decoded(code)
        core = Core(self.memory, self._scratch, len(words), pc // WORD_BYTES, [int_of_bits(s) for s in scalars])
        self.memory.launch()
        here = core.pc
        try:
            if pc % WORD_BYTES or len(code) % WORD_BYTES or len(scalars) > SCALARS:
                raise Fault(f"cannot start at {pc:#x} with {len(code)} bytes of code and {len(scalars)} scalars")
            with np.errstate(all="ignore"), single_threaded_blas():
                while core.exit is None:
                    here = core.pc
                    word = words[here] if 0 <= here < len(words) else None
                    if word is None:
                        word = _decode_at(code, here)
                        words[here] = word
                    core.pc += 1
                    _execute(core, word, probe)
                    while core.loops and core.pc == core.loops[-1].end:
                        control.next_iteration(core)
        except (Fault, IllegalWord) as fault:
            raise _trap(fault, code, here, node_of) from fault
        return core.exit

    def _decoded(self, code: bytes) -> list[Word | None]:
        """Words are decoded when first reached, so that an illegal word traps only if it is executed."""
        words = self._programs.get(code)
        if words is None:
            if len(self._programs) >= CACHED_PROGRAMS:
                self._programs.pop(next(iter(self._programs)))
            words = self._programs[code] = [None] * (len(code) // WORD_BYTES)
        return words


def _execute(core: Core, word: Word, probe: Probe | None) -> None:
    call = _prepare(core, word)
    if call is None:
        return
    word.handler(core, call)
    if probe is not None and word.engine is not Engine.CTL:
        probe((core.pc - 1) * WORD_BYTES, tuple(core.indices), word.inst, call.operands, call.views, core.memory)


def _prepare(core: Core, word: Word) -> Call | None:
    """Resolve extents, views and blocks, checking everything. None when there is nothing to do."""
    operands, empty = word.operands, word.empty
    if word.dynamic:
        value = core.scalars[operands["dyn_s"]]
        if not 0 <= value <= word.limit:
            raise Fault(f"extent {word.dynamic} = s{operands['dyn_s']} = {value} is not between 0 and {word.limit}")
        operands = {**operands, word.dynamic: value}
        empty = _is_empty(word.inst, operands)
    if empty:
        return None
    call = Call(operands, {}, {}, {})
    targets = []
    for operand in word.views:
        name, view = operand.field.name, core.view(operand.number)
        _check_kind(operand.field, view)
        extents = operand.extents or extents_of(operand.field, operands)
        call.views[name], call.extents[name] = view, extents
        if operand.access is not Access.W:
            call.blocks[name] = core.memory.source(view, extents, operand.lazy)
        if operand.access is not Access.R:
            targets.append(name)
    for name in targets:
        call.blocks[name] = core.memory.target(call.views[name], call.extents[name])
    for name in targets:
        _save_overwritten(call, name, targets)
    return call


def _save_overwritten(call: Call, target: str, targets: list[str]) -> None:
    """Copy sources that lie partly under a destination. The very same block is fine: it is read and written element by element."""
    view, extents = call.views[target], call.extents[target]
    low, high = view.span(extents)
    for name, other in call.views.items():
        elsewhere = other.space is not view.space or (view.space is Space.DRAM and other.region is not view.region)
        if elsewhere or name in targets:
            continue
        begin, end = other.span(call.extents[name])
        if begin < high and low < end and not (other == view and call.extents[name] == extents):
            call.blocks[name] = call.blocks[name].copy()


def _check_kind(field: Field, view: View) -> None:
    if view.dtype not in field.dtypes:
        raise Fault(f"operand {field.name} cannot be {view.dtype.name.lower()}, only {', '.join(d.name.lower() for d in field.dtypes)}")
    if view.space not in field.spaces:
        raise Fault(
            f"operand {field.name} cannot be in {view.space.name.lower()}, only in {', '.join(s.name.lower() for s in field.spaces)}"
        )


def _decode_at(code: bytes, index: int) -> Word:
    data = code[index * WORD_BYTES : (index + 1) * WORD_BYTES]
    if index < 0 or len(data) < WORD_BYTES:
        raise Fault("execution left the program; a halt is missing")
    inst = decode(data)
    row, operands = inst.row, inst.named()
    dyn = next((f for f in row.fields if f.name == "dyn" and f.choices), None)  # of `loop` it is a plain flag
    dynamic = dyn.choices[operands["dyn"]] if dyn and operands["dyn"] else ""
    views = []
    for field in row.views:
        number = operands[field.name]
        if number == 0 and field.default is None:
            raise IllegalWord(f"{inst.mnemonic} needs operand {field.name}, but it is v0")
        if number:
            extents = None if dynamic else extents_of(field, operands)
            views.append(Operand(field, number, access_of(field, operands), extents, field.name in LAZY.get(inst.mnemonic, ())))
    limit = (1 << row.field(dynamic).bits) - 1 if dynamic else 0
    handler = HANDLERS[inst.mnemonic]
    return Word(inst, handler, row.engine, operands, tuple(views), dynamic, limit, _is_empty(inst, operands))


def _is_empty(inst: Inst, operands: Mapping[str, int]) -> bool:
    return any(operands[name] == 0 for field in inst.row.views for name in field.dims if name in operands)


def describe(inst: Inst) -> str:
    """The instruction on one line, leaving out operands that have their default."""
    parts = [_operand_text(f, v) for f, v in zip(inst.row.fields, inst.operands, strict=True) if v != f.default]
    return f"{inst.mnemonic} {', '.join(parts)}".strip()


def _operand_text(field: Field, value: int) -> str:
    if field.choices:
        return f"{field.name}={field.choices[value]}"
    return f"{field.name}={ {Kind.VIEW: 'v', Kind.SCALAR: 's'}.get(field.kind, '') }{value}"


def _trap(fault: Exception, code: bytes, index: int, node_of: Callable[[int], str] | None) -> Trap:
    pc = index * WORD_BYTES
    data = code[pc : pc + WORD_BYTES] if pc >= 0 else b""
    try:
        text = describe(decode(data)) if len(data) == WORD_BYTES else ""
    except IllegalWord:
        text = f".word 0x{int.from_bytes(data, 'little'):032x}"
    return Trap(str(fault), pc, text, node_of(pc) if node_of else "")
