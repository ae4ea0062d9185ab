"""What the tile passes hand to each other, and what of it a reader sees.

frozen graph → kernel operations → kernels → kernel graph → batch tiles → layouts and tile sizes → tile program →
schedule → addresses"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from torch import fx

from compiler.tile.batch_tile import BatchTile
from compiler.tile.decisions import Assignment, Placement, Schedule, Tiled, TileSizes
from compiler.tile.ir import Program
from compiler.tile.kernel_graph import NOTHING, KernelGraph, Shared
from compiler.tile.kernel_op import KernelOp
from compiler.tile.kernels import Kernel
from isa.chip import Chip

WHOLE = 1 << 30  # a tile size that cuts nothing
T = TypeVar("T")


@dataclass(frozen=True)
class FrozenGraph:
    """The graph that the chip will compute, and the names of its inputs and outputs. `shared` is what
    other programs of its image have in DRAM."""

    graph: fx.Graph
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shared: Shared = NOTHING


@dataclass(frozen=True)
class TileState:
    """All that is decided so far for a program on `chip`; a pass adds a field or replaces one. What is None is still
    to come.

    `last` is the pass that made this state from the one `before`.
    """

    chip: Chip
    frozen: FrozenGraph | None = None
    ops: tuple[KernelOp, ...] = ()
    kernels: tuple[Kernel, ...] = ()
    kernel_graph: KernelGraph | None = None
    batch_tiles: tuple[BatchTile, ...] = ()
    assignment: Assignment | None = None
    tiled: Tiled | None = None
    schedule: Schedule | None = None
    placement: Placement | None = None
    last: str = ""
    before: "TileState | None" = None

    @property
    def program(self) -> Program | None:
        """The tile program in its latest order."""
        if self.schedule is not None:
            return self.schedule.program
        return None if self.tiled is None else self.tiled.program

    def history(self) -> "tuple[TileState, ...]":
        """The states behind every pass that has run, this one last."""
        return () if self.before is None else (*self.before.history(), self)

    def __str__(self) -> str:
        """The most recent of what was decided. Lines with `#` are no part of a program's own text."""
        if self.placement is not None and self.program is not None:
            return _placed(self.placement, self.program)
        if self.schedule is not None:
            return f"# {self.schedule.cycles} cycles are predicted\n{self.schedule.program}"
        if self.tiled is not None:
            return str(self.tiled.program)
        if not self.kernels:
            return "".join(f"{op}\n" for op in self.ops)
        if self.kernel_graph is None:
            return "".join(f"{line}\n" for line in _kernels(self.kernels))
        parts: Iterator[str] = _looped(self.kernel_graph)
        if self.assignment is not None:
            parts = _assigned(self.kernel_graph, self.assignment)
        elif self.batch_tiles:
            parts = (f"k{s.first}..k{s.end - 1} in {s.parts} part{'s' * (s.parts > 1)}" for s in self.batch_tiles)
        return "".join(f"{line}\n" for line in parts)


def made(found: T | None) -> T:
    """What an earlier pass has added to the state."""
    assert found is not None, "an earlier pass has not run"
    return found


def _kernels(kernels: tuple[Kernel, ...]) -> list[str]:
    """One line for each kernel: its number, what it does over which domain, and what it reads."""
    lines = []
    for index, kernel in enumerate(kernels):
        outside = dict.fromkeys(
            n.base.name for node in kernel.nodes for n in node.operands if n.maker not in kernel.members
        )
        lines.append(f"k{index} {kernel} ← {', '.join(outside)}")
    return lines


def _looped(graph: KernelGraph) -> Iterator[str]:
    """Kernels with the loop, then the kernels between which each value is alive."""
    lines = _kernels(graph.kernels)
    if graph.repeat is not None:
        start, end = graph.repeat.start, graph.repeat.start + graph.repeat.period
        inside = [f"  {line}" for line in lines[start:end]]
        lines = [*lines[:start], f"loop {graph.repeat.count} {{", *inside, "}", *lines[end:]]
    yield from lines
    yield from (f"value {node.name} lives k{first}..k{last}" for node, (first, last) in graph.live.items())


def _assigned(graph: KernelGraph, assignment: Assignment) -> Iterator[str]:
    """Where values lie between kernels, then the tile sizes of every kernel."""
    for node in graph.live:
        layout = assignment.storage.layouts[node]
        yield f"value {node.name} in {layout.buffer}"
    for index, sizes in enumerate(assignment.tilings):
        yield f"k{index} {_sizes(sizes)}"


def _sizes(sizes: TileSizes) -> str:
    given = {"rows": sizes.rows, "n": sizes.n, "k": sizes.k}
    found = [f"{name}={value}" for name, value in given.items() if value < WHOLE]
    found += [f"groups={sizes.groups}"] if sizes.groups > 1 else []
    return ", ".join(
        [
            *found,
            "weights stay" if sizes.keep else "weights are streamed",
            *(["wide rows in acc"] if sizes.wide else []),
        ]
    )


def _placed(placement: Placement, program: Program) -> str:
    """The buffers that were placed, at their addresses."""
    lines = [f"# {name} {height}, lower bound {bound}" for name, (height, bound) in placement.heights.items()]
    for buffer in program.buffers:
        first, last = placement.live[buffer]
        lines.append(f"{replace(buffer, fixed=placement.offsets[buffer])} # op {first}..{last}")
    return "".join(f"{line}\n" for line in lines)
