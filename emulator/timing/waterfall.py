"""Where the time goes: every cycle of a run belongs to exactly one cause, so the parts add up to the total.

One resource is looked at, the one that limits the program. Cycles in which it works are `compute`. In every other cycle
it stands idle until its next word begins; why that word did not begin earlier is found by walking back from it, from
each event to the one that allowed it: the end of the word it waited for, the word before it on its engine, room in a
queue, the word dispatched before it. These steps touch each other without gaps, so they cover the idle time, and each
names a cause.
"""

from collections.abc import Iterator
from typing import NamedTuple

from emulator.timing.timeline import CTL, ENGINES, Timeline
from isa.spec import DMA_ENGINES, Engine

COMPUTE, DRAM, MXU, VEC, ACT, DEPENDENCE, DISPATCH, FILL_DRAIN = CAUSES = (
    "compute", "waiting_dram", "waiting_mxu", "waiting_vec", "waiting_act", "dependence", "dispatch", "fill_drain",
)  # fmt: skip
RESOURCES = ("mxu", "vec", "act", "dram")
_WORK = {Engine.MXU: MXU, Engine.VEC: VEC, Engine.ACT: ACT} | dict.fromkeys(DMA_ENGINES, DRAM)
_LATENCY = {Engine.MXU: FILL_DRAIN, Engine.VEC: DEPENDENCE, Engine.ACT: DEPENDENCE} | dict.fromkeys(DMA_ENGINES, DRAM)


class Share(NamedTuple):
    """`cycles` are charged to `cause` and to `word`: the one that worked, or that through which the resource's next
    word had to wait."""

    word: int
    cause: str
    cycles: int


class Link(NamedTuple):
    """A piece of a chain of waits: from `low` to `high` the chain passes through `word`."""

    word: int
    cause: str
    low: int
    high: int


class Gap(NamedTuple):
    """The resource stands idle from `low` to `high`, when `word` begins. `links` lead back from it, the latest
    first."""

    word: int
    low: int
    high: int
    links: tuple[Link, ...]


class _Step(NamedTuple):
    low: int
    cause: str
    word: int


def waterfall(timeline: Timeline, resource: str) -> list[Share]:
    """Shares of all words; their cycles add up to `timeline.cycles`."""
    shares = [Share(word, COMPUTE, high - low) for low, high, word in _busy(timeline, resource) if high > low]
    for gap in gaps(timeline, resource):
        shares += [Share(link.word, link.cause, link.high - link.low) for link in gap.links]
    return shares


def gaps(timeline: Timeline, resource: str) -> list[Gap]:
    """Every time that the resource stands idle, and the chain of waits behind it."""
    found = []
    now = 0
    for low, high, word in _busy(timeline, resource):
        if low > now:
            found.append(_gap(word, _before_work(timeline, word), now, low))
        now = max(now, high)
    if timeline.cycles > now:
        last, steps = _from_the_end(timeline)
        found.append(_gap(last, steps, now, timeline.cycles))
    return found


def _busy(timeline: Timeline, resource: str) -> list[tuple[int, int, int]]:
    """When the resource works, and for which word: of transfers that share the bus, the oldest."""
    if resource == "dram":
        return [(row[0], row[1], min(w for w in row[2:] if w >= 0)) for row in timeline.bus.tolist()]
    mine = timeline.of(Engine(resource))
    return list(zip(timeline.work_start[mine].tolist(), timeline.work_end[mine].tolist(), mine.tolist(), strict=True))


def _gap(word: int, steps: Iterator[_Step], low: int, high: int) -> Gap:
    """The gap from `low` to `high` before `word`."""
    links = []
    now = high
    for step in steps:
        begin = max(step.low, low)
        if begin < now:
            links.append(Link(step.word, step.cause, begin, now))
            now = begin
        if now <= low:
            break
    assert now <= low, "the walk back ended before the beginning"
    return Gap(word, low, high, tuple(links))


def _from_the_end(timeline: Timeline) -> tuple[int, Iterator[_Step]]:
    last = len(timeline.words) - 1
    if timeline.engine[last] == CTL and timeline.end[last] == timeline.cycles:
        return last, _dispatched(timeline, last)
    word = int(timeline.end.argmax())
    return word, _completed(timeline, word)


# Each function yields the steps back from one kind of event of a word, down to cycle 0. They call each other in turn
# through
# `_follow`, which is a loop, so that a long chain needs no deep recursion.


class _Event(NamedTuple):
    kind: str
    word: int


def _before_work(timeline: Timeline, word: int) -> Iterator[_Step]:
    return _follow(timeline, _Event("work", word))


def _completed(timeline: Timeline, word: int) -> Iterator[_Step]:
    return _follow(timeline, _Event("end", word))


def _dispatched(timeline: Timeline, word: int) -> Iterator[_Step]:
    return _follow(timeline, _Event("executed", word))


def _follow(timeline: Timeline, event: _Event | None) -> Iterator[_Step]:
    while event is not None:
        steps, event = _BACK[event.kind](timeline, event.word)
        yield from steps


_Back = tuple[list[_Step], _Event | None]


def _back_from_end(t: Timeline, word: int) -> _Back:
    """From completion to the last cycle of work."""
    engine = ENGINES[t.engine[word]]
    return [_Step(int(t.work_end[word]), _LATENCY[engine], word)], _Event("worked", word)


def _back_from_worked(t: Timeline, word: int) -> _Back:
    return [_Step(int(t.work_start[word]), _WORK[ENGINES[t.engine[word]]], word)], _Event("work", word)


def _back_from_work(t: Timeline, word: int) -> _Back:
    """From the first cycle of work: the array was busy with the word before, or the weights were on their way."""
    before = int(t.previous[word])
    if t.work_start[word] > t.start[word]:
        if before >= 0 and t.work_end[before] == t.work_start[word]:
            return [], _Event("worked", before)
        return [_Step(int(t.start[word]), FILL_DRAIN, word)], _Event("start", word)
    return [], _Event("start", word)


def _back_from_start(t: Timeline, word: int) -> _Back:
    """From the start: the word before had the engine, a count did not hold, or it had only just been dispatched."""
    start, before = t.start[word], int(t.previous[word])
    if start > t.ready[word]:
        if t.end[before] == start:
            return [], _Event("end", before)
        return [], _Event("worked", before) if t.work_end[before] == start else _Event("working", before)
    for other in t.waits[word]:
        if t.end[other] == start:
            return [], _Event("end", other)
    return [_Step(int(t.dispatch[word]), DISPATCH, word)], _Event("dispatch", word)


def _back_from_executed(t: Timeline, word: int) -> _Back:
    """From the end of a control word; what is longer than a cycle waits for DRAM."""
    return [_Step(int(t.end[word]) - 1, DISPATCH, word), _Step(int(t.start[word]), DRAM, word)], _Event(
        "dispatch", word
    )


def _back_from_dispatch(t: Timeline, word: int) -> _Back:
    """From dispatch: a full queue, a wait of dispatch itself, or the word dispatched before."""
    at = t.dispatch[word]
    room = int(t.room[word])
    blockers = t.waits[word] if t.engine[word] == CTL else ((room,) if room >= 0 else ())
    for other in blockers:
        if t.end[other] == at:
            return [], _Event("end", other)
    if word == 0:
        return [], None
    if t.engine[word - 1] == CTL:
        return [], _Event("executed", word - 1)
    return [_Step(int(t.dispatch[word - 1]), DISPATCH, word - 1)], _Event("dispatch", word - 1)


_BACK = {
    "end": _back_from_end, "worked": _back_from_worked, "working": _back_from_worked, "work": _back_from_work,
    "start": _back_from_start, "executed": _back_from_executed, "dispatch": _back_from_dispatch,
}  # fmt: skip
