"""Decoded instructions, and the two steps before an instruction executes: `resolve` (what dispatch snapshots) and
`bind` (its blocks of memory)."""

from collections.abc import Mapping
from dataclasses import dataclass

from emulator import activation, control, dma, grouped, matrix, vector
from emulator.context import HANDLERS, Call, Core, Handler
from emulator.memory import Fault
from isa.architecture import WORD_BYTES, Engine, Space
from isa.codec import IllegalInstruction, Inst, decode
from isa.fields import Access, Field
from isa.views import Extents, View, access_of, extents_of

ENGINE_MODULES = (activation, control, dma, grouped, matrix, vector)  # imported so that their handlers are registered


@dataclass(frozen=True, slots=True)
class Operand:
    """A view operand of a decoded instruction; `extents` is None while they depend on a scalar register."""

    field: Field
    number: int
    access: Access
    extents: Extents | None
    lazy: bool


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded instruction with everything that does not change between executions."""

    inst: Inst
    handler: Handler
    engine: Engine
    operands: dict[str, int]
    views: tuple[Operand, ...]
    dynamic: str  # the extent that comes from a scalar register, or ""
    limit: int  # the largest value that extent can have
    empty: bool  # an extent is 0


def decode_at(code: bytes, index: int) -> Decoded:
    """The instruction at an index of the code. Raises Fault beyond its end, and IllegalInstruction for what is no
    instruction or lacks a view."""
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
            raise IllegalInstruction(f"{inst.mnemonic} needs operand {field.name}, but it is v0")
        if number:
            extents = None if dynamic else extents_of(field, operands)
            views.append(Operand(field, number, access_of(field, operands), extents, field.partial))
    limit = (1 << row.field(dynamic).bits) - 1 if dynamic else 0
    handler = HANDLERS[inst.mnemonic]
    return Decoded(inst, handler, row.engine, operands, tuple(views), dynamic, limit, _is_empty(inst, operands))


def _is_empty(inst: Inst, operands: Mapping[str, int]) -> bool:
    return any(operands[name] == 0 for field in inst.row.views for name in field.dims if name in operands)


def resolve(core: Core, instruction: Decoded) -> Call | None:
    """Extents and views as they stand now, checked but without their memory. None when there is nothing to do. Raises
    Fault for an extent outside its field, and a view that was never set."""
    operands, empty = instruction.operands, instruction.empty
    if instruction.dynamic:
        value = core.scalars[operands["dyn_s"]]
        if not 0 <= value <= instruction.limit:
            raise Fault(
                f"extent {instruction.dynamic} = s{operands['dyn_s']} = {value} is not between 0 and {instruction.limit}"
            )
        operands = {**operands, instruction.dynamic: value}
        empty = _is_empty(instruction.inst, operands)
    if empty:
        return None
    call = Call(operands, {}, {}, {})
    for operand in instruction.views:
        name, view = operand.field.name, core.view(operand.number)
        _check_kind(operand.field, view)
        call.views[name], call.extents[name] = view, operand.extents or extents_of(operand.field, operands)
    return call


def bind(core: Core, instruction: Decoded, call: Call) -> None:
    """The blocks of memory of a resolved call, checking range, alignment and definedness."""
    bind_sources(core, instruction, call)
    bind_targets(core, instruction, call)


def bind_sources(core: Core, instruction: Decoded, call: Call) -> None:
    for operand in instruction.views:
        name = operand.field.name
        if operand.access is not Access.W:
            call.blocks[name] = core.memory.source(call.views[name], call.extents[name], operand.lazy or core.proven)


def bind_targets(core: Core, instruction: Decoded, call: Call) -> None:
    targets = [operand.field.name for operand in instruction.views if operand.access is not Access.R]
    for name in targets:
        call.blocks[name] = core.memory.target(call.views[name], call.extents[name])
    for name in targets:
        _save_overwritten(call, name, targets)


def _save_overwritten(call: Call, target: str, targets: list[str]) -> None:
    """Copy sources that lie partly under a destination. The very same block is fine: it is read and written element by
    element."""
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
        raise Fault(
            f"operand {field.name} cannot be {view.dtype.name.lower()}, only {', '.join(d.name.lower() for d in field.dtypes)}"
        )
    if view.space not in field.spaces:
        raise Fault(
            f"operand {field.name} cannot be in {view.space.name.lower()}, only in {', '.join(s.name.lower() for s in field.spaces)}"
        )
