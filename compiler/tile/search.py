"""Search: the tiling whose schedule promises to be the fastest, among those that memory can be planned for.

    for each size in VARIED, one after the other:  cut → emit → schedule → keep if the predicted cycles are fewer

The list scheduler simulates engines, bus and memories, so its prediction is the cost model. `make bench-chip` compares it with the
timing mode.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import Any

from compiler.tile.cost import cycles
from compiler.tile.emit import Fitter, Tuning, block_rows
from compiler.tile.ir import Program, verify
from compiler.tile.outline import Outline
from compiler.tile.place import Placement, Times, place
from compiler.tile.reside import reside
from compiler.tile.schedule import FILLS, Schedule, schedule
from compiler.tile.strips import find_strips
from compiler.tile.tile import Tiled, tile
from isa.chip import Chip
from isa.errors import CompileError

SHARES = (1.0, 0.7, 0.4, 0.2)  # of the memories that a kernel may plan with, shrinking while the memory plan fails
MARGIN = 0.998  # a promise that is better by less than the cost model's error is no reason to change anything
ENOUGH = 50_000  # ops in all drafts, after which no more are made
VARIED: dict[str, tuple[float, ...]] = {  # what to try, one after the other, as long as it makes the program faster
    "points": (256, 128),
    "overlap": (0.25, 0.5),
    "slice": (1 << 19,),
    "in_turn": (True,),
    "rows": (64, 128),
}

Switch = Callable[[str], bool]


@dataclass(frozen=True)
class Draft:
    """A tiling and its schedule (None if that is switched off)."""

    tuning: Tuning
    tiled: Tiled
    schedule: Schedule | None

    @property
    def cycles(self) -> int:
        """What the schedule promises."""
        return self.schedule.cycles if self.schedule else 0


@dataclass
class Search:
    """Looks for the best tile program of an outline. `on` says which tile passes are switched on; `seconds` collects times by step."""

    outlined: Outline
    chip: Chip
    on: Switch
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.fitter = Fitter(self.chip)

    def run(self) -> tuple[Tiled, Program, Placement]:
        """The best program that fits: a plan that fails is tried again with schedules that use less memory, then with smaller kernels.

        Raises CompileError when a kernel fits in no way, or no plan was found.
        """
        failure: CompileError | None = None
        for strips in (True, False) if self.on("strips") else (False,):
            for share in SHARES:
                try:
                    drafts = self.drafts(share, strips)
                except CompileError as error:
                    failure = failure or error
                    break
                for tiled, program, times in self._orders(drafts):
                    with timed(self.seconds, "place"):
                        try:
                            return tiled, program, place(program, self.chip, times)
                        except CompileError as error:
                            failure = error
            if not any(strip.parts > 1 for strip in find_strips(self.outlined, self.chip, SHARES[0])):
                break
        raise failure or CompileError("no attempt was made")

    def drafts(self, share: float = 1.0, strips: bool = True) -> list[Draft]:
        """Tilings that differ, the best first, then by promised cycles: one size after the other is varied while that makes the program faster."""
        known: dict[object, Draft] = {}
        best = self._draft(Tuning(share=share, rows=block_rows(self.chip)), strips, known)
        for name, values in VARIED.items() if self.on("search") and self.on("schedule") else ():
            for value in values:
                if sum(len(draft.tiled.program.ops) for draft in known.values()) > ENOUGH:
                    break
                changed: Any = {name: value}
                try:
                    draft = self._draft(replace(best.tuning, **changed), strips, known)
                except CompileError:
                    break
                if draft.cycles > best.cycles * MARGIN:
                    break
                best = draft
        return sorted(known.values(), key=lambda draft: (draft is not best, draft.cycles))

    def _draft(self, tuning: Tuning, strips: bool, known: dict[object, Draft]) -> Draft:
        """Tile and schedule with one tuning, unless a `known` one cuts the kernels in the same way."""
        with timed(self.seconds, "tile"):
            cuts = reside(self.outlined, self.fitter, tuning, strips)
            key = cuts.cuts, tuning.overlap if any(strip.parts > 1 for strip in cuts.strips) else 0.0, tuning.in_turn
            if key in known:
                return known[key]
            tiled = tile(self.outlined, cuts, self.chip, tuning.overlap)
            verify(tiled.program)
        scheduled = self._schedule(tiled, FILLS[0], tuning.in_turn) if self.on("schedule") else None
        return known.setdefault(key, Draft(tuning, tiled, scheduled))

    def _schedule(self, tiled: Tiled, fill: float, in_turn: bool) -> Schedule:
        with timed(self.seconds, "schedule"):
            return schedule(tiled.program, self.chip, lambda op: cycles(op, self.chip), fill, in_turn)

    def _orders(self, drafts: list[Draft]) -> Iterator[tuple[Tiled, Program, Times | None]]:
        """Orders of the ops to try: schedules, the fastest first, those that use ever less memory among them; then orders of the kernels."""
        handicap = [MARGIN] + [1.0] * len(drafts)
        waiting = [(draft.cycles * handicap[number], 0, number, draft.schedule) for number, draft in enumerate(drafts) if draft.schedule is not None]
        while waiting:
            _, level, number, scheduled = heappop(waiting)
            yield drafts[number].tiled, scheduled.program, scheduled.times
            if level + 1 < len(FILLS):
                scheduled = self._schedule(drafts[number].tiled, FILLS[level + 1], drafts[number].tuning.in_turn)
                heappush(waiting, (scheduled.cycles * handicap[number], level + 1, number, scheduled))
        yield from ((draft.tiled, draft.tiled.program, None) for draft in drafts)


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the time spent inside to `seconds`."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
