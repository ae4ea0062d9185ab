"""Commands that look: values, the machine's state, the program and its graph."""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from isa.errors import InputError
from isa.files import write_atomic
from runtime.debug import formula, places, show, things
from runtime.debug.launch import NotYet
from runtime.debug.names import meanings, modules_of
from runtime.debug.places import no_more, one, where
from runtime.debug.session import Session
from runtime.debug.state import Answer, Display, Said, State
from runtime.debug.values import FORMS

Lines = Iterable[str]


def print_value(state: State, words: list[str]) -> Answer:
    """What words name, or what the last instruction wrote."""
    form, words = places.form(words, FORMS)
    return list(_printed(state, words, form))  # whole, or an error


def _printed(state: State, words: list[str], form: str) -> Iterator[Said]:
    session = state.session
    if not words:
        last = session.stepper.last
        if last is None or not last.writes:
            raise InputError(
                "the last instruction wrote nothing", hint="print v3, print sram[0]:f32 4x8, or print NODE"
            )
        found = [things.of_block(session, block) for block in last.writes]
    elif _is_number(session, words):
        yield from _number(session, " ".join(words), form)
        return
    else:
        found = [things.thing(session, words, form)]
    for value in found:
        yield from value.lines(form, state.printing)
        yield value.document(form)


def _is_number(session: Session, words: list[str]) -> bool:
    """Whether the words are a formula: not a place, not a node."""
    text = " ".join(words)
    if "by" in words or text.partition("[")[0].strip() in session.nodes.numbers:
        return False
    return formula.has_operator(text) if things.is_place(words[0]) else formula.is_number(session, text)


def _number(session: Session, text: str, form: str) -> Iterator[Said]:
    value = formula.parse(session, text).value(session)
    if form == "q" or (form == "x" and not isinstance(value, int)):
        raise InputError(f"{text} is a number; it has no form /{form}")
    yield f"{text} = {value:#x}" if form == "x" else f"{text} = {value}"
    yield {"name": text, "value": value}


def dump(state: State, words: list[str]) -> Answer:
    """Write a value to a file. Raises InputError for no value, another name than .npy, and a file that cannot be
    written."""
    form, words = places.form(words, FORMS)
    usage = "dump[/x|/q] NODE|PLACE [SHAPE] FILE.npy"
    if len(words) < 2:
        raise InputError("a value and a file are wanted", hint=usage)
    *named, path = words
    if not path.endswith(".npy"):
        raise InputError(f"'{path}' does not end in .npy", hint=usage)
    state.check_file(path)
    value = things.thing(state.session, named, form)
    seen = np.ascontiguousarray(value.seen(form))
    buffer = io.BytesIO()
    np.save(buffer, seen, allow_pickle=False)
    try:
        write_atomic(path, [buffer.getvalue()])
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write '{path}': {getattr(error, 'strerror', None) or error}") from error
    yield value.title
    yield f"wrote {path}: {seen.dtype} {list(seen.shape)}"
    yield {**value.facts, "name": value.name, "file": path, "dtype": str(seen.dtype), "shape": list(seen.shape)}


def display(state: State, words: list[str]) -> Answer:
    """Print something now and at each stop; without words, all of it now. Raises InputError for what never has a
    value."""
    form, words = places.form(words, FORMS)
    if not words:
        return displayed(state)
    with suppress(NotYet):  # which is said at each stop
        list(_printed(state, words, form))
    shown = Display(state.session.points.number(), form, tuple(words))
    state.displays.append(shown)
    return _one_display(state, shown)


def displayed(state: State) -> Answer:
    """What `display` was told, as it is now."""
    for shown in state.displays:
        yield from _one_display(state, shown)


def _one_display(state: State, shown: Display) -> Answer:
    try:
        said = list(_printed(state, list(shown.words), shown.form))
    except InputError as error:
        said = [f"{shown}: {' '.join(str(error.what).split())}"]
    for number, part in enumerate(said):
        if isinstance(part, Mapping):
            yield {"display": shown.number, **part}
        else:
            yield part if number else f"{shown.number}: {part}"


def info(state: State, words: list[str]) -> Answer:
    """The machine's state, or a part of it. Raises InputError for a part that there is not."""
    session = state.session
    parts: dict[str, Callable[[Session], Lines]] = {
        "registers": show.registers, "loops": show.loops, "breakpoints": show.points, "engines": show.engines,
    }  # fmt: skip
    if not words:
        lines = [
            line for title, part in parts.items() for line in (f"{title}:", *(f"  {text}" for text in part(session)))
        ]
        return [*lines, show.machine(session)]
    name = one(words, "info [registers|loops|breakpoints|engines]")
    chosen = [part for title, part in parts.items() if title.startswith(name)]
    if not chosen:
        raise InputError(f"there is no info about '{name}'", hint=", ".join(parts))
    return [*chosen[0](session), show.machine(session)]


def disassemble(state: State, words: list[str]) -> Answer:
    """The instructions around the next one, or around a place."""
    session = state.session
    pc, rest = session.stepper.pc, words
    if words and (not words[0].isdecimal() or len(words) > 1):
        found, nodes, _ = where(session, words[0])
        starts = [span.first for span in session.image.debug.spans if nodes and set(nodes) & set(span.nodes)]
        pc, rest = found if found is not None else min(starts, default=pc), words[1:]
    return show.around(session, pc, places.count(rest, 5))


def backtrace(state: State, words: list[str]) -> Answer:
    """The loops that are running."""
    no_more(words)
    return show.loops(state.session)


def where_am_i(state: State, words: list[str]) -> Answer:
    """The next instruction and its node."""
    no_more(words)
    return [*show.location(state.session), show.standing(state.session)]


def compare(state: State, words: list[str]) -> Answer:
    """A node beside PyTorch's value. Raises InputError where no node is named and none is next."""
    session = state.session
    number = session.nodes.number(words[0]) if words else session.nodes.at(session.stepper.pc, session.stepper.indices)
    if number is None:
        raise InputError("the next instruction belongs to no node", hint="compare NODE")
    yield from show.meant(session, words[:1], number)
    result = session.compare(number)
    state.failed += not result.equal
    yield from show.comparison(result)
    yield _compared(result)


def _compared(result: Any) -> Mapping[str, Any]:
    return {
        "node": result.node,
        "compared": result.compared,
        "elements": result.elements,
        "differing": result.differing,
        "first": result.first,
        "equal": result.equal,
    }


def nodes(state: State, words: list[str]) -> Answer:
    """The nodes with a text in their name, operator, module or calls, or those that a name means. Raises InputError
    when there is none."""
    wanted, known = words[0] if words else "", state.session.nodes
    meant = {n for meaning in meanings(known.debug, wanted) for n in meaning.numbers}
    found = [
        (n, node)
        for n, node in enumerate(known.debug.nodes)
        if n in meant or any(wanted in text for text in (node.name, node.op, *node.origins, *modules_of(node)))
    ]
    if not found:
        raise InputError(f"no node has '{wanted}' in its name" if wanted else "the image has no debug map")
    for number, node in found:
        text = f"{node.name:<32} {node.op:<28} {list(node.shape)} {node.dtype} {node.status}"
        yield f"{text}  {known.place(number)}".rstrip()
        yield {
            "node": node.name, "op": node.op, "shape": list(node.shape), "dtype": node.dtype, "status": node.status,
            "reason": node.reason, "source": known.place(number), "modules": list(modules_of(node)),
            "calls": list(node.origins),
        }  # fmt: skip
