"""Faults in the tile passes themselves: one decision or one computation of a pass goes wrong while a model is compiled.

Two of them were real: `columns are separable by shapes` and `a storage is read before it is written`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Final
from unittest.mock import patch

from compiler.emit import emitter
from compiler.fuse import build
from compiler.ops.record import Role
from compiler.tile import batch_tile, kernels, layout, storage
from compiler.tile.access import apply_view
from compiler.tile.conflicts import predecessors
from compiler.tile.ir import Buffer, Op
from compiler.tile.kernel_op import KernelOp
from compiler.tile.layout import Layout, Range, blocks
from isa.fields import Access

Patches = Mapping[str, Any]


@contextmanager
def seeded(fault: str) -> Iterator[None]:
    """The fault is in the passes while this lasts. Raises AttributeError if what it replaces is gone: then the fault
    needs another place."""
    with ExitStack() as stack:
        for target, new in PASS_FAULTS[fault].items():
            stack.enter_context(patch(target, new))
        yield


def yes(*_: Any, **__: Any) -> bool:
    return True


def _separable_by_shapes(kernel: kernels.Kernel) -> bool:
    plain = all(n.role in (Role.MATMUL, Role.DEQUANTIZE, Role.ELEMENTWISE) for n in kernel.nodes)
    return plain and kernel.nodes[0].kind == "matmul_i8" and len({n.shape for n in kernel.nodes}) == 1


def _view_of_block(self: emitter.Emitter, node: KernelOp, *_: Any) -> Layout | None:
    """A view of a value is taken of its block, as if that were the whole."""
    origin = node.base
    if node.maker not in self.kernel.members:
        return None
    chain, block = [], self.tiles[origin].layout
    while node is not origin:
        chain.append(node)
        node = node.first
    for view in reversed(chain):
        block = apply_view(block, view)
    return block


def _shifted_blocks(domain: Sequence[int], rows: int) -> Iterator[tuple[Range, ...]]:
    """Every block but the first begins one row early."""
    for number, ranges in enumerate(blocks(domain, rows)):
        yield tuple((a - 1, b - 1) if number and a and b - a > 1 else (a, b) for a, b in ranges)


def _short_blocks(domain: Sequence[int], rows: int) -> Iterator[tuple[Range, ...]]:
    """The last block lacks its last row."""
    found = list(blocks(domain, rows))
    yield from found[:-1]
    yield tuple((a, b - 1) if b - a > 1 else (a, b) for a, b in found[-1])


def _all_but_the_last(*args: Any, **kwargs: Any) -> Iterator[Any]:
    found = list(_PIECES(*args, **kwargs))
    yield from found[:-1] if len(found) > 1 else found


def _coalesced_by_the_first(dims: Sequence[tuple[int, ...]], limit: int = 1 << 62) -> list[tuple[int, ...]]:
    """Joins dimensions that the first layout walks as one, whatever the others do."""
    out: list[tuple[int, ...]] = []
    for dim in dims:
        if dim[0] == 1:
            continue
        if out and len(dim) > 1 and out[-1][0] * dim[0] <= limit and out[-1][1] == dim[1] * dim[0]:
            out[-1] = (out[-1][0] * dim[0], *dim[1:])
        else:
            out.append(dim)
    return out


def _narrowed_in_place(self: Layout, ranges: Sequence[Range]) -> Layout:
    """The second dimension begins where the whole does."""
    return _NARROW(self, [(0, b - a) if i == 1 and self.shape[i] != 1 else (a, b) for i, (a, b) in enumerate(ranges)])


def _first_columns(whole: Layout, low: int, high: int) -> Layout:
    return _COLUMNS(whole, 0, high - low)


def _broadcast_walking(self: Layout, target: Sequence[int]) -> Layout:
    """A dimension of size 1 walks on instead of repeating."""
    found = _BROADCAST(self, target)
    lead = len(target) - len(self.shape)
    inner = [
        1 if i >= lead and self.shape[i - lead] == 1 and i < len(target) - 1 else s for i, s in enumerate(found.strides)
    ]
    return replace(found, strides=tuple(inner))


def _block_ranges_from_the_first(self: emitter.Emitter, sizes: Sequence[int], lead: int = 0) -> tuple[Range, ...]:
    """The reader's dimensions are taken from the left, whatever the operand's rank."""
    ranges = _BLOCK_RANGES(self, sizes, 0)[: len(sizes)]
    return tuple((min(a, n), min(b, n)) for (a, b), n in zip(ranges, sizes, strict=False))


def _over_whatever(self: emitter.Emitter, node: KernelOp, operand: KernelOp, place: Layout) -> emitter.Tile:
    """Results are written over their operands, whoever else reads those."""
    if operand not in self.tiles or node in self.storage.layouts or place is not self.tiles[operand].layout:
        return self.result(node)
    found = emitter.Tile(place, replace(self.result(node).logical), node.name)
    self.tiles[node] = found
    return found


def _any_addition(add: KernelOp, kernel: kernels.Kernel, _stored: object) -> KernelOp | None:
    """Whatever is added to the only use of a product is its residual, in any shape and type."""
    found = [x for x in add.operands if x.kind == "dequantize" and len(x.users) == 1 and x in kernel.members]
    return found[-1] if found and len(add.operands) == 2 else None


def _predecessors(keep: Callable[[Access, Access], bool]) -> Callable[[Sequence[Op]], list[list[int]]]:
    """Only the conflicts of some kinds (of the earlier instruction's access and the later one's)."""

    def found(ops: Sequence[Op]) -> list[list[int]]:
        result = []
        for index, before in enumerate(_PREDECESSORS(ops)):
            result.append([other for other in before if any(keep(a, b) for a, b in _conflicts(ops[other], ops[index]))])
        return result

    return found


def _conflicts(first: Op, second: Op) -> Iterator[tuple[Access, Access]]:
    for _, a, _, how in first.accesses:
        for _, b, _, then in second.accesses:
            if a.buffer == b.buffer and (how is not Access.R or then is not Access.R):
                yield how, then


def _doubled_steps(repeat: Any, stored: storage.Storage) -> bool:
    """Constants move twice as far."""
    moved = _MOVE_CONSTANTS(repeat, stored)
    for node in repeat.constants:
        found = stored.layouts[node]
        stored.layouts[node] = replace(found, buffer=replace(found.buffer, step=2 * found.buffer.step))
    return moved


def _part_of_the_first(stored: storage.Storage, tile: batch_tile.BatchTile, part: int) -> storage.Storage:
    """Every part of a batch tile has the layouts of the first."""
    return _PART_STORAGE(stored, tile, 0)


def _dense_in_order(buffer: Buffer, dtype: Any, sizes: Sequence[int], order: Sequence[int] | None = None) -> Layout:
    """A value is written row-major although its readers want it permuted."""
    return _DENSE(buffer, dtype, sizes)


_PIECES, _NARROW, _BROADCAST, _DENSE = layout.pieces, Layout.narrow, Layout.broadcast, layout.dense
_COLUMNS, _BLOCK_RANGES = emitter.columns, emitter.Emitter.block_ranges
_PREDECESSORS, _MOVE_CONSTANTS, _PART_STORAGE = predecessors, build._move_constants, batch_tile.part_storage


PASS_FAULTS: Final[Mapping[str, Patches]] = {
    "every operation fits a kernel's blocks": {"compiler.fuse.group._cuttable": yes},
    "kernels read their own values at any block": {"compiler.fuse.group._Fuser._inputs_fit": yes},
    "columns are separable by shapes": {
        "compiler.emit.tile_sizes.is_column_separable": _separable_by_shapes,
        "compiler.emit.emitter.Emitter._inside": _view_of_block,
    },
    "a storage is read before it is written": {"compiler.emit.memory_space._read_before_written": yes},
    "carried values stay in place": {"compiler.fuse.loops._carried_in_place": yes},
    "values stay in their iteration": {"compiler.fuse.loops._contained": yes},
    "constants move twice as far": {"compiler.fuse.build._move_constants": _doubled_steps},
    "layouts of one order": {
        "compiler.fuse.build._same_orders": yes,
        "compiler.emit.memory_space.dense": _dense_in_order,
    },
    "blocks begin one row early": {"compiler.emit.kernel.blocks": _shifted_blocks},
    "the last block lacks a row": {"compiler.emit.kernel.blocks": _short_blocks},
    "the last instruction of a block is forgotten": {"compiler.emit.emitter.pieces": _all_but_the_last},
    "dimensions are joined by the first layout": {"compiler.tile.layout.coalesce": _coalesced_by_the_first},
    "blocks of the second dimension begin at 0": {"compiler.tile.layout.Layout.narrow": _narrowed_in_place},
    "every tile has the first columns": {"compiler.emit.matmul.columns": _first_columns},
    "size 1 does not repeat": {"compiler.tile.layout.Layout.broadcast": _broadcast_walking},
    "operands are aligned at the left": {"compiler.emit.emitter.Emitter.block_ranges": _block_ranges_from_the_first},
    "results over operands that are still read": {"compiler.emit.emitter.Emitter.result_over": _over_whatever},
    "residuals of any shape": {"compiler.fuse.epilogues._last_before": _any_addition},
    "reads may pass later writes": {
        "compiler.schedule.list_schedule.predecessors": _predecessors(lambda first, then: first is not Access.R)
    },
    "reads need not wait": {
        "compiler.schedule.list_schedule.predecessors": _predecessors(lambda first, then: then is not Access.R)
    },
    "writes may pass each other": {
        "compiler.schedule.list_schedule.predecessors": _predecessors(lambda first, then: Access.R in (first, then))
    },
    "interleaving keeps every order": {"compiler.emit.interleave._in_order": yes},
    "batch tiles may read any index": {"compiler.emit.batch_tiles._separable": yes},
    "batch tiles share the layouts of the first part": {"compiler.emit.program.part_storage": _part_of_the_first},
}
