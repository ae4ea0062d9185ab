"""Tile: emit the kernels with their tile sizes, block by block, into one tile program."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import ClassVar

from compiler.emit.emitter import FLAT, Emitter
from compiler.emit.interleave import interleave, overlapped, pipelined
from compiler.emit.kernel import emit_kernel
from compiler.emit.recent import Recent
from compiler.tile.batch_tile import BatchTile, part_storage
from compiler.tile.cost import cycles
from compiler.tile.decisions import Assignment, Tiled, TileSizes
from compiler.tile.ir import Buffer, Loop, Op, Probe, Program
from compiler.tile.kernel_graph import KernelGraph
from compiler.tile.kernel_op import KernelOp
from compiler.tile.kernels import Kernel
from compiler.tile.layout import DMA_LIMITS, Layout, blocks, contiguous, pieces
from compiler.tile.state import TileState, made
from compiler.tile.storage import ALIGN, Storage
from isa.architecture import Region
from isa.chip import Chip

Kernels = Recent[Emitter]  # by all that their instructions depend on
MOST_OPS = 300_000  # in kernels that are remembered


@dataclass(frozen=True)
class Emit:
    """Emit the kernels as ops over symbolic buffers.

    Parts of a batch begin while the share `overlap` of the one before is to come; what is `known` is not emitted again.
    """

    name: ClassVar[str] = "emit"
    overlap: float
    known: Kernels

    def run(self, state: TileState) -> TileState:
        return replace(
            state, tiled=tile(made(state.kernel_graph), made(state.assignment), state.chip, self.overlap, self.known)
        )


def tile(
    kernel_graph: KernelGraph, assignment: Assignment, chip: Chip, overlap: float = 0.0, known: Kernels | None = None
) -> Tiled:
    """The tile program of `kernel_graph`, tiled like `assignment`. Each part of a batch tile begins when the share
    `overlap` of the one before is still to come.

    What is `known` of other tilings of the same kernel_graph is not emitted again, and what is emitted is added to it.
    """
    known = Recent(MOST_OPS) if known is None else known
    literals: dict[Buffer, bytes] = {}
    ops: list[Op] = []
    starts: dict[int, int] = {}  # of the first op of a kernel that begins a batch tile
    for batch_tile in assignment.batch_tiles:
        starts[batch_tile.first] = len(ops)
        parts = []
        for part in range(batch_tile.parts):
            emitters = _emit_part(kernel_graph, assignment, batch_tile, part, known)
            literals |= {buffer: data for e in emitters for buffer, data in e.constants.items()}
            parts.append(interleave(emitters))
        ops += _in_parts(batch_tile, parts, overlap, lambda op: cycles(op, chip))
    starts[len(kernel_graph.kernels)] = len(ops)
    ops += [
        op
        for name, source, target in kernel_graph.copies
        for op in _copy_out(name, source, target, assignment.storage, chip)
    ]
    placed = _place_literals(literals, kernel_graph)
    ops = [_rebind(op, placed) for op in ops]
    repeat = kernel_graph.repeat
    loop = Loop(starts[repeat.start], starts[repeat.start + repeat.period], repeat.count) if repeat else None
    return Tiled(
        Program(tuple(ops), loop),
        kernel_graph.instances,
        kernel_graph.inputs,
        kernel_graph.constants,
        kernel_graph.outputs,
        {placed[b]: data for b, data in literals.items()},
        kernel_graph.ops,
        kernel_graph.kernels,
        _materialized(ops, kernel_graph.instances),
    )


def _in_parts(
    batch_tile: BatchTile, parts: Sequence[Sequence[Sequence[Op]]], overlap: float, cycles: Callable[[Op], int]
) -> list[Op]:
    """The ops of all parts, of each kernel, in one order."""
    if not batch_tile.stages:
        return overlapped([[op for kernel in part for op in kernel] for part in parts], overlap, cycles)
    borders = [border - batch_tile.first for border in (*batch_tile.stages, batch_tile.end)]
    staged = [[[op for kernel in part[low:high] for op in kernel] for low, high in pairwise(borders)] for part in parts]
    return pipelined(staged, cycles)


def _emit_part(
    kernel_graph: KernelGraph, assignment: Assignment, batch_tile: BatchTile, part: int, known: Kernels
) -> list[Emitter]:
    """The kernels of one part of a batch tile."""
    storage = part_storage(assignment.storage, batch_tile, part)
    name = "" if batch_tile.parts == 1 else f"{part}."
    emitters = []
    for index in range(batch_tile.first, batch_tile.end):
        kernel, tiling, prefix = kernel_graph.kernels[index], assignment.tilings[index], f"k{index}.{name}"
        rows = batch_tile.part(index, kernel, part)
        key = prefix, tiling, rows, tuple(storage.layouts.get(node) for node in kernel.values())
        emitters.append(known.get(key, partial(emit_kernel, kernel, storage, tiling, prefix, rows)))
    return emitters


def _materialized(ops: Sequence[Op], instances: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    """Nodes whose value some instruction completes, in every iteration."""
    return frozenset(name for op in ops for probe in op.probes for name in instances.get(probe.node, (probe.node,)))


def _copy_out(name: str, node: KernelOp, target: Layout, storage: Storage, chip: Chip) -> list[Op]:
    """Copy a value, or a view of one, to its place among the outputs."""
    source = storage.resolve(node)
    e = Emitter(Kernel.of((), ()), storage, TileSizes(1), f"out.{name}.")
    most = max(1, chip.sram.bytes * 8 // 4 // target.dtype.bits)  # elements at a time
    for ranges in blocks(source.shape, most) if target.elements else ():  # without elements, nothing is copied
        local = e.stage_layout(source.narrow(ranges), name)
        d = target.narrow(ranges)
        logical = Layout(FLAT, d.dtype, node.shape, contiguous(node.shape)).narrow(ranges)
        for piece in pieces(d.shape, (d, local), [(logical.offset, logical.strides)], limits=DMA_LIMITS):
            probes = (Probe("d", node.name, *piece.logical[0]),)
            e.ops.append(Op("sto", piece.refs, piece.extents, node.name, probes))
    return e.ops


def _place_literals(literals: Mapping[Buffer, bytes], kernel_graph: KernelGraph) -> dict[Buffer, Buffer]:
    """Literal constants follow the packed ones in CONST."""
    packed = (t.offset + t.bytes for t in kernel_graph.constants if t.region is Region.CONST)
    end = max((*packed, kernel_graph.shared.free.get(Region.CONST, 0)))
    offset, placed = -(-end // ALIGN) * ALIGN, {}
    for buffer in sorted(literals, key=lambda b: b.name):
        placed[buffer] = Buffer(buffer.name, buffer.space, buffer.bytes, buffer.region, offset)
        offset += ALIGN
    return placed


def _rebind(op: Op, placed: Mapping[Buffer, Buffer]) -> Op:
    if not any(ref is not None and ref.buffer in placed for ref in op.views):
        return op
    views = tuple(replace(r, buffer=placed[r.buffer]) if r is not None and r.buffer in placed else r for r in op.views)
    return replace(op, views=views)
