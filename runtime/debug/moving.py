"""Commands that move the machine, forwards and backwards."""

from isa.errors import InputError
from runtime.debug import places, show
from runtime.debug.looking import displayed
from runtime.debug.places import integer, no_more, one, where
from runtime.debug.session import Stop
from runtime.debug.state import Answer, State


def stopped(state: State, stop: Stop) -> Answer:
    """Why execution stopped, and where. A trap, or a condition that cannot be told, counts as failed."""
    if stop.text:
        yield stop.text
    if stop.reason in ("trap", "condition"):
        state.failed += 1
    yield from standing(state)
    yield {"stop": stop.reason, "text": stop.text, **show.standing(state.session)}


def standing(state: State) -> Answer:
    """Where execution stands, and what `display` was told."""
    yield from show.location(state.session)
    yield from displayed(state)


def run(state: State, words: list[str]) -> Answer:
    """Run on."""
    no_more(words)
    return stopped(state, state.session.run())


def step(state: State, words: list[str]) -> Answer:
    """One instruction, or several."""
    return stopped(state, state.session.step(places.count(words)))


def next_node(state: State, words: list[str]) -> Answer:
    """To the first instruction of the next node, or of a later one."""
    return stopped(state, state.session.next(places.count(words)))


def until(state: State, words: list[str]) -> Answer:
    """To a place."""
    pc, nodes, _ = where(state.session, one(words, "until PC|NODE"))
    return stopped(state, state.session.until(pc, nodes[0] if nodes else None))


def finish(state: State, words: list[str]) -> Answer:
    """Until a node is written. Raises InputError where no node is named and none is next."""
    session = state.session
    number = session.nodes.number(words[0]) if words else session.nodes.at(session.stepper.pc, session.stepper.indices)
    if number is None:
        raise InputError("the next instruction belongs to no node", hint="finish NODE")
    yield from show.meant(session, words[:1], number)
    yield from stopped(state, session.finish(number))


def restart(state: State, words: list[str]) -> Answer:
    """Back to the start."""
    no_more(words)
    state.session.seek(0)
    return standing(state)


def goto(state: State, words: list[str]) -> Answer:
    """To a moment. Raises InputError for one before the start."""
    time = integer(one(words, "goto TIME"), "time")
    if time < 0:
        raise InputError(f"time {time} is before the start")
    state.session.seek(time)
    return standing(state)


def back(state: State, words: list[str]) -> Answer:
    """One instruction back, or several."""
    return stopped(state, state.session.back(places.count(words)))


def reverse(state: State, words: list[str]) -> Answer:
    """Back to the last stop."""
    no_more(words)
    return stopped(state, state.session.reverse())
