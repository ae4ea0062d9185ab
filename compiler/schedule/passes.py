"""The tile passes in order. Each is a frozen dataclass: options are fields, `run` makes the next state from the one
before it.

None of them changes a bit of a result: they decide where a value lies and when an instruction runs.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar, Protocol, TypeVar

from compiler.emit.fit import TileSizeChooser
from compiler.emit.memory_space import assign_memory
from compiler.emit.program import Emitted, tile
from compiler.emit.tile_sizes import SearchPoint
from compiler.schedule.addresses import place
from compiler.schedule.list_schedule import FILLS, schedule
from compiler.schedule.state import TileState
from compiler.tile.batch_tiles import find_batch_tiles
from compiler.tile.cost import cycles
from compiler.tile.epilogues import fuse_epilogues
from compiler.tile.kernel_graph import group, kernel_graph
from compiler.tile.materialize import materialize_views
from isa.chip import Chip, load_chip

T = TypeVar("T")
Switch = Callable[[str], bool]  # whether a pass or choice is switched on
CHOICES = {  # what can be left out of the tile half and is no pass
    "search": "Try several tilings, and keep the one whose schedule is predicted to be the fastest.",
    "translation-check": "Check that the tile program computes what the frozen graph says.",
}


class TilePass(Protocol):
    """A named step behind the frozen graph. It adds to the state, or replaces what is there; it may not change what is
    computed."""

    name: ClassVar[str]

    def run(self, state: TileState) -> TileState: ...


def made(found: T | None) -> T:
    """What an earlier pass has added to the state."""
    assert found is not None, "an earlier pass has not run"
    return found


@dataclass(frozen=True)
class ReadGraph:
    """Make a kernel operation of every node of the frozen graph; insert copies where a view needs one."""

    name: ClassVar[str] = "read-graph"

    def run(self, state: TileState) -> TileState:
        return replace(state, ops=materialize_views(made(state.frozen).graph))


@dataclass(frozen=True)
class Fuse:
    """Group operations into kernels, which go through the chip block by block."""

    name: ClassVar[str] = "fuse"
    joins: bool = True

    def run(self, state: TileState) -> TileState:
        return replace(state, kernels=tuple(group(state.ops, self.joins)))


@dataclass(frozen=True)
class FindLoop:
    """Find identical layers: one body, executed many times."""

    name: ClassVar[str] = "find-loop"
    rolled: bool = True

    def run(self, state: TileState) -> TileState:
        frozen = made(state.frozen)
        return replace(
            state,
            kernel_graph=kernel_graph(
                state.ops,
                frozen.inputs,
                frozen.outputs,
                state.kernels,
                rolled=self.rolled,
                scalars=frozen.scalars,
                shared=frozen.shared,
            ),
        )


@dataclass(frozen=True)
class FuseEpilogues:
    """Do operations of a kernel on the way of others: additions behind products, row maxima before a softmax."""

    name: ClassVar[str] = "fuse-epilogues"

    def run(self, state: TileState) -> TileState:
        graph = made(state.kernel_graph)
        stored = graph.stored
        return replace(
            state,
            kernel_graph=replace(graph, kernels=tuple(fuse_epilogues(kernel, stored) for kernel in graph.kernels)),
        )


@dataclass(frozen=True)
class SplitBatch:
    """Execute kernels whose values do not fit in the `share` of the scratchpad for a part of the batch at a time."""

    name: ClassVar[str] = "split-batch"
    share: float = 1.0

    def run(self, state: TileState) -> TileState:
        return replace(state, batch_tiles=tuple(find_batch_tiles(made(state.kernel_graph), state.chip, self.share)))


@dataclass(frozen=True)
class AssignMemory:
    """Choose a memory for every value between kernels, and tile sizes for every kernel."""

    name: ClassVar[str] = "assign-memory"
    point: SearchPoint
    chooser: TileSizeChooser

    def run(self, state: TileState) -> TileState:
        return replace(
            state, assignment=assign_memory(made(state.kernel_graph), self.chooser, self.point, state.batch_tiles)
        )


@dataclass(frozen=True)
class Emit:
    """Emit the kernels as ops over symbolic buffers.

    Parts of a batch begin while the share `overlap` of the one before is to come; what is `known` is not emitted again.
    """

    name: ClassVar[str] = "emit"
    overlap: float
    known: Emitted

    def run(self, state: TileState) -> TileState:
        return replace(
            state, tiled=tile(made(state.kernel_graph), made(state.assignment), state.chip, self.overlap, self.known)
        )


@dataclass(frozen=True)
class ScheduleOps:
    """Order the ops so that engines work at the same time, within the share `fill` of each memory."""

    name: ClassVar[str] = "schedule"
    fill: float = FILLS[0]
    in_turn: bool = False

    def run(self, state: TileState) -> TileState:
        found = schedule(
            made(state.tiled).program, state.chip, lambda op: cycles(op, state.chip), self.fill, self.in_turn
        )
        return replace(state, schedule=found)


@dataclass(frozen=True)
class Place:
    """Give every buffer an address, and check the plan."""

    name: ClassVar[str] = "place"

    def run(self, state: TileState) -> TileState:
        times = None if state.schedule is None else state.schedule.times
        return replace(state, placement=place(made(state.program), state.chip, times))


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


class Known:
    """What is known of one kernel graph on one chip, whatever the choice: measured kernels, emitted kernels."""

    def __init__(self, chip: Chip) -> None:
        self.chooser = TileSizeChooser(chip)
        self.emitted: Emitted = {}


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


def switchable() -> frozenset[str]:
    """What can be left out behind the frozen graph: the choices, and the passes of which the pipeline asks whether
    they are on."""
    asked = set(CHOICES)

    def on(name: str) -> bool:
        asked.add(name)
        return True

    tile_pipeline(on, Known(load_chip("edge")), Choice())
    return frozenset(asked)
