"""The whole compiler, read top to bottom: a captured model becomes a program; weights are packed into its image.

    captured → graph passes → frozen graph → kernels → tile program → placement → words → image
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from compiler.codegen.image import build_image, region_sizes
from compiler.codegen.program import Code, generate
from compiler.frontend.capture import Captured
from compiler.lower import Lowered, lower
from compiler.options import TILE_PASSES, Options
from compiler.tile.cost import cycles
from compiler.tile.ir import Program, verify
from compiler.tile.place import Placement, place
from compiler.tile.schedule import FILLS, schedule
from compiler.tile.tile import SHARES, Tiled, tile
from isa.chip import Chip, load_chip
from isa.errors import CompileError
from isa.image import Image


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
    """Tile, schedule and place. A memory plan that fails is tried again without the schedule, then with smaller kernels."""
    names_in, names_out = [i.name for i in lowered.inputs], [o.name for o in lowered.outputs]
    failure = CompileError("no attempt was made")
    for share in SHARES:
        start = time.perf_counter()
        try:
            on = {name: name not in options.disable for name in TILE_PASSES}
            tiled = tile(lowered.main.graph, chip, names_in, names_out, fused=on["fuse"], rolled=on["loop"], share=share)
        except CompileError as error:
            raise error if share == SHARES[0] else failure from None
        verify(tiled.program)
        seconds["tile"] = time.perf_counter() - start
        for program, rests in _orders(tiled.program, options, chip, seconds):
            start = time.perf_counter()
            try:
                placement = place(program, chip, rests)
            except CompileError as error:
                failure = error
                continue
            seconds["place"] = time.perf_counter() - start
            return tiled, program, placement
    raise failure


def _orders(program: Program, options: Options, chip: Chip, seconds: dict[str, float]) -> Iterator[tuple[Program, tuple[int, ...] | None]]:
    """Orders of the ops to try: schedules that use ever less memory, then the order of the kernels, which needs the least."""
    if "schedule" not in options.disable:
        for fill in FILLS:
            start = time.perf_counter()
            scheduled = schedule(program, chip, lambda op: cycles(op, chip), fill)
            seconds["schedule"] = time.perf_counter() - start
            yield scheduled.program, scheduled.rests
    yield program, None
