"""The whole compiler, read top to bottom: a captured model becomes a program; weights are packed into its image.

    captured → graph passes → frozen graph → kernels → tile program → placement → words → image
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import heappop, heappush
from typing import Any

from torch import Tensor

from compiler.codegen.image import build_image, region_sizes
from compiler.codegen.program import Code, generate
from compiler.frontend.capture import Captured
from compiler.lower import Lowered, lower
from compiler.options import TILE_PASSES, Options
from compiler.tile.cost import cycles
from compiler.tile.emit import Fitter, Tuning, block_rows
from compiler.tile.ir import Program, verify
from compiler.tile.outline import Outline, outline
from compiler.tile.place import Placement, Times, place
from compiler.tile.reside import reside
from compiler.tile.schedule import FILLS, Schedule, schedule
from compiler.tile.tile import Tiled, tile
from isa.chip import Chip, load_chip
from isa.errors import CompileError
from isa.image import Image

SHARES = (1.0, 0.7, 0.4, 0.2)  # of the memories that a kernel may plan with, shrinking while the memory plan fails
ENOUGH = 50_000  # ops in all drafts, after which no more are made
VARIED: dict[str, tuple[float, ...]] = {  # what to try, one after the other, as long as it makes the program faster
    "points": (256, 128),
    "overlap": (0.25, 0.5),
    "slice": (1 << 19,),
    "rows": (64, 128),
}


@dataclass(frozen=True)
class Compiled:
    """A compiled model. The program depends on the graph alone; `image` packs weights into it, any number of times."""

    lowered: Lowered
    tiled: Tiled
    placement: Placement
    code: Code
    chip: Chip
    options: Options
    timings: Mapping[str, float] = field(default_factory=dict)

    def image(self, tensors: Mapping[str, Tensor] | None = None, metadata: Mapping[str, Any] | None = None) -> Image:
        """The image with these weights (by name; default: those that were captured)."""
        fill = partial(self.lowered.pack_into, tensors=tensors)
        return build_image(self.lowered.main.graph, self.tiled, self.placement, self.code, self.chip, fill, metadata or {})


@dataclass(frozen=True)
class Draft:
    """A tiling and what its schedule promises."""

    tuning: Tuning
    tiled: Tiled
    schedule: Schedule | None

    def cycles(self) -> int:
        return self.schedule.cycles if self.schedule else 0


def compile_captured(captured: Captured, options: Options | None = None, chip: Chip | None = None, **printing: Any) -> Compiled:
    """Compile a captured model. `printing` goes to `lower` (print_after, stop_after, dump_dir).

    Raises UnsupportedError for what the chip cannot do, CompileError for what does not fit.
    """
    options = options or Options()
    chip = chip or load_chip(options.chip)
    start = time.perf_counter()
    lowered = lower(captured, options, **printing)
    seconds = {"graph passes": time.perf_counter() - start}
    return finish(lowered, options, chip, seconds)


def finish(lowered: Lowered, options: Options, chip: Chip, seconds: dict[str, float] | None = None) -> Compiled:
    """From the frozen graph to words. What goes wrong in here for another reason than the model or the chip is our mistake, and says so."""
    seconds = {} if seconds is None else seconds
    try:
        tiled, program, placement = _fit_memory(lowered, options, chip, seconds)
        start = time.perf_counter()
        code = generate(program, placement, chip, region_sizes(tiled, placement))
        seconds["codegen"] = time.perf_counter() - start
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        text = f"the compiler failed on this graph: {type(error).__name__}: {error}"
        raise CompileError(text, "tile passes", "this is a fault of llmchip, not of the model; --traceback shows where") from error
    return Compiled(lowered, tiled, placement, code, chip, options, seconds)


def _fit_memory(lowered: Lowered, options: Options, chip: Chip, seconds: dict[str, float]) -> tuple[Tiled, Program, Placement]:
    """Tile, schedule and place: the tiling whose schedule promises to be the fastest, unless memory cannot be planned for it.

    A plan that fails is tried again with schedules that use less memory, then with smaller kernels.
    """
    names_in, names_out = [i.name for i in lowered.inputs], [o.name for o in lowered.outputs]
    on = {name: name not in options.disable for name in TILE_PASSES}
    with _timed(seconds, "outline"):
        outlined = outline(lowered.main.graph, names_in, names_out, fused=on["fuse"], rolled=on["loop"])
    fitter = Fitter(chip)
    failure = CompileError("no attempt was made")
    for share in SHARES:
        try:
            drafts = _drafts(outlined, options, chip, fitter, share, seconds)
        except CompileError as error:
            raise error if share == SHARES[0] else failure from None
        for tiled, program, times in _orders(drafts, chip, seconds):
            with _timed(seconds, "place"):
                try:
                    return tiled, program, place(program, chip, times)
                except CompileError as error:
                    failure = error
    raise failure


def _drafts(outlined: Outline, options: Options, chip: Chip, fitter: Fitter, share: float, seconds: dict[str, float]) -> list[Draft]:
    """Tilings that differ, with their schedules, the fastest first: one size after the other is varied while that makes the program faster."""
    drafts: dict[object, Draft] = {}
    best = _draft(outlined, options, chip, fitter, Tuning(share=share, rows=block_rows(chip)), seconds, drafts)
    for name, values in VARIED.items():
        for value in values:
            if sum(len(draft.tiled.program.ops) for draft in drafts.values()) > ENOUGH:
                break
            changed: Any = {name: value}
            draft = _draft(outlined, options, chip, fitter, replace(best.tuning, **changed), seconds, drafts)
            if draft.cycles() > best.cycles():
                break
            best = draft
    return sorted(drafts.values(), key=Draft.cycles)


def _draft(
    outlined: Outline, options: Options, chip: Chip, fitter: Fitter, tuning: Tuning, seconds: dict[str, float], known: dict[object, Draft]
) -> Draft:
    """Tile and schedule with one tuning, unless a `known` one cuts the kernels in the same way."""
    with _timed(seconds, "tile"):
        cuts = reside(outlined, fitter, tuning)
        key = cuts.cuts, tuning.overlap if any(strip.parts > 1 for strip in cuts.strips) else 0.0
        if key in known:
            return known[key]
        tiled = tile(outlined, cuts, chip, tuning.overlap)
        verify(tiled.program)
    with _timed(seconds, "schedule"):
        scheduled = None if "schedule" in options.disable else schedule(tiled.program, chip, lambda op: cycles(op, chip), FILLS[0])
    return known.setdefault(key, Draft(tuning, tiled, scheduled))


def _orders(drafts: list[Draft], chip: Chip, seconds: dict[str, float]) -> Iterator[tuple[Tiled, Program, Times | None]]:
    """Orders of the ops to try: schedules, the fastest first, those that use ever less memory among them; then orders of the kernels."""
    waiting = [(draft.schedule.cycles, 0, number, draft.schedule) for number, draft in enumerate(drafts) if draft.schedule is not None]
    while waiting:
        _, level, number, scheduled = heappop(waiting)
        tiled = drafts[number].tiled
        yield tiled, scheduled.program, scheduled.times
        if level + 1 < len(FILLS):
            with _timed(seconds, "schedule"):
                scheduled = schedule(tiled.program, chip, lambda op: cycles(op, chip), FILLS[level + 1])
            heappush(waiting, (scheduled.cycles, level + 1, number, scheduled))
    yield from ((draft.tiled, draft.tiled.program, None) for draft in drafts)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the time spent inside to `seconds`."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
