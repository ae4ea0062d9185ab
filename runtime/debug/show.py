"""The session as text. Every function gives the lines it would print; nothing here changes anything."""

from collections.abc import Iterable, Sequence
from typing import Any

from isa.architecture import NO_WAIT, QUEUES, WORD_BYTES
from isa.asm.listing import place
from isa.asm.text import format_inst
from isa.codec import IllegalInstruction, decode
from isa.views import Extents, View
from runtime.debug.names import said
from runtime.debug.nodes import Comparison
from runtime.debug.session import Session
from runtime.debug.styled import instruction as pieces
from runtime.debug.styled import styled

Lines = Iterable[str]


def extents_text(extents: Extents) -> str:
    return "x".join(map(str, extents[1:] if extents[0] == 1 else extents))


def instruction(code: bytes) -> str:
    try:
        return format_inst(decode(code))
    except IllegalInstruction:
        return f".word {int.from_bytes(code, 'little'):#034x}"


def location(session: Session) -> Lines:
    """Where execution stands: the next instruction with its operands as they are now, and its node."""
    stepper = session.stepper
    if stepper.exit is not None:
        yield f"ended with exit code {stepper.exit} after {stepper.time} instructions"
        return
    node = session.nodes.at(stepper.pc, stepper.indices)
    if node is not None:
        place = session.nodes.place(node)
        record = session.nodes.debug.nodes[node]
        source = [("source", f"  {place}: {record.code.strip()}")] if place else []
        yield styled("node ", ("node", record.name), *source)
    loops = ", ".join(f"i{loop.level}={stepper.core.indices[loop.level]}" for loop in stepper.core.loops)
    text = instruction(stepper.code[stepper.pc : stepper.pc + WORD_BYTES])
    yield styled("=> ", ("address", f"{stepper.pc:#06x}"), "  ", *pieces(text), f"  ({loops})" if loops else "")
    yield from (f"     {line}" for line in operands(session))


def meant(session: Session, names: Sequence[str], number: int) -> Lines:
    """What a node is that was called by the model's name for it."""
    for name in names:
        if line := said(session.nodes.debug, name, number):
            yield line


def operands(session: Session) -> Lines:
    call = session.stepper.next_call()
    for name, view in call.views.items() if call else ():
        yield f"{name} = {view} {extents_text(call.extents[name])}" if call else ""


def around(session: Session, pc: int, count: int) -> Lines:
    """Instructions before and behind a pc; the next one and breakpoints are marked."""
    stepper, marked = session.stepper, {p.pc for p in session.points.points if p.pc is not None}
    shown = ""
    for here in range(
        max(0, pc - count * WORD_BYTES), min(len(stepper.code), pc + (count + 1) * WORD_BYTES), WORD_BYTES
    ):
        name = session.nodes.name_at(here, stepper.indices)
        if name and name != shown:
            yield styled(("node", f"   ; {name}"))
            shown = name
        mark = "=>" if here == stepper.pc and stepper.exit is None else " *" if here in marked else "  "
        text = instruction(stepper.code[here : here + WORD_BYTES])
        yield styled(f"{mark} ", ("address", f"{here:#06x}"), "  ", *pieces(text))


def registers(session: Session) -> Lines:
    core = session.stepper.core
    for number, register in enumerate(core.views):
        if register is not None:
            view = core.view(number)
            strides = f" ps={view.ps} rs={view.rs}" + ("" if view.cs else " cs=0")
            moves = "".join(
                f" + {s.inc:#x}*(i{s.level}//{s.div}{f'%{s.mod}' if s.mod else ''})" for s in register.steps
            )
            yield f"v{number:<3} {view}{strides}{f'  base {register.view.base:#x}{moves}' if moves else ''}"
    scalars = [f"s{number}={value}" for number, value in enumerate(core.scalars) if value]
    yield "scalars: " + (", ".join(scalars) or "all 0")


def standing(session: Session) -> dict[str, Any]:
    """Where execution stands, for programs."""
    stepper = session.stepper
    number = session.nodes.at(stepper.pc, stepper.indices) if stepper.exit is None else None
    return {
        "time": stepper.time,
        "pc": stepper.pc,
        "exit": stepper.exit,
        "node": "" if number is None else session.nodes.debug.nodes[number].name,
        "loops": {f"i{loop.level}": stepper.core.indices[loop.level] for loop in stepper.core.loops},
    }


def view_facts(view: View) -> dict[str, Any]:
    """A view as a document has it."""
    numbers = {"base": view.base, "rs": view.rs, "ps": view.ps, "cs": view.cs}
    return {"memory": place(view), "dtype": view.dtype.name.lower(), **numbers}


def machine(session: Session) -> dict[str, Any]:
    """The registers and counts, for programs."""
    core = session.stepper.core
    views = {f"v{n}": view_facts(core.view(n)) for n, register in enumerate(core.views) if register is not None}
    return {
        **standing(session),
        "scalars": list(core.scalars),
        "views": views,
        "engines": {engine.value: count for engine, (count, _) in session.engine_counts().items()},
        "breakpoints": [{"number": p.number, "at": str(p)} for p in session.points.points],
    }


def loops(session: Session) -> Lines:
    """Innermost first."""
    stepper = session.stepper
    yield f"#0 pc {stepper.pc:#06x} after {stepper.time} instructions, node {session.nodes.name_at(stepper.pc, stepper.indices) or 'unknown'}"
    for depth, loop in enumerate(reversed(stepper.core.loops), 1):
        index = stepper.core.indices[loop.level]
        yield f"#{depth} loop i{loop.level}={index} of {loop.count}, instructions {loop.start * WORD_BYTES:#06x} to {loop.end * WORD_BYTES:#06x}"


def points(session: Session) -> Lines:
    if not session.points.points:
        yield "no breakpoints"
    yield from (f"{p.number}: {'watch' if p.watch is not None else 'break'} {p}" for p in session.points.points)


def engines(session: Session) -> Lines:
    """Instructions so far in program order, and what the next instruction would wait for on the chip."""
    inst = session.stepper.next_inst()
    for engine, (count, last) in session.engine_counts().items():
        waits = inst.deps[QUEUES.index(engine)] if inst is not None and engine in QUEUES else NO_WAIT
        yield (
            f"{engine.value:<4}{count:>8} instructions"
            + (f", last {last:#06x}" if last is not None else "")
            + (
                f"; the next instruction starts when at most {waits} of them are outstanding"
                if waits != NO_WAIT
                else ""
            )
            + ("; executes the next instruction" if inst is not None and inst.row.engine is engine else "")
        )


def comparison(result: Comparison) -> Lines:
    part = "all" if result.compared == result.elements else f"{result.compared} of {result.elements}"
    if result.first is None:
        yield f"{result.node}: {part} elements equal PyTorch's, bit for bit"
        return
    yield f"{result.node}: {result.differing} elements differ ({part} compared)"
    yield f"first at {result.first['index']}: expected {result.first['expected']}, the chip has {result.first['actual']}"
