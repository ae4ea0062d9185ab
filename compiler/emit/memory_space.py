"""Memory spaces: a memory for every value between kernels, SRAM where it fits and SCRATCH in DRAM where not, and tile
sizes for every kernel."""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from compiler.emit.banks import reachable
from compiler.emit.fit import Room, TileSizeChooser
from compiler.emit.tile_sizes import SearchPoint
from compiler.ops.record import Role
from compiler.ops.table import OPS
from compiler.tile.access import reads_of
from compiler.tile.batch_tile import BatchTile, Part, inner_sizes, part_storage
from compiler.tile.decisions import Assignment, TileSizes
from compiler.tile.ir import Buffer
from compiler.tile.kernel_graph import KernelGraph, Repeat
from compiler.tile.kernel_op import KernelOp
from compiler.tile.kernels import Kernel
from compiler.tile.layout import dense
from compiler.tile.state import TileState, made
from compiler.tile.storage import Storage, size_of, stored_order
from isa.architecture import Region, Space
from isa.chip import Chip
from isa.errors import CompileError

Resident = Mapping[Space, list[int]]  # of each memory on chip, the bytes that values take while each kernel runs


class TooSlow(CompileError):
    """Whatever the schedule, a program would take more cycles than what is known already, or be so much longer that to
    look at it takes too long."""


@dataclass(frozen=True)
class AssignMemory:
    """Choose a memory for every value between kernels, and tile sizes for every kernel; no more of them than it takes
    to know that a program needs more than `limit` cycles, or `most` ops."""

    name: ClassVar[str] = "assign-memory"
    point: SearchPoint
    chooser: TileSizeChooser
    limit: float = math.inf
    most: float = math.inf

    def run(self, state: TileState) -> TileState:
        graph = made(state.kernel_graph)
        return replace(
            state, assignment=assign_memory(graph, self.chooser, self.point, state.batch_tiles, self.limit, self.most)
        )


def assign_memory(
    kernel_graph: KernelGraph,
    fitter: TileSizeChooser,
    tuning: SearchPoint,
    batch_tiles: Sequence[BatchTile],
    limit: float = math.inf,
    most: float = math.inf,
) -> Assignment:
    """Give every value between kernels a place, and find tile sizes for each kernel beside what is resident.

    `batch_tiles` (of `find_batch_tiles`) are executed for a part of the batch at a time. Small and short-lived values
    come first. A kernel that does not fit evicts the largest value alive, and all begins anew. Raises CompileError when
    a kernel fits in no way, TooSlow when an engine is busy for more than `limit` cycles, or kernels have more than `most` ops.
    """
    spilled = {n.first.base for k in kernel_graph.kernels for n in k.nodes if n.role is Role.GATHER}  # tables
    turns = list(_turns(kernel_graph, batch_tiles))
    while True:
        storage, resident = _assign_spaces(kernel_graph, fitter.chip, tuning, batch_tiles, spilled)
        tilings: list[TileSizes] = []
        busy, ops = Counter[str](), 0
        for turn in turns:
            busy.update(turn.scaled(fitter.least(turn.kernel, turn.part)))  # until it is known
        for index, turn in enumerate(turns):
            own = part_storage(storage, turn.batch_tile, turn.number)
            room = Room(
                int(fitter.chip.sram.bytes * tuning.sram) - resident[Space.SRAM][index],
                fitter.chip.acc.bytes - resident[Space.ACC][index],
            )
            try:
                fit = fitter.fit(turn.kernel, own, room, f"k{index}.", tuning, turn.part)
            except CompileError:
                on_chip = [
                    n
                    for n in kernel_graph.live
                    if n not in kernel_graph.storage.layouts and storage.layouts[n].buffer.space is not Space.DRAM
                ]
                inside = [n for n in on_chip if kernel_graph.live[n][0] <= index <= kernel_graph.live[n][1]]
                if not inside:
                    raise
                largest = storage.layouts[max(inside, key=size_of)].buffer
                spilled |= {n for n in on_chip if storage.layouts[n].buffer == largest}
                break
            tilings.append(fit.tiling)
            busy.update(turn.scaled(fit.busy))
            busy.subtract(turn.scaled(fitter.least(turn.kernel, turn.part)))
            ops += fit.ops * turn.batch_tile.parts
            if max(busy.values()) > limit or ops > most:
                raise TooSlow(f"the kernels take more than {limit:.0f} cycles, or {most:.0f} ops")
        else:
            return Assignment(storage, tuple(batch_tiles), tuple(tilings))


@dataclass(frozen=True)
class _Turn:
    """A kernel, the part of the batch that it is tiled for and its number, and how often it runs on one like it."""

    kernel: Kernel
    batch_tile: BatchTile
    part: Part | None
    number: int
    times: int

    def scaled(self, busy: Mapping[str, int]) -> dict[str, int]:
        """Cycles of each engine in all."""
        return {engine: count * self.times for engine, count in busy.items()}


def _turns(kernel_graph: KernelGraph, batch_tiles: Sequence[BatchTile]) -> Iterator[_Turn]:
    for index, kernel in enumerate(kernel_graph.kernels):
        batch_tile = next(s for s in batch_tiles if s.first <= index < s.end)
        number = batch_tile.parts - 1 if batch_tile.axes else 0  # of tokens the last part attends to the most
        parts = max(batch_tile.parts // 2 if batch_tile.axes else batch_tile.parts - 1, 1)  # others may be smaller
        times = _iterations(kernel_graph.repeat, index) * parts
        yield _Turn(kernel, batch_tile, batch_tile.part(index, kernel, number), number, times)


def _iterations(repeat: Repeat | None, index: int) -> int:
    """How often a kernel is executed."""
    return repeat.count if repeat is not None and repeat.start <= index < repeat.start + repeat.period else 1


def _assign_spaces(
    kernel_graph: KernelGraph,
    chip: Chip,
    tuning: SearchPoint,
    batch_tiles: Sequence[BatchTile],
    spilled: Collection[KernelOp],
) -> tuple[Storage, Resident]:
    """A place for every value, and the bytes of each memory that are taken by them while each kernel runs."""
    live, repeat = kernel_graph.live, kernel_graph.repeat
    storage = Storage(dict(kernel_graph.storage.layouts))
    loose = [n for n in live if n not in storage.layouts]
    size = {n: size_of(n) for n in loose} | dict(inner_sizes(batch_tiles))
    inner = {node for batch_tile in batch_tiles if not batch_tile.axes for node in batch_tile.inner}
    resident = {space: [0] * (len(kernel_graph.kernels) + 1) for space in (Space.SRAM, Space.ACC)}
    part = 0.125 if inner else tuning.resident  # what waits for its part takes little room
    limit = {
        Space.SRAM: int(chip.sram.bytes * tuning.sram * tuning.share * part),
        Space.ACC: int(chip.acc.bytes * tuning.share * part),
    }
    order = (Space.ACC, Space.SRAM) if tuning.wide else (Space.SRAM, Space.ACC)
    for node in sorted(loose, key=lambda n: (n not in inner, size[n] * (live[n][1] - live[n][0] + 1))):
        first, last = live[node]
        sharing = repeat.sharing(node) if repeat else [node]
        possible = [s for s in order if s is Space.SRAM or (node not in inner and all(map(reachable, sharing)))]
        fitting = (
            s
            for s in possible
            if node in inner or all(n + size[node] <= limit[s] for n in resident[s][first : last + 1])
        )
        space = Space.DRAM if node in spilled else next(fitting, Space.DRAM)
        _store(storage, node, space, size[node], sharing)
        for i in range(first, last + 1) if space is not Space.DRAM else ():
            resident[space][i] += size[node]
    if not inner:
        cut = {node for batch_tile in batch_tiles for node in batch_tile.inner}
        _overwrite(
            kernel_graph.kernels, {n: r for n, r in live.items() if n not in cut}, storage, repeat, resident, size
        )
    return storage, resident


def _overwrite(
    kernels: Sequence[Kernel],
    live: Mapping[KernelOp, tuple[int, int]],
    storage: Storage,
    repeat: Repeat | None,
    resident: Resident,
    size: Mapping[KernelOp, int],
) -> None:
    """Let a value live in the storage of another of its kind that nobody needs meanwhile: the residual stream stays in
    one place.

    It may begin in the kernel that reads the other for the last time, block by block, before it writes; and likewise
    end in the kernel that writes the other's next value.
    """
    if repeat is None:
        return
    moved: set[KernelOp] = set()
    for old, new in repeat.carried.items():
        layout, own = storage.layouts[new], live[new]
        written = next(i for i, k in enumerate(kernels) if new.maker in k.members)
        last = max(
            (
                i
                for i, k in enumerate(kernels)
                if i <= written and any(n.base is old for m in k.nodes for n in m.operands)
            ),
            default=written,
        )
        occupant = old  # whose value is in the storage
        for value, (first, end) in live.items():
            twin = (
                storage.layouts[value].strides == layout.strides
                and value.dtype is new.dtype
                and value.shape == new.shape
            )
            inside = own[0] <= last <= first <= end <= written
            if (
                value in moved
                or value in (old, *repeat.carried.values())
                or not twin
                or not inside
                or layout.buffer.space is Space.DRAM
            ):
                continue
            if layout.buffer.space is Space.ACC and not all(map(reachable, repeat.sharing(value))):
                continue
            begins = first > last or _read_before_written(kernels[first], occupant, value)
            if begins and (end < written or _read_before_written(kernels[end], value, new)):
                if (space := storage.layouts[value].buffer.space) is not Space.DRAM:
                    for i in range(first, end + 1):
                        resident[space][i] -= size[value]
                for node in (value, *repeat.instances.get(value, ())):
                    storage.layouts[node] = layout
                moved.add(value)
                last, occupant = end, value


def _read_before_written(kernel: Kernel, read: KernelOp, written: KernelOp) -> bool:
    """Whether every block of `kernel` has read its part of `read`, and no more, when it writes its part of
    `written`."""
    order = {op: i for i, step in enumerate(kernel.steps) for op in step.ops}
    writer = written.maker
    for node, how in reads_of(kernel.nodes, read):
        whole = how.operand is not read or how.stored or not how.own_block(kernel.domain) or node.role is Role.MATMUL
        together = node is writer and (not OPS[node.kind].in_place or node.shape != read.shape)
        if whole or together or order[node] > order[writer]:
            return False
    return written.shape[: len(kernel.domain)] == kernel.domain


def _store(storage: Storage, node: KernelOp, space: Space, size: int, sharing: Sequence[KernelOp]) -> None:
    """Give a value its storage, and those that share it."""
    layout = dense(Buffer(f"v.{node.name}", space, size, Region.SCRATCH), node.dtype, node.shape, stored_order(node))
    for other in sharing:
        storage.layouts[other] = layout
