"""The tile passes in order. Each is a frozen dataclass and stands beside its work: options are fields, `run` makes the
next state from the one before it (compiler/tile/state.py).

None of them changes a bit of a result: they decide where a value lies and when an instruction runs.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property

from compiler.emit.batch_tiles import SplitBatch
from compiler.emit.fit import TileSizeChooser
from compiler.emit.memory_space import AssignMemory
from compiler.emit.program import Emit, Emitted
from compiler.emit.tile_sizes import SearchPoint
from compiler.fuse.build import FindLoop
from compiler.fuse.epilogues import FuseEpilogues
from compiler.fuse.group import Fuse
from compiler.fuse.materialize import ReadGraph
from compiler.schedule.addresses import Place
from compiler.schedule.list_schedule import FILLS, ScheduleOps
from compiler.tile.manager import TilePass
from isa.chip import Chip

Switch = Callable[[str], bool]  # whether a pass or choice is switched on


@dataclass(frozen=True)
class Stages:
    """The passes, in the order of the fields.

    `kernels` run once. The search runs the others for every tiling that it tries: `tiling` for each point of the
    search space, `program` for those that may be fast enough, `order` for several shares of the memories, `addresses` for
    the best until one fits.
    """

    kernels: Sequence[TilePass]
    tiling: Sequence[TilePass]
    program: Sequence[TilePass]
    order: Sequence[TilePass]
    addresses: Sequence[TilePass]

    def __iter__(self) -> Iterator[TilePass]:
        return (step for stage in fields(self) for step in getattr(self, stage.name))


@dataclass(frozen=True)
class Choice:
    """What the search has chosen: a point of its space, whether the batch may be split, how full a schedule may make
    the memories."""

    point: SearchPoint = field(default_factory=SearchPoint)
    split: bool = True
    fill: float = FILLS[0]


@dataclass(frozen=True)
class Known:
    """What is known of one kernel graph on one chip, whatever the choice: measured kernels, emitted kernels."""

    chip: Chip
    emitted: Emitted = field(default_factory=dict)

    @cached_property
    def chooser(self) -> TileSizeChooser:
        return TileSizeChooser(self.chip)


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
            SplitBatch(share),  # before memory: values of a part are smaller
            AssignMemory(point, known.chooser),  # tile sizes beside what is resident, as one depends on the other
        ],
        program=[
            Emit(point.overlap, known.emitted),  # where everything lies and how it is tiled is known now
        ],
        order=[
            *_optional(on, ScheduleOps(choice.fill, point.in_turn)),  # before addresses, which forbid orders
        ],
        addresses=[
            Place(),  # last: what lives together follows from the order
        ],
    )


def _optional(on: Switch, step: TilePass) -> list[TilePass]:
    return [step] if on(step.name) else []
