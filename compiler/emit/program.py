"""Tile: emit the kernels with their cuts, block by block, into one tile program."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import fx

from compiler.emit.emitter import FLAT, Emitter, TileSizes
from compiler.emit.interleave import interleave, overlapped
from compiler.emit.kernel import emit_kernel
from compiler.emit.memory_space import Assignment
from compiler.tile.batch_tiles import BatchTile, part_storage
from compiler.tile.cost import cycles
from compiler.tile.ir import Buffer, Loop, Op, Program, Tap
from compiler.tile.kernel_graph import ALIGN, KernelGraph, Tensor
from compiler.tile.kernels import Kernel
from compiler.tile.layout import DMA_LIMITS, Layout, contiguous, pieces
from compiler.tile.nodes import shape
from compiler.tile.storage import Storage
from isa.architecture import Region
from isa.chip import Chip


@dataclass(frozen=True)
class Tiled:
    """The tile program with its interface: inputs, packed constants and outputs in DRAM, literal constants.

    `instances` names, for a node that the loop computes, the nodes of all iterations.
    """

    program: Program
    instances: Mapping[str, tuple[str, ...]]
    inputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    literals: Mapping[Buffer, bytes]
    kernels: tuple[Kernel, ...]
    materialized: frozenset[str]


Emitted = dict[object, Emitter]  # kernels by all that their words depend on


def tile(
    kernel_graph: KernelGraph, cuts: Assignment, chip: Chip, overlap: float = 0.0, known: Emitted | None = None
) -> Tiled:
    """The tile program of `kernel_graph`, cut like `cuts`. Each part of a strip begins when the share `overlap` of the
    one before is still to come.

    What is `known` of other cuts of the same kernel_graph is not emitted again, and what is emitted is added to it.
    """
    known = {} if known is None else known
    literals: dict[Buffer, bytes] = {}
    ops: list[Op] = []
    starts: dict[int, int] = {}  # of the first op of a kernel that begins a strip
    for strip in cuts.strips:
        starts[strip.first] = len(ops)
        parts = []
        for part in range(strip.parts):
            emitters = _emit_part(kernel_graph, cuts, strip, part, known)
            literals |= {buffer: data for e in emitters for buffer, data in e.constants.items()}
            parts.append([op for merged in interleave(emitters) for op in merged])
        ops += overlapped(parts, overlap, lambda op: cycles(op, chip))
    starts[len(kernel_graph.kernels)] = len(ops)
    ops += [
        op for name, source, target in kernel_graph.copies for op in _copy_out(name, source, target, cuts.storage, chip)
    ]
    placed = _place_literals(literals, kernel_graph.constants)
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
        kernel_graph.kernels,
        _materialized(ops, kernel_graph.instances),
    )


def _emit_part(
    kernel_graph: KernelGraph, cuts: Assignment, strip: BatchTile, part: int, known: Emitted
) -> list[Emitter]:
    """The kernels of one part of a strip."""
    storage = part_storage(cuts.storage, strip, part)
    name = "" if strip.parts == 1 else f"{part}."
    emitters = []
    for index in range(strip.first, strip.end):
        kernel, cut, prefix = kernel_graph.kernels[index], cuts.cuts[index], f"k{index}.{name}"
        rows = list(strip.ranges(kernel))[part]
        key = prefix, cut, rows, tuple(storage.layouts.get(node) for node in kernel.values())
        if key not in known:
            known[key] = emit_kernel(kernel, storage, cut, prefix, rows)
        emitters.append(known[key])
    return emitters


def _materialized(ops: Sequence[Op], instances: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    """Nodes whose value some word completes, in every iteration."""
    return frozenset(name for op in ops for tap in op.taps for name in instances.get(tap.node, (tap.node,)))


def _copy_out(name: str, node: fx.Node, target: Layout, storage: Storage, chip: Chip) -> list[Op]:
    """Copy a value, or a view of one, to its place among the outputs."""
    source = storage.resolve(node)
    e = Emitter(Kernel([], ()), storage, TileSizes(1), f"out.{name}.")
    sizes = source.shape if target.elements else (0,)  # without elements, nothing is copied
    rows = max(
        1, chip.sram.bytes // 4 // max(1, target.elements // max(1, sizes[0] if sizes else 1) * target.dtype.bits // 8)
    )
    step = max(1, min(rows, sizes[0])) if sizes else 1
    for low in range(0, sizes[0] if sizes else 1, step):
        ranges = ((low, min(low + step, sizes[0])),) if sizes else ()
        local = e.stage_layout(source.narrow(ranges), name)
        d = target.narrow(ranges)
        logical = Layout(FLAT, d.dtype, shape(node), contiguous(shape(node))).narrow(ranges)
        for piece in pieces(d.shape, (d, local), [(logical.offset, logical.strides)], limits=DMA_LIMITS):
            taps = (Tap("d", node.name, *piece.logical[0]),)
            e.ops.append(Op("sto", piece.refs, piece.extents, node.name, taps))
    return e.ops


def _place_literals(literals: Mapping[Buffer, bytes], constants: Sequence[Tensor]) -> dict[Buffer, Buffer]:
    """Literal constants follow the packed ones in CONST."""
    end = max((t.offset + t.bytes for t in constants if t.region is Region.CONST), default=0)
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
