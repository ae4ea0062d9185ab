"""The whole compiler, read top to bottom: a captured model becomes a program; weights are packed into its image.

    captured → graph passes → frozen graph → tile passes → tile program (checked against the graph), addresses →
    instructions → image

Graph passes are in `pipeline` (compiler/lower.py), tile passes in `tile_pipeline` (compiler/tiling.py).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import Tensor

from compiler.codegen.image import Part, build_image, region_sizes
from compiler.codegen.program import Code, generate
from compiler.frontend.capture import Captured
from compiler.frontend.leftovers import give_back
from compiler.graph.garbage import collected_seldom
from compiler.graph.manager import Watch, named, timed
from compiler.lower import Lowered, lower, pipeline
from compiler.options import Options
from compiler.packing import Bytes
from compiler.tile.decisions import Placement, Tiled
from compiler.tile.kernel_graph import NOTHING, Shared
from compiler.tile.manager import TileManager
from compiler.tile.state import made
from compiler.tiling import Drafts, tile_program
from compiler.translation.check import Interface, check_translation
from isa.chip import Chip, load_chip
from isa.image.image import Image

LONG = 2_000  # ops of a program: others like it, and what they were made with, were megabytes


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

    def image(
        self,
        tensors: Mapping[str, Tensor] | None = None,
        metadata: Mapping[str, object] | None = None,
        known: Mapping[int, Bytes] | None = None,
    ) -> Image:
        """The image with these weights (by name; default: those that were captured). `known` are constants that are
        packed already."""
        return build_image([self.part("main", tensors, known)], self.chip, metadata or {})

    def part(
        self,
        name: str,
        tensors: Mapping[str, Tensor] | None = None,
        known: Mapping[int, Bytes] | None = None,
        only: Collection[int] | None = None,
    ) -> Part:
        """The program as a part of an image, which begins at the entry `name`; with `only` some of its constants, by
        number, where other parts have the rest."""
        fill = partial(self.lowered.pack_into, tensors=tensors, known=known, only=only)
        return Part(name, self.tiled, self.placement, self.code, fill, self.lowered.captured.modules())


def compile_captured(
    captured: Captured,
    options: Options | None = None,
    chip: Chip | None = None,
    *,
    print_after: Collection[str] = (),
    dump_dir: Path | None = None,
) -> Compiled:
    """Compile a captured model. What the passes named in `print_after` leave behind is printed on stderr, that of all
    written to `dump_dir`.

    Raises UnsupportedError for what the chip cannot do, CompileError for what does not fit.
    """
    options = options or Options()
    chip = chip or load_chip(options.chip)
    seconds: dict[str, float] = {}
    watch = Watch(print_after, None, dump_dir)
    with timed(seconds, "graph passes"):
        lowered = _lower(captured, options, watch)
    return finish(lowered, options, chip, seconds, watch)


def compile_until(captured: Captured, options: Options, chip: Chip, watch: Watch) -> dict[str, float]:
    """Run the passes up to `watch.stop_after`, and no further: the seconds that each has taken."""
    lowered = _lower(captured, options, watch)
    if watch.stop_after in graph_passes(options):
        return pass_seconds(lowered)
    manager = TileManager(watch, len(lowered.timings))
    tile_program(lowered, options, chip, manager)
    return pass_seconds(lowered) | manager.seconds


def pass_seconds(lowered: Lowered) -> dict[str, float]:
    """Seconds of every graph pass, in order; a pass that runs several times is numbered."""
    seconds: dict[str, float] = {}
    for timing in lowered.timings:
        number = sum(name.split(" ")[0] == timing.name for name in seconds)
        seconds[timing.name + (f" ({number + 1})" if number else "")] = timing.seconds
    return seconds


def graph_passes(options: Options) -> list[str]:
    """Names of the passes on the graph, in order."""
    return [step.name for step in pipeline(options)]


def _lower(captured: Captured, options: Options, watch: Watch) -> Lowered:
    """The graph passes; those names of passes that are not theirs are for later."""
    own = {*graph_passes(options), "all"}
    printed = [name for name in watch.print_after if name in own]
    stop = watch.stop_after if watch.stop_after in own else None
    return lower(captured, options, print_after=printed, stop_after=stop, dump_dir=watch.dump_dir)


@collected_seldom()
def finish(
    lowered: Lowered,
    options: Options,
    chip: Chip,
    seconds: dict[str, float] | None = None,
    watch: Watch | None = None,
    shared: Shared = NOTHING,
    drafts: Drafts | None = None,
) -> Compiled:
    """From the frozen graph to instructions, beside what other programs of the image have in DRAM. `drafts` are what
    was made before of the same graph, with the same options, for other chips.

    What goes wrong in here for another reason than the model or the chip is our mistake, and says so: InternalError.
    """
    seconds = {} if seconds is None else seconds
    manager = TileManager(watch or Watch(), len(lowered.timings), seconds)
    state = tile_program(lowered, options, chip, manager, shared, drafts)
    tiled, program, placement = made(state.tiled), made(state.program), made(state.placement)
    if len(program.ops) > LONG:
        give_back()  # the tilings that were not taken, before the check begins with symbols of its own
    if options.enables("translation-check"):
        with timed(seconds, "translation-check"), named("'translation-check'", "failed"):
            interface = Interface(tiled.inputs, tiled.constants, tiled.outputs, tiled.literals, tiled.instances)
            check_translation(lowered.main.graph, program, interface)
    with timed(seconds, "codegen"), named("'codegen'", "failed"):
        code = generate(program, placement, chip, region_sizes(tiled, placement))
    return Compiled(lowered, tiled, placement, code, chip, options, seconds)
