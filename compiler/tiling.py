"""Tile the frozen graph: the passes from kernels to addresses, in order. Each is a frozen dataclass and stands beside its
work: options are fields, `run` makes the next state from the one before it (compiler/tile/state.py).

None of them changes a bit of a result: they decide where a value lies and when an instruction runs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from compiler.emit.batch_tiles import SplitBatch
from compiler.emit.fit import MOST_SAMPLED, Sample, TileSizeChooser
from compiler.emit.memory_space import AssignMemory
from compiler.emit.program import MOST_OPS, Emit, Kernels
from compiler.emit.recent import Recent
from compiler.fuse.build import FindLoop
from compiler.fuse.epilogues import FuseEpilogues
from compiler.fuse.group import Fuse
from compiler.fuse.materialize import ReadGraph
from compiler.lower import Lowered
from compiler.options import Options
from compiler.schedule.addresses import Place
from compiler.schedule.autotune import Search
from compiler.schedule.list_schedule import ScheduleOps
from compiler.schedule.stages import Choice, Stages
from compiler.tile.kernel_graph import NOTHING, Shared
from compiler.tile.manager import TileManager, TilePass
from compiler.tile.state import FrozenGraph, TileState
from isa.chip import Chip

Switch = Callable[[str], bool]  # whether a pass or choice is switched on


@dataclass
class Drafts:
    """What the programs of one frozen graph have in common on all chips: the kernel graph, kernels that were emitted of
    late, and samples of them."""

    kernel_graph: TileState | None = None
    kernels: Kernels = field(default_factory=lambda: Recent(MOST_OPS))
    samples: Recent[Sample] = field(default_factory=lambda: Recent(MOST_SAMPLED))


@dataclass(frozen=True)
class Known:
    """What is known of one kernel graph on one chip, whatever the choice: measured kernels, emitted kernels."""

    chip: Chip
    drafts: Drafts = field(default_factory=Drafts)

    @cached_property
    def chooser(self) -> TileSizeChooser:
        return TileSizeChooser(self.chip, self.drafts.samples)


def tile_pipeline(on: Switch, known: Known, choice: Choice) -> Stages:
    """The tile passes. A switched off `fuse` makes kernels of one operation, the others leave their work out."""
    point = choice.point
    share = point.share if choice.split and on("split-batch") else math.inf
    return Stages(
        kernels=[
            ReadGraph(),  # first: nothing behind it sees FX
            Fuse(on("fuse")),  # before all choices: what stays on chip between two operations decides everything else
            FindLoop(on("find-loop")),  # of kernels, before anything is done for each of them
            *_optional(on, FuseEpilogues()),  # behind the loop, which decides what must be stored
        ],
        tiling=[
            SplitBatch(share, point.parts if on("split-batch") else 1),  # before memory: values of a part are smaller
            AssignMemory(
                point, known.chooser, choice.limit, choice.most
            ),  # tile sizes beside what is resident, as one depends on the other
        ],
        program=[
            Emit(point.overlap, known.drafts.kernels),  # where everything lies and how it is tiled is known now
        ],
        order=[
            # before addresses, which forbid orders
            *_optional(on, ScheduleOps(choice.fill, point.in_turn, point.window)),
        ],
        addresses=[
            Place(choice.lower, choice.rest),  # last: what lives together follows from the order
        ],
    )


def _optional(on: Switch, step: TilePass) -> list[TilePass]:
    return [step] if on(step.name) else []


def tile_passes(options: Options, chip: Chip) -> list[TilePass]:
    """The passes behind the frozen graph, in order, as they are before the search has varied them."""
    return list(tile_pipeline(options.enables, Known(chip), Choice()))


def kernel_state(
    lowered: Lowered, options: Options, chip: Chip, manager: TileManager, shared: Shared = NOTHING
) -> TileState:
    """The tile passes that run once: kernels with all that follows from the graph alone, whatever the tiling."""
    names = tuple(i.name for i in lowered.inputs), tuple(o.name for o in lowered.outputs)
    frozen = TileState(chip, FrozenGraph(lowered.main.graph, *names, shared))
    return manager.run(tile_pipeline(options.enables, Known(chip), Choice()).kernels, frozen)


def search(start: TileState, on: Switch, manager: TileManager | None = None, drafts: Drafts | None = None) -> Search:
    """The search for the best tile program of the kernel graph in `start`, with the passes that are switched on."""
    known = Known(start.chip, drafts or Drafts())
    return Search(start, on, partial(tile_pipeline, on, known), manager or TileManager())


def tile_program(
    lowered: Lowered,
    options: Options,
    chip: Chip,
    manager: TileManager,
    shared: Shared = NOTHING,
    drafts: Drafts | None = None,
) -> TileState:
    """The tile passes, beside what other programs of the image have in DRAM. Where the manager stops, what they have
    made so far. `drafts` are what was made before of the same `lowered` with the same options, beside the same.

    Raises CompileError for what does not fit in the memories of `chip`, InternalError with the name of a pass that
    failed.
    """
    drafts = drafts or Drafts()
    if drafts.kernel_graph is None:
        drafts.kernel_graph = kernel_state(lowered, options, chip, manager, shared)
    state = replace(drafts.kernel_graph, chip=chip)
    if not manager.keep(state):
        state = search(state, options.enables, manager, drafts).run()
        manager.keep(state)
    return state
