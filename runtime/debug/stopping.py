"""Commands that say where to stop: breakpoints, watches, their conditions, and how to forget them."""

from isa.asm.text import guess_instruction
from isa.errors import InputError
from isa.spec import ISA
from runtime.debug import formula, show
from runtime.debug.places import integer, memory_range, one, where
from runtime.debug.state import Answer, State

PLACES = "PC|NODE|FILE:LINE|op MNEMONIC|write PLACE"


def set_break(state: State, words: list[str]) -> Answer:
    """Set a breakpoint; without words, list them. Raises InputError for places and conditions that are none."""
    session = state.session
    if not words:
        return show.points(session)
    words, condition = _conditional(state, words)
    if words[0] == "write":
        place = memory_range(session, words[1:], "break write PLACE")
        point = session.points.add(f"write to {place}", session.stepper.memory, writes=place, condition=condition)
    elif words[0] == "op":
        mnemonic = one(words[1:], "break op MNEMONIC")
        if mnemonic not in ISA:
            raise InputError(f"unknown instruction '{mnemonic}'", hint=guess_instruction(mnemonic))
        point = session.points.add(f"op {mnemonic}", session.stepper.memory, mnemonic=mnemonic, condition=condition)
    else:
        pc, nodes, text = where(session, one(words, f"break {PLACES}"))
        point = session.points.add(text, session.stepper.memory, pc=pc, nodes=nodes, condition=condition)
    return [f"breakpoint {point.number}: {point}", {"breakpoint": point.number, "at": str(point)}]


def watch(state: State, words: list[str]) -> Answer:
    """Stop when bytes change."""
    words, condition = _conditional(state, words)
    place = memory_range(state.session, words, "watch PLACE")
    point = state.session.points.add(str(place), state.session.stepper.memory, watch=place, condition=condition)
    return [f"watch {point.number}: {point}", {"watch": point.number, "at": str(point)}]


def _conditional(state: State, words: list[str]) -> tuple[list[str], formula.Formula | None]:
    """The words before `if`, and the condition behind it. Raises InputError for a condition without a place."""
    if "if" not in words:
        return words, None
    at = words.index("if")
    if not at:
        raise InputError("a place is wanted before 'if'", hint="break PLACE if s5 > 3")
    return words[:at], formula.parse(state.session, " ".join(words[at + 1 :]))


def condition(state: State, words: list[str]) -> Answer:
    """Give a breakpoint a condition, or take it away. Raises InputError for a number that none has."""
    if not words:
        raise InputError("the number of a breakpoint is wanted", hint="condition NUMBER [EXPRESSION]")
    number = integer(words[0])
    point = state.session.points.find(number)
    if point is None:
        raise InputError(f"there is no breakpoint {number}", hint="'info breakpoints' lists them")
    point.condition = formula.parse(state.session, " ".join(words[1:])) if words[1:] else None
    yield f"{number}: {point}"


def delete(state: State, words: list[str]) -> Answer:
    """Forget a breakpoint, watch or display; take an edit back. Raises InputError for a number that nothing has."""
    session, number = state.session, integer(one(words, "delete NUMBER"))
    point = session.points.delete(number)
    if point is not None:
        return [f"deleted {number}: {point}"]
    shown = next((shown for shown in state.displays if shown.number == number), None)
    if shown is not None:
        state.displays.remove(shown)
        return [f"deleted {number}: display {shown}"]
    edit = next(((time, edit) for time, edit in session.stepper.edits if edit.number == number), None)
    if edit is None:
        raise InputError(f"there is no breakpoint {number}", hint="'info breakpoints' lists them")
    session.unedit(*edit)
    return [f"deleted {number}: {edit[1]}, back at the moment when it was set", *show.location(session)]
