"""Search: the tiling whose program is predicted to be the fastest, among those that memory can be planned for.

    for all of the scratchpad, and for parts of it:
        for each size in SEARCH_SPACE:  assign → emit → schedule → keep if cycles and length cost less
    place the best that fits, and its rivals → keep the one for which predict.py, which knows addresses, finds fewest

The list scheduler simulates engines, bus and memories, so its prediction is the cost model. `make bench-chip` compares
it with the timing mode. Everything is counted in ops and plans, never in seconds, and ends: where no plan is found the
best tiling is made anew for less memory, and at last everything lives in DRAM, and small tiles follow each other in the
order of the kernels.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import heappop, heappush
from itertools import accumulate, islice
from typing import Any, TypeVar

from compiler.emit.batch_tiles import find_batch_tiles, token_parts
from compiler.emit.tile_sizes import SearchPoint, block_rows
from compiler.schedule.list_schedule import FILLS
from compiler.schedule.predict import predicted_cycles
from compiler.schedule.stages import Choice, Stages
from compiler.tile.cost import cycles
from compiler.tile.decisions import Schedule, Tiled
from compiler.tile.ir import Program
from compiler.tile.manager import TileManager
from compiler.tile.state import TileState, made
from isa.architecture import DMA_ENGINES, Engine, Region, Space
from isa.chip import Chip
from isa.errors import CompileError

SHARES = (0.9, 0.75, 0.5, 0.25)  # of the memories that a kernel may plan with, when no plan was found for all of them
PLANS, FEWER = 8, 4  # how many orders are planned of the last tilings, and of those that others follow
MARGIN = 0.998  # a prediction that is better by less than the cost model's error is no reason to change anything
WEIGHT = 1e-6  # of the cycles: what an op more must save, since longer programs take longer to compile and to fetch
MAX_OPS, ENOUGH_TIGHT = 50_000, 20_000  # ops in all candidates, after which no more are made
FINE, WORTH = 1 / 32, 0.005  # slices finer than this are tried where loading a coarser one is so much of all cycles
TIGHT, SHARES_IT = 0.75, 0.6  # of the scratchpad: a schedule that fills more takes long to search; is worth looking for
# tilings that share the scratchpad otherwise
SPILLED = 0.05  # of the cycles: what lies in DRAM for want of room is worth the same
Values = tuple[float, ...]
SHARED: dict[str, Values] = {
    "resident": (0.65, 0.8),
    "room": (0.6, 0.35),
    "wide": (True,),
}  # tried first where the scratchpad is tight
FINER = (0.2, 0.1)  # of the room, where a climb begins with a part of the scratchpad
NO_ROOM = {name: values for name, values in SHARED.items() if name != "room"}  # where blocks with less found no place
WIDTHS = (256, 1024)  # elements: of narrower rows, a block has more
SEARCH_SPACE: dict[str, Values] = {  # what to try, one after the other, as long as it makes the program faster
    "width": WIDTHS,
    "cut": (True,),
    "points": (256, 128),
    "overlap": (0.25, 0.5),
    "slice": (1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256),
    "rows": (64, 128),
    "narrow": WIDTHS,
    "columns": (False,),
    "in_turn": (True,),
    "window": (80, 320),
}
PLAIN: dict[str, Values] = {"wide": (True,), **SEARCH_SPACE}  # where the scratchpad is shared as ever
RIVALS, MAX_PLACED = 3, 4_000  # programs that get addresses beside the first that fits, and ops in all of them
MAX_RESTED = 5_000  # ops in all that get others, so that bytes rest longer
CLOSE, SHORT = 1.01, 500  # times its cycles, where it has more ops than so many: farther off, addresses change nothing
RESTS = (5000, 3000, 2000, 1000, 300)  # cycles that bytes may rest beyond what the schedule asks for, the longest first
HOPELESS = 4  # schedules for which no rest finds a plan, after which no other is tried
ROOMY = 0.86  # of the memories that a schedule may fill that leaves them more rest
SMALL = 2_000  # ops: shorter programs are searched for a second time, with tilings as for half the scratchpad
GROWN = 4  # times the ops of the best tiling: what has more is not looked at
WORTHY = 0.98  # of the cost of the best tiling, for what a climb with less than half of the scratchpad has found
NEAR = 1.05  # times the best cycles: from farther off it does not begin

T = TypeVar("T")
Made = dict[tuple[object, bool, int], "Candidate"]  # by how kernels are tiled, and how their ops were ordered


@dataclass(frozen=True)
class Candidate:
    """A tiling as it was emitted, and scheduled (None if that is switched off)."""

    tuning: SearchPoint
    emitted: TileState
    scheduled: TileState | None

    @property
    def tiled(self) -> Tiled:
        return made(self.emitted.tiled)

    @property
    def schedule(self) -> Schedule | None:
        return None if self.scheduled is None else self.scheduled.schedule

    @property
    def cycles(self) -> int:
        """What the schedule predicts."""
        return self.schedule.cycles if self.schedule else 0

    @property
    def cost(self) -> float:
        """The cycles and what its length weighs: what is looked for is the least of it."""
        return self.weighed(self.cycles)

    def weighed(self, cycles: int) -> float:
        """The cost of these ops in an order that takes so many cycles."""
        return cycles * (1 + WEIGHT * len(self.tiled.program.ops))


@dataclass(frozen=True)
class _Tried:
    """A schedule that found a place, with addresses for which bytes rest so long, and the cycles that are predicted now
    that they are known."""

    cycles: int
    state: TileState
    placed: TileState
    rest: int = 0

    @property
    def ops(self) -> int:
        return len(made(self.state.program).ops)


@dataclass(frozen=True)
class _Ways:
    """What all climbs of one search have in common: whether parts of the batch follow each other, the tilings that are
    known, whether the scratchpad is tight, the ways to share it that may be tried, and how many ops were `before`."""

    split: bool
    known: Made
    tight: bool
    sharing: Mapping[str, Values]
    before: int = 0

    @property
    def ops(self) -> int:
        """Ops in all tilings that this search has made."""
        return sum(len(candidate.tiled.program.ops) for candidate in self.known.values()) - self.before


@dataclass
class Search:
    """Looks for the best tile program of the kernel graph in `start`. `on` says which tile passes are switched on,
    `stages` are the passes for what was chosen."""

    start: TileState
    on: Callable[[str], bool]
    stages: Callable[[Choice], Stages]
    manager: TileManager = field(default_factory=TileManager)

    def __post_init__(self) -> None:
        self.chip = self.start.chip
        parts = token_parts(made(self.start.kernel_graph), self.chip) if self.on("split-batch") else 1
        self.first = SearchPoint(rows=block_rows(self.chip), parts=parts)  # where the search begins
        self.parts = self.on("split-batch") and any(  # whether parts of the batch are a choice
            batch_tile.parts > 1 for batch_tile in find_batch_tiles(made(self.start.kernel_graph), self.chip, 1.0)
        )

    def run(self) -> TileState:
        """The best program that fits: a plan that fails is tried again with schedules that use less memory, then with
        smaller kernels.

        Raises CompileError when a kernel fits in no way, or no plan was found.
        """
        failures: list[CompileError] = []
        for state, rivals in self._candidates(failures):
            try:
                found = self._placed(state, lower=False)
            except CompileError as error:
                failures.append(error.with_traceback(None))
            else:
                best = self._judged(self._tried(state, found), rivals)
                return self._lowered(self._rested(best, rivals))
        raise failures[-1]

    def _placed(self, state: TileState, lower: bool = True, rest: int = 0) -> TileState:
        return self.manager.run(self.stages(Choice(lower=lower, rest=rest)).addresses, state)

    def _tried(self, state: TileState, placed: TileState | None = None, rest: int = 0) -> "_Tried":
        """Raises CompileError where no plan is found."""
        placed = placed or self._placed(state, False, rest)
        return _Tried(predicted_cycles(made(placed.program), made(placed.placement), self.chip), state, placed, rest)

    def _judged(self, first: "_Tried", candidates: Sequence[Candidate]) -> "_Tried":
        """The schedule that is the fastest once it has addresses: the `first` that found a place, or one of those that
        were thought to take about as long. What was thought to be faster by more than the margin has found none.

        Of small blocks, which a climb with a part of the scratchpad has found, the best with all of it is a rival, too:
        a schedule does not know how iterations of a loop overlap."""
        found = [first]
        if first.state.schedule is not None:
            least, ops = first.state.schedule.cycles, first.ops
            rivals = [rival.scheduled for rival in candidates if rival.scheduled is not None]
            near = {made(rival.schedule).cycles: rival for rival in reversed(rivals)}  # one of those that take as long
            most = least * (NEAR if ops <= SHORT else CLOSE)
            waiting = sorted(taken for taken in near if MARGIN * least <= taken <= most and taken != least)[:RIVALS]
            whole = min((rival.cycles for rival in candidates if rival.scheduled and rival.tuning.sram == 1), default=0)
            waiting = [whole, *waiting] if whole > most else waiting
            for rival in (near[taken] for taken in waiting):
                if (ops := ops + len(made(rival.program).ops)) > MAX_PLACED:
                    break
                try:
                    found.append(self._tried(rival))
                except CompileError:  # there is no room for it, nor for what is like it
                    break
        return min(found, key=lambda one: one.cycles * (MARGIN if one is first else 1.0))

    def _rested(self, best: "_Tried", candidates: Sequence[Candidate]) -> "_Tried":
        """Unless an engine is busy all the time: a schedule like that, or one that fills less of the memories, with bytes
        that rest longer, if that is faster. Addresses hold engines up in spite of what the schedule thought."""
        ops, found = 0, [best]
        if best.state.schedule is None or best.cycles <= _busiest(made(best.state.program), self.chip) * CLOSE:
            return best
        near = (c for c in reversed(candidates) if c.cycles <= best.cycles * CLOSE)
        like = {(c.cycles, len(c.tiled.program.ops)): c for c in near}  # one of those that are much the same
        failed = 0
        for candidate in sorted(like.values(), key=lambda c: (c.scheduled is not best.state, c.cycles)):
            for fill in (FILLS[0], ROOMY):
                if (ops := ops + len(candidate.tiled.program.ops)) > MAX_RESTED or failed == HOPELESS:
                    break
                state = made(candidate.scheduled)
                state = state if fill == FILLS[0] else self._schedule(candidate.tuning, candidate.emitted, fill)
                plans = (tried for rest in RESTS if (tried := _caught([], partial(self._tried, state, rest=rest))))
                longest = next(plans, None)  # less rest is seldom better
                found += [longest] if longest else []
                failed += longest is None
        return min(found, key=lambda one: one.cycles * (MARGIN if one is best else 1.0))

    def _lowered(self, best: "_Tried") -> TileState:
        """The plan made lower, unless bytes that are used again sooner hold the engines up."""
        lower = self._tried(best.state, self._placed(best.state, rest=best.rest))
        return lower.placed if lower.cycles * MARGIN <= best.cycles else best.placed

    def _candidates(self, failures: list[CompileError]) -> "Iterator[tuple[TileState, Sequence[Candidate]]]":
        """Programs to plan for, the best first, each with others that could take its place. What cannot be tiled is
        among the `failures`."""
        for split in (True, False) if self.parts else (False,):
            known: Made = {}
            tried: set[tuple[object, int]] = set()
            candidates = _caught(failures, lambda: self.candidates(split, known))  # noqa: B023
            orders = islice(self._orders(candidates or [], tried), FEWER if len(known) > 1 else PLANS)
            yield from ((order, candidates or []) for order in orders)
            again = [NO_ROOM, {}] if candidates and candidates[0].tuning.room < SearchPoint().room else [{}]
            for shared in again if candidates and len(known) > 1 else ():
                candidates = self.candidates(split, known, shared)
                count = PLANS if not shared else FEWER
                yield from ((order, candidates) for order in islice(self._orders(candidates, tried), count))
            others = self._shared_otherwise(candidates[0], split, known) if candidates and len(known) > 1 else []
            yield from ((order, others) for order in islice(self._orders(others, tried), PLANS))
            for share in SHARES if candidates else ():
                tuning = replace(candidates[0].tuning, share=share)  # type: ignore[index]
                smaller = _caught(failures, lambda: [self._draft(tuning, self._assign(tuning, split), {})])  # noqa: B023
                yield from ((order, []) for order in self._orders([*(smaller or []), *(candidates or [])[:1]], tried))
        for last in (SearchPoint(share=0.5, resident=0.0), SearchPoint(resident=0.0, smallest=True)):
            plain = _caught(failures, lambda: self._emit(last, self._assign(last, split=False)))  # noqa: B023
            if plain is not None:
                yield plain, []

    def candidates(
        self, split: bool = True, known: Made | None = None, shared: Mapping[str, Values] = SHARED
    ) -> list[Candidate]:
        """Tilings that differ, the best first, then by cost: one size after the other is varied while that
        makes the program faster.

        Those that are `known` are among them, and not made again. Where the scratchpad is tight, the ways to share it
        that are in `shared` come first.
        """
        known = {} if known is None else known
        best = self._draft(self.first, self._assign(self.first, split), known)
        if not (best.schedule and self.on("search")):
            return [best]
        if len(best.tiled.program.ops) > ENOUGH_TIGHT // 4:  # maybe only because rows are narrow
            best = self._climb(best, dict.fromkeys(("narrow", "width"), WIDTHS), _Ways(split, known, False, {}))
        ops = len(best.tiled.program.ops)
        few = ops > ENOUGH_TIGHT // 4  # so long that one or two more will be enough
        tight = bool(shared) and _fills(best, self.chip, TIGHT)
        before = sum(len(candidate.tiled.program.ops) for candidate in known.values()) if shared is not SHARED else 0
        ways = _Ways(split, known, tight, {} if few else shared, before if tight else 0)
        first, best = best, self._climb_from(best, ways)
        # the way to share that is the best to begin with may lead nowhere
        if ways.sharing and _sharing(best.tuning) != _sharing(first.tuning):
            more = replace(ways, before=ways.before + ways.ops)
            best = min(best, self._climb(first, PLAIN, more), key=lambda candidate: candidate.cost)
        if ops <= SMALL and (half := self._half(first, best, ways)) is not None:
            sharing = {name: (*values, *FINER) if name == "room" else values for name, values in ways.sharing.items()}
            more = replace(ways, tight=False, sharing=sharing)  # what was made so far leaves it enough
            small = self._climb_from(half, more)  # many small blocks must be worth it
            best = small if small.cost <= best.cost * (1.0 if half.tuning.sram == 0.5 else WORTHY) else best
        return sorted(known.values(), key=lambda candidate: (candidate is not best, candidate.cost))

    def _shared_otherwise(self, best: Candidate, split: bool, known: Made) -> list[Candidate]:
        """The best tiling with each other way to share the scratchpad, also slower ones: there may be a plan for them."""
        tunings = [replace(best.tuning, **{name: value}) for name, values in SHARED.items() for value in values]  # type: ignore[arg-type]
        drafts = (_caught([], lambda: self._draft(t, self._assign(t, split), known)) for t in tunings)  # noqa: B023
        found = {id(draft): draft for draft in drafts if draft is not None and draft is not best}
        return sorted(found.values(), key=lambda candidate: candidate.cost)

    def _half(self, first: Candidate, best: Candidate, ways: "_Ways") -> Candidate | None:
        """A place to begin with half the scratchpad, or half of what the `first` tiling takes of it, since smaller blocks
        overlap better; none if what is `best` so far is much better."""
        used = _peak(made(first.schedule).program) / self.chip.sram.bytes
        tuning = replace(self.first, sram=min(0.5, used / 2))
        try:
            found = self._draft(tuning, self._assign(tuning, ways.split, best.cycles * NEAR), ways.known)
        except CompileError:
            return None
        return replace(found, tuning=tuning) if found.cycles <= best.cycles * NEAR else None

    def _climb_from(self, start: Candidate, ways: "_Ways") -> Candidate:
        """The best from here on; where the scratchpad is tight, or values lie in DRAM for which it would be large enough,
        other ways to share it come first."""
        if ways.sharing and (_fills(start, self.chip, SHARES_IT) or _spills(start, self.chip)):
            start = self._climb(start, ways.sharing, ways)
        return self._climb(start, SEARCH_SPACE, ways)

    def _climb(self, best: Candidate, space: Mapping[str, Values], ways: "_Ways") -> Candidate:
        """The best tiling that is found from `best` on, one size after the other varied."""
        for name, values in space.items():
            for value in values:
                if name == "slice" and value < FINE and self._slice_cycles(2 * value) < best.cycles * WORTH:
                    break
                if ways.ops > (ENOUGH_TIGHT if ways.tight and len(ways.known) > 1 else MAX_OPS):
                    break
                changed: Any = {name: value}
                tuning = replace(best.tuning, **changed)
                try:
                    most = max(GROWN * len(best.tiled.program.ops), SMALL)
                    assigned = self._assign(tuning, ways.split, best.cycles * MARGIN, most)
                    candidate = self._draft(tuning, assigned, ways.known)
                except CompileError:  # or TooSlow: the next value goes further the same way
                    break
                if candidate.cost <= best.cost * MARGIN:
                    best = candidate
                elif name not in (*SHARED, "slice", "window") or (name == "window" and candidate.cycles == best.cycles):
                    break
        return best

    def _slice_cycles(self, share: float) -> float:
        """Of loading as many weights as a slice may have: with finer ones a program begins so much earlier."""
        chip = self.chip
        return chip.sram.bytes * share * chip.clock_hz / chip.dram.bytes_per_second

    def _assign(self, tuning: SearchPoint, split: bool, limit: float = math.inf, most: float = math.inf) -> TileState:
        """The kernel graph with layouts and tile sizes. Raises TooSlow if that takes more than `limit` cycles, or
        `most` ops."""
        return self.manager.run(self.stages(Choice(tuning, split, limit=limit, most=most)).tiling, self.start)

    def _emit(self, tuning: SearchPoint, assigned: TileState) -> TileState:
        return self.manager.run(self.stages(Choice(tuning)).program, assigned)

    def _draft(self, tuning: SearchPoint, assigned: TileState, known: Made) -> Candidate:
        """Emit and schedule with one tuning, unless a `known` one tiles the kernels in the same way."""
        assignment = made(assigned.assignment)
        spaces = tuple(layout.buffer.space for layout in assignment.storage.layouts.values())
        overlap = tuning.overlap if any(batch_tile.parts > 1 for batch_tile in assignment.batch_tiles) else 0.0
        parts = tuple(batch_tile.parts for batch_tile in assignment.batch_tiles)
        tiles = (assignment.tilings, spaces, parts, overlap)
        key = (tiles, tuning.in_turn, tuning.window)
        if key in known:
            return known[key]
        emitted = next((known[of].emitted for of in known if of[0] == tiles), None) or self._emit(tuning, assigned)
        scheduled = self._schedule(tuning, emitted, FILLS[0]) if self.on("schedule") else None
        return known.setdefault(key, Candidate(tuning, emitted, scheduled))

    def _schedule(self, tuning: SearchPoint, emitted: TileState, fill: float) -> TileState:
        return self.manager.run(self.stages(Choice(tuning, fill=fill)).order, emitted)

    def _orders(self, candidates: Sequence[Candidate], tried: set[tuple[object, int]]) -> Iterator[TileState]:
        """Orders of the ops to try: schedules, the fastest first, those that use ever less memory among them. Without
        schedules, the order of the kernels.

        Where two of one fill, that share the scratchpad alike, have found no plan, others like them are not tried; nor
        is what was `tried` before.
        """
        min_gain = [MARGIN] + [1.0] * len(candidates)
        waiting = [
            (c.cost * min_gain[number], 0, number, c.scheduled)
            for number, c in enumerate(candidates)
            if c.scheduled is not None
        ]
        failed = Counter[object]()
        while waiting:
            _, level, number, scheduled = heappop(waiting)
            candidate = candidates[number]
            kind = level, *(getattr(candidate.tuning, name) for name in SHARED)
            if (id(candidate), level) not in tried and failed[kind] < 2:
                tried.add((id(candidate), level))
                yield scheduled
            failed[kind] += 1
            if level + 1 < len(FILLS):
                scheduled = self._schedule(candidate.tuning, candidate.emitted, FILLS[level + 1])
                cost = candidate.weighed(made(scheduled.schedule).cycles) * min_gain[number]
                heappush(waiting, (cost, level + 1, number, scheduled))
        yield from (candidate.emitted for candidate in candidates if candidate.scheduled is None)


def _sharing(tuning: SearchPoint) -> tuple[float, float]:
    """How kernels and what lies between them share the scratchpad."""
    return tuning.resident, tuning.room


def _fills(candidate: Candidate, chip: Chip, share: float) -> bool:
    """Whether a schedule takes more than this share of the scratchpad that it may take."""
    return _peak(made(candidate.schedule).program) > share * chip.sram.bytes * candidate.tuning.sram


def _spills(candidate: Candidate, chip: Chip) -> bool:
    """Whether values between kernels lie in DRAM that the scratchpad could hold, and to store and load them takes a
    good part of the time."""
    stored = made(candidate.emitted.assignment).storage.layouts.values()
    scratch = {layout.buffer for layout in stored if layout.buffer.region is Region.SCRATCH}
    most = chip.sram.bytes * candidate.tuning.sram
    spilled = sum(b.bytes for b in scratch if b.space is Space.DRAM and b.bytes <= most)
    return 2 * spilled * chip.clock_hz / chip.dram.bytes_per_second > SPILLED * candidate.cycles


def _busiest(program: Program, chip: Chip) -> int:
    """Cycles for which the busiest engine is, or the bus, every iteration of the loop included."""
    busy, loop = Counter[Engine | None](), program.loop
    for number, op in enumerate(program.ops):
        times = loop.count if loop is not None and loop.first <= number < loop.end else 1
        busy[None if op.row.engine in DMA_ENGINES else op.row.engine] += times * cycles(op, chip)
    return max(busy.values(), default=0)


def _peak(program: Program) -> int:
    """Most bytes of the scratchpad in use at once."""
    change = [0] * (len(program.ops) + 1)
    for buffer, (first, last) in program.live.items():
        if buffer.space is Space.SRAM:
            change[first] += buffer.bytes
            change[last + 1] -= buffer.bytes
    return max(accumulate(change))


def _caught(failures: list[CompileError], work: Callable[[], T]) -> T | None:
    """What `work` gives; None if it fails. Where it did is forgotten: a traceback keeps all tilings that there were."""
    try:
        return work()
    except CompileError as error:
        failures.append(error.with_traceback(None))
        return None
