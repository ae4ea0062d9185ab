"""Commands that change something: what the machine holds, how values are printed, and the program itself."""

from isa.errors import InputError
from runtime.debug import places, show
from runtime.debug.edits import VIEW_FIELDS, SetMemory, SetScalar, SetView, filled, one_element, stored
from runtime.debug.fused import continued
from runtime.debug.state import Answer, State
from runtime.debug.stepper import Block, Edit

USAGE = "set s5 = 3, set v3.base = 0x40, set sram[0x40]:f32 = 1.5, set v3[0, 2] = 7, set NODE[0, 1] = 2"
OPTIONS = {"elements": (1, 1 << 20), "precision": (1, 17)}  # of printing, with their ranges


def set_value(state: State, words: list[str]) -> Answer:
    """Change memory, an element or a register, or an option of printing; without words, list what was set. Raises
    InputError for what is none, or does not fit."""
    if not words:
        return _listed(state)
    if "=" not in " ".join(words):
        return _option(state, words)
    left, _, right = " ".join(words).partition("=")
    target, values = left.split(), right.replace(",", " ").split()
    if not target or not values:
        raise InputError("a place and a value are wanted", hint=USAGE)
    edit = _edit(state, target, values)
    state.session.edit(edit)
    return [f"{edit.number}: {edit}", {"edit": edit.number, "what": str(edit), "time": state.session.stepper.time}]


def _listed(state: State) -> Answer:
    """What was set in this launch, and the options."""
    for time, edit in state.session.stepper.edits:
        yield f"{edit.number}: {edit} after {time} instructions"
        yield {"edit": edit.number, "what": str(edit), "time": time}
    yield ", ".join(f"{name} {getattr(state.printing, name)}" for name in OPTIONS)


def _option(state: State, words: list[str]) -> Answer:
    if words[0] not in OPTIONS or len(words) != 2:
        raise InputError(f"'{' '.join(words)}' sets nothing", hint=f"{USAGE}, or set {'|'.join(OPTIONS)} N")
    low, high = OPTIONS[words[0]]
    number = places.integer(words[1])
    if not low <= number <= high:
        raise InputError(f"{words[0]} is {low} to {high}, not {number}")
    setattr(state.printing, words[0], number)
    return [f"{words[0]} {number}"]


def _edit(state: State, target: list[str], values: list[str]) -> Edit:
    session, number = state.session, state.session.points.number()
    name, dot, field = target[0].partition(".")
    register = places.register(name if dot else target[0])
    if register is not None and (dot or register[0] == "s"):
        if len(target) > 1 or len(values) > 1:
            raise InputError(f"{target[0]} takes one value", hint=USAGE)
        value = places.integer(values[0], "integer")
        if register[0] == "s" and not dot:
            return SetScalar(number, register[1], value)
        if register[0] == "s" or field not in VIEW_FIELDS:
            raise InputError(f"'{target[0]}' is no field of a view", hint=", ".join(VIEW_FIELDS))
        session.view(register[1])  # raises if it was never set
        return SetView(number, register[1], field, value)
    text = " ".join(target)
    if register is not None or places.is_memory(text):
        found = places.block(session, target)
        return _memory(number, text, Block("", found.view, found.extents), values)
    return _element(state, number, text, values)


def _memory(number: int, text: str, block: Block, values: list[str], node: int | None = None, flat: int = 0) -> Edit:
    bits = filled(block, stored(block.view.dtype, values))
    return SetMemory(number, block, bits, f"{text} = {' '.join(values)}", node, flat)


def _element(state: State, number: int, text: str, values: list[str]) -> Edit:
    """An element of a view's block, `v3[0, 2]`, or of a node's value."""
    session = state.session
    name, bracket, rest = text.partition("[")
    name, index = name.strip(), places.indices(rest) if bracket else ()
    if places.register(name) is not None:
        found = places.block(session, [name])
        return _memory(number, text, one_element(found.view, index, found.extents), values)
    node = session.nodes.number(name)
    shape = session.nodes.debug.nodes[node].shape
    if len(index) != len(shape) or not all(0 <= i < n for i, n in zip(index, shape, strict=True)):
        raise InputError(f"one element of {name}{list(shape)} is wanted", hint=USAGE)
    flat = 0
    for i, n in zip(index, shape, strict=True):
        flat = flat * n + i
    return _memory(number, text, session.locate(node, flat), values, node, flat)


def unfuse(state: State, words: list[str]) -> Answer:
    """Go on in the program without fusing. Raises InputError where there is no model, and for an unknown node."""
    node = places.one(words, "unfuse [NODE]") if words else ""
    if node:
        number = state.session.nodes.number(node)
        yield from show.meant(state.session, [node], number)
        node = state.session.nodes.debug.nodes[number].name
    if state.unfused is None:
        raise InputError("there is no model to compile again", hint="start with 'llmcc debug FILE --model MODEL'")
    old = state.session
    image = state.unfused()
    state.session, stop, lost = continued(old, image, node)
    state.session.points.number_from(old.points)
    yield f"compiled without fusing: {image.words} instructions, before {old.image.words}; the bits are the same"
    yield from (f"forgotten, an address of the other program: {point.number}: {point}" for point in lost)
    yield from (f"forgotten, it was set in the other program: {edit}" for _, edit in old.stepper.edits)
    if stop.text:
        yield stop.text
    yield from show.location(state.session)
    yield show.standing(state.session)
