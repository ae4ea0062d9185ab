"""Where the time goes: every cycle of a run belongs to exactly one cause, so the parts add up to the total.

One resource is looked at, the one that limits the program. Cycles in which it works are `compute`. In every other cycle
it stands idle until its next instruction begins; why that instruction did not begin earlier is found by walking back
from it, from each event to the one that allowed it: the end of the instruction it waited for, the instruction before it
on its engine, room in a queue, the instruction dispatched before it. These steps touch each other without gaps, so they
cover the idle time, and each names a cause.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from emulator.timing.timeline import CTL, ENGINES, Timeline
from isa.architecture import DMA_ENGINES, Engine

COMPUTE, DRAM, MXU, VEC, ACT, DEPENDENCE, DISPATCH, FILL_DRAIN = CAUSES = (
    "compute", "waiting_dram", "waiting_mxu", "waiting_vec", "waiting_act", "dependence", "dispatch", "fill_drain",
)  # fmt: skip
RESOURCES = ("mxu", "vec", "act", "dram")
_WORK = {Engine.MXU: MXU, Engine.VEC: VEC, Engine.ACT: ACT} | dict.fromkeys(DMA_ENGINES, DRAM)
_LATENCY = {Engine.MXU: FILL_DRAIN, Engine.VEC: DEPENDENCE, Engine.ACT: DEPENDENCE} | dict.fromkeys(DMA_ENGINES, DRAM)


class Share(NamedTuple):
    """`cycles` are charged to `cause` and to `instruction`: the one that worked, or that through which the resource's
    next instruction had to wait."""

    instruction: int
    cause: str
    cycles: int


class Link(NamedTuple):
    """A piece of a chain of waits: from `low` to `high` the chain passes through `instruction`."""

    instruction: int
    cause: str
    low: int
    high: int


class Gap(NamedTuple):
    """The resource stands idle from `low` to `high`, when `instruction` begins. `links` lead back from it, the latest
    first."""

    instruction: int
    low: int
    high: int
    links: tuple[Link, ...]


class _Step(NamedTuple):
    low: int
    cause: str
    instruction: int


def waterfall(timeline: Timeline, resource: str) -> list[Share]:
    """Shares of all instructions; their cycles add up to `timeline.cycles`."""
    shares = [
        Share(instruction, COMPUTE, high - low) for low, high, instruction in _busy(timeline, resource) if high > low
    ]
    for gap in gaps(timeline, resource):
        shares += [Share(link.instruction, link.cause, link.high - link.low) for link in gap.links]
    return shares


def gaps(timeline: Timeline, resource: str) -> list[Gap]:
    """Every time that the resource stands idle, and the chain of waits behind it."""
    found = []
    now = 0
    for low, high, instruction in _busy(timeline, resource):
        if low > now:
            found.append(_gap(instruction, _before_work(timeline, instruction), now, low))
        now = max(now, high)
    if timeline.cycles > now:
        last, steps = _from_the_end(timeline)
        found.append(_gap(last, steps, now, timeline.cycles))
    return found


def charged(timeline: Timeline, resource: str, idle: Sequence[Gap]) -> list[Link]:
    """The run cut into pieces, in the order of time: every cycle with the cause and the instruction that it is charged
    to. `idle` are the gaps of the resource."""
    pieces = [
        Link(instruction, COMPUTE, low, high) for low, high, instruction in _busy(timeline, resource) if high > low
    ]
    pieces += [link for gap in idle for link in gap.links]
    return sorted(pieces, key=lambda piece: piece.low)


def _busy(timeline: Timeline, resource: str) -> list[tuple[int, int, int]]:
    """When the resource works, and for which instruction: of transfers that share the bus, the oldest."""
    if resource == "dram":
        return [(row[0], row[1], min(w for w in row[2:] if w >= 0)) for row in timeline.bus.tolist()]
    mine = timeline.of(Engine(resource))
    return list(zip(timeline.work_start[mine].tolist(), timeline.work_end[mine].tolist(), mine.tolist(), strict=True))


def _gap(instruction: int, steps: Iterator[_Step], low: int, high: int) -> Gap:
    """The gap from `low` to `high` before `instruction`."""
    links = []
    now = high
    for step in steps:
        begin = max(step.low, low)
        if begin < now:
            links.append(Link(step.instruction, step.cause, begin, now))
            now = begin
        if now <= low:
            break
    assert now <= low, "the walk back ended before the beginning"
    return Gap(instruction, low, high, tuple(links))


def _from_the_end(timeline: Timeline) -> tuple[int, Iterator[_Step]]:
    last = len(timeline.instructions) - 1
    if timeline.engine[last] == CTL and timeline.end[last] == timeline.cycles:
        return last, _dispatched(timeline, last)
    instruction = int(timeline.end.argmax())
    return instruction, _completed(timeline, instruction)


# Each function yields the steps back from one kind of event of an instruction, down to cycle 0. They call each other in
# turn through `_follow`, which is a loop, so that a long chain needs no deep recursion.


class _Event(NamedTuple):
    kind: str
    instruction: int


def _before_work(timeline: Timeline, instruction: int) -> Iterator[_Step]:
    return _follow(timeline, _Event("work", instruction))


def _completed(timeline: Timeline, instruction: int) -> Iterator[_Step]:
    return _follow(timeline, _Event("end", instruction))


def _dispatched(timeline: Timeline, instruction: int) -> Iterator[_Step]:
    return _follow(timeline, _Event("executed", instruction))


def _follow(timeline: Timeline, event: _Event | None) -> Iterator[_Step]:
    while event is not None:
        steps, event = _BACK[event.kind](timeline, event.instruction)
        yield from steps


_Back = tuple[list[_Step], _Event | None]


def _back_from_end(t: Timeline, instruction: int) -> _Back:
    """From completion to the last cycle of work."""
    engine = ENGINES[t.engine[instruction]]
    return [_Step(int(t.work_end[instruction]), _LATENCY[engine], instruction)], _Event("worked", instruction)


def _back_from_worked(t: Timeline, instruction: int) -> _Back:
    return [_Step(int(t.work_start[instruction]), _WORK[ENGINES[t.engine[instruction]]], instruction)], _Event(
        "work", instruction
    )


def _back_from_work(t: Timeline, instruction: int) -> _Back:
    """From the first cycle of work: the array was busy with the instruction before, or the weights were on their
    way."""
    before = int(t.previous[instruction])
    if t.work_start[instruction] > t.start[instruction]:
        if before >= 0 and t.work_end[before] == t.work_start[instruction]:
            return [], _Event("worked", before)
        return [_Step(int(t.start[instruction]), FILL_DRAIN, instruction)], _Event("start", instruction)
    return [], _Event("start", instruction)


def _back_from_start(t: Timeline, instruction: int) -> _Back:
    """From the start: the instruction before had the engine, a count did not hold, or it had only just been
    dispatched."""
    start, before = t.start[instruction], int(t.previous[instruction])
    if start > t.ready[instruction]:
        if t.end[before] == start:
            return [], _Event("end", before)
        return [], _Event("worked", before) if t.work_end[before] == start else _Event("working", before)
    for other in t.waits[instruction]:
        if t.end[other] == start:
            return [], _Event("end", other)
    return [_Step(int(t.dispatch[instruction]), DISPATCH, instruction)], _Event("dispatch", instruction)


def _back_from_executed(t: Timeline, instruction: int) -> _Back:
    """From the end of a control instruction; what is longer than a cycle waits for DRAM."""
    return [
        _Step(int(t.end[instruction]) - 1, DISPATCH, instruction),
        _Step(int(t.start[instruction]), DRAM, instruction),
    ], _Event("dispatch", instruction)


def _back_from_dispatch(t: Timeline, instruction: int) -> _Back:
    """From dispatch: a full queue, a wait of dispatch itself, or the instruction dispatched before."""
    at = t.dispatch[instruction]
    room = int(t.room[instruction])
    blockers = t.waits[instruction] if t.engine[instruction] == CTL else ((room,) if room >= 0 else ())
    for other in blockers:
        if t.end[other] == at:
            return [], _Event("end", other)
    if instruction == 0:
        return [], None
    if t.engine[instruction - 1] == CTL:
        return [], _Event("executed", instruction - 1)
    return [_Step(int(t.dispatch[instruction - 1]), DISPATCH, instruction - 1)], _Event("dispatch", instruction - 1)


_BACK = {
    "end": _back_from_end, "worked": _back_from_worked, "working": _back_from_worked, "work": _back_from_work,
    "start": _back_from_start, "executed": _back_from_executed, "dispatch": _back_from_dispatch,
}  # fmt: skip
