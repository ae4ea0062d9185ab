"""Emit a kernel: take its tile sizes, walk its blocks, call one emitter per operation."""

from collections.abc import Iterator
from itertools import islice

from compiler.emit import attention, banks, elementwise, groups, matmul, rows, windows
from compiler.emit.emitter import EMITTERS, Emitter
from compiler.ops.record import Role
from compiler.tile.access import reads, view_of
from compiler.tile.batch_tile import Part
from compiler.tile.decisions import TileSizes
from compiler.tile.kernels import Kernel
from compiler.tile.layout import Range, blocks
from compiler.tile.storage import Storage
from isa.chip import Chip

MODULES = (attention, elementwise, groups, matmul, rows, windows)  # imported so that their emitters are registered


def emit_kernel(
    kernel: Kernel,
    storage: Storage,
    tiling: TileSizes,
    prefix: str,
    part: Part | None = None,
    only: int | None = None,
    some: bool = False,
) -> Emitter:
    """Emit every block of a kernel, or of a part of it; of these the `only` first ones, to measure
    them, and `some` of the tiles in each (Emitter.some)."""
    e = Emitter(kernel, storage, tiling, prefix, part, measuring=some)
    for ranges in islice(part_blocks(kernel, tiling.rows, part), only):
        for e.group in range(tiling.groups):
            e.ranges, e.tiles, e.handed = ranges, {}, {}
            e.block_starts.append(len(e.ops))
            for e.step in kernel.steps:
                EMITTERS[e.step.op.kind](e, e.step.op)
            e.block += 1
    if tiling.wide:
        e.ops = banks.moved(e.ops, keep={layout.buffer for layout in storage.layouts.values()})
    return e


def part_blocks(kernel: Kernel, height: int, part: Part | None) -> Iterator[tuple[Range, ...]]:
    """The blocks of a kernel within a part of it.

    Embeddings of one position follow each other, so that what all samples share is loaded once.
    """
    found = blocks(part_domain(kernel, part), height)
    shifted = (_shifted(ranges, part, kernel) for ranges in found) if part else found
    if any(node.role is Role.GATHER for node in kernel.nodes):
        return iter(sorted(shifted, key=lambda ranges: ranges[::-1]))
    return iter(shifted)


def part_domain(kernel: Kernel, part: Part | None) -> tuple[int, ...]:
    """The domain of a part of a kernel."""
    if part is None or part.axis >= len(kernel.domain):
        return kernel.domain
    return (*kernel.domain[: part.axis], part.high - part.low, *kernel.domain[part.axis + 1 :])


def _shifted(ranges: tuple[Range, ...], part: Part, kernel: Kernel) -> tuple[Range, ...]:
    """The block within the whole kernel. Where the part is of a dimension behind the domain, it goes so far; attention
    knows its part itself."""
    if part.axis < len(ranges):
        return tuple((a + part.low, b + part.low) if i == part.axis else (a, b) for i, (a, b) in enumerate(ranges))
    if any(node.role is Role.ATTENTION for node in kernel.nodes):
        return ranges
    between = kernel.nodes[-1].shape[len(ranges) : part.axis]
    return (*ranges, *((0, size) for size in between), (part.low, part.high))


BY_COLUMNS = ("matmul_i8", "matmul_groups")  # products that can be emitted for a group of their columns


def is_column_separable(kernel: Kernel) -> bool:
    """Whether every operation behind the kernel's matmul treats columns one by one, so that the output can be cut both
    ways."""
    names, sizes = [n.kind for n in kernel.nodes], {n.shape for n in kernel.nodes}
    plain = all(n.role in (Role.MATMUL, Role.DEQUANTIZE, Role.ELEMENTWISE) for n in kernel.nodes)
    products = [name for name, node in zip(names, kernel.nodes, strict=True) if node.role is Role.MATMUL]
    if not plain or products != names[:1] or products[0] not in BY_COLUMNS or len(sizes) > 1:
        return False
    (whole,) = sizes
    inside = (read for n in kernel.nodes for read in reads(n) if read.operand.maker in kernel.members)
    return len(whole) == len(kernel.domain) + 1 and all(read.own_block(whole) for read in inside)


def head_groups(kernel: Kernel, chip: Chip) -> int:
    """Into how many groups of heads a projection can be cut so that each still fills the columns of the array; 1: not
    at all.

    For linear → quantize per head: attention of the first heads can start while the others are still being projected.
    """
    if [n.kind for n in kernel.nodes] != ["matmul_i8", "dequantize", "quantize_rows"]:
        return 1
    depth, (product_, _, quantize) = len(kernel.domain), kernel.nodes
    operand, heads_of = next(reads(quantize)).operand, product_.shape[len(kernel.domain) :]
    split = view_of(operand)
    if len(heads_of) != 1 or split is None or len(split.shape) != depth + 2:
        return 1
    heads, size = split.shape[depth:]
    if heads * size != heads_of[0] or not split.is_dense:
        return 1  # not the columns, one head after the other
    per_group = next((n for n in range(1, heads + 1) if heads % n == 0 and n * size >= chip.mxu.cols), heads)
    return heads // per_group
