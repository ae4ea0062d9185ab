"""What `print`, `display` and `dump` take: `v3`, `sram[0x100]:f32 4x8`, `activation[0, :4]`, and `... by SCALE`."""

from typing import Any

import numpy as np

from isa.errors import InputError
from isa.image.records import DebugNode
from runtime.debug import places
from runtime.debug.launch import NotYet
from runtime.debug.names import said
from runtime.debug.nodes import Collector, Nodes
from runtime.debug.session import Session
from runtime.debug.show import extents_text
from runtime.debug.stepper import Block
from runtime.debug.values import Thing, fitted, readable
from runtime.device.arrays import Array

USAGE = "PLACE [SHAPE] or NODE[INDEX], and for /q 'by SCALE' behind it"


def thing(session: Session, words: list[str], form: str = "") -> Thing:
    """The value that the words name. Raises InputError for words that name none."""
    if "by" in words:
        at = words.index("by")
        if form != "q" or not words[:at] or not words[at + 1 :]:
            raise InputError("'by SCALE' stands behind what print/q dequantizes", hint="print/q v3 by 0.05")
        found = thing(session, words[:at])
        return Thing(found.name, found.title, found.dtype, found.stored, _scale(session, words[at + 1 :]))
    if not words:
        raise InputError("a value is wanted", hint=USAGE)
    if is_place(words[0]):
        if len(words) > 2:
            raise InputError(f"'{words[2]}' is one argument too many", hint="PLACE [SHAPE]")
        return _place(session, words)
    return _node(session, " ".join(words), form)


def is_place(name: str) -> bool:
    """Whether a word names memory: a view register or an address."""
    found = places.register(name)
    return (found is not None and found[0] == "v") or places.is_memory(name)


def of_block(session: Session, block: Block) -> Thing:
    """A block of memory as it is now."""
    view, extents = block.view, block.extents
    stored = session.load(view, extents)
    while stored.ndim > 1 and stored.shape[0] == 1:
        stored = stored[0]
    low, high = view.span(extents)
    title = f"{block.name + ' = ' if block.name else ''}{view} {extents_text(extents)}, bytes {low:#x} to {high:#x}"
    facts = {"memory": str(view), "first": low, "end": high}
    return Thing(block.name or str(view), title, view.dtype, stored, facts=facts)


def _place(session: Session, words: list[str]) -> Thing:
    what = places.block(session, words)
    register = places.register(words[0]) is not None
    found = of_block(session, Block(words[0] if register else "", what.view, what.extents))
    if ".." in words[0] and ":" not in words[0]:  # a range of bytes, of no type
        return Thing(found.name, found.title, found.dtype, found.stored, None, what.view.base, found.facts)
    return found


def _node(session: Session, text: str, form: str) -> Thing:
    name, bracket, index = text.partition("[")
    if bracket and not index.endswith("]"):
        raise InputError(f"'{text}' has no closing bracket")
    number = session.nodes.number(name.strip())
    selected = _selected(session, number, index[:-1]) if bracket else None
    collector = _collected(session, name.strip(), number)
    value, record = collector.value, collector.node
    assert value is not None
    part = (
        ""
        if value.written == value.seen.size
        else f", {value.written} of {value.seen.size} elements written so far (others 0)"
    )
    called = "" if name.strip() == record.name else f"{name.strip()} = "
    title = f"{called}{record.name} ({record.op}) {list(record.shape)} {record.dtype}, stored as {value.dtype.name.lower()}{part}"
    stored, scale = value.flat.reshape(record.shape), _scale_of(session, record) if form == "q" else None
    if selected is not None:
        # every element with its own scale, so that a part of the value has a part of them
        if scale is not None:
            scale = np.broadcast_to(fitted(scale, stored.shape, record.name), stored.shape)[selected]
        stored = np.asarray(stored[selected])
    facts: dict[str, Any] = {
        "node": record.name,
        "op": record.op,
        "node_shape": list(record.shape),
        "dtype": record.dtype,
    }
    facts |= {"written": value.written, "elements": int(value.seen.size)}
    return Thing(text, title, value.dtype, stored, scale, None, facts)


def _collected(session: Session, name: str, number: int) -> Collector:
    """Raises InputError for a node without a value, and says which it is if it was called by another name."""
    try:
        return session.collect(number)
    except NotYet:
        raise
    except InputError as error:
        if not (called := said(session.nodes.debug, name, number)):
            raise
        raise InputError(f"{called}; {error.what}", error.where, error.hint) from error


def _selected(session: Session, number: int, text: str) -> tuple[slice | int, ...]:
    """An index of a node's value. Raises InputError for one that it does not have, written yet or not."""
    found, shape = places.slices(text), session.nodes.debug.nodes[number].shape
    try:
        np.broadcast_to(np.int8(0), shape)[found]
    except IndexError as error:
        raise InputError(f"[{text}]: {error}") from None
    return found


def _scale_of(session: Session, record: DebugNode) -> Array | None:
    """What a quantized value is multiplied with: its sibling, where both are the results of one operation."""
    sibling = scale_sibling(session.nodes, record)
    if sibling is None:
        return None
    value = session.collect(session.nodes.number(sibling)).value
    assert value is not None
    return readable(value.flat, value.dtype).reshape(session.nodes.debug.nodes[session.nodes.number(sibling)].shape)


def scale_sibling(nodes: Nodes, record: DebugNode) -> str | None:
    """The name of the node that holds an integer node's scales."""
    for node in nodes.debug.nodes:
        parts = node.results
        if len(parts) == 2 and parts[0] == record.name and parts[1] in nodes.numbers:
            scale = nodes.debug.nodes[nodes.numbers[parts[1]]]
            if record.dtype.startswith("int") and scale.dtype.startswith(("float", "bfloat")):
                return scale.name
    return None


def _scale(session: Session, words: list[str]) -> Array:
    try:
        return (
            np.asarray(float(words[0]), np.float32) if len(words) == 1 else np.asarray(thing(session, words).seen(""))
        )
    except ValueError:
        return np.asarray(thing(session, words).seen(""))
