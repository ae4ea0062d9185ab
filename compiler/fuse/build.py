"""Build the kernel graph: what of the tile program follows from the graph alone, whatever the chip and the tile sizes.

placeholders → IN, WEIGHTS, CONST      outputs → OUT      kernels in order, identical layers found      live ranges of
values
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

from compiler.fuse.group import group
from compiler.fuse.live_ranges import live_ranges
from compiler.fuse.loops import find_loop
from compiler.tile.ir import Buffer
from compiler.tile.kernel_graph import Copy, KernelGraph, Repeat, Tensor
from compiler.tile.kernel_op import INPUT, KernelOp
from compiler.tile.kernels import Kernel
from compiler.tile.layout import dense
from compiler.tile.state import TileState, made
from compiler.tile.storage import ALIGN, Storage, stored_order
from isa.architecture import Dtype, Region, Space


@dataclass(frozen=True)
class FindLoop:
    """Find identical layers: one body, executed many times."""

    name: ClassVar[str] = "find-loop"
    rolled: bool = True

    def run(self, state: TileState) -> TileState:
        frozen = made(state.frozen)
        return replace(
            state,
            kernel_graph=kernel_graph(state.ops, frozen.inputs, frozen.outputs, state.kernels, rolled=self.rolled),
        )


def kernel_graph(
    ops: Sequence[KernelOp],
    inputs: Sequence[str],
    outputs: Sequence[str],
    kernels: Sequence[Kernel] | None = None,
    *,
    rolled: bool = True,
) -> KernelGraph:
    """The `kernels` of a frozen graph (default: as `group` makes them of its `ops`) with what they read and give.

    The first values given from outside are the inputs named `inputs`, the others packed constants. With `rolled`,
    identical layers become one loop."""
    every = group(ops) if kernels is None else kernels
    storage = Storage()
    tensors_in, constants = _place_given(ops, storage, inputs)
    results = ops[-1].operands
    repeat = find_loop(every) if rolled else None
    if repeat is not None and not (_same_orders(repeat) and _move_constants(repeat, storage)):
        repeat = None
    kernels = repeat.reduced(every) if repeat else every
    tensors_out, copies = _place_outputs(results, outputs, storage, repeat)
    owner = {node: i for i, kernel in enumerate(kernels) for node in kernel.nodes}
    live = live_ranges([k.nodes for k in kernels], results, owner, repeat)
    return KernelGraph(
        tuple(ops), tuple(kernels), repeat, storage, live, tensors_in, constants, tensors_out, tuple(copies)
    )


def _same_orders(repeat: Repeat) -> bool:
    """Whether all values that would share a place want the same order of dimensions."""
    groups = [*repeat.instances.values(), *([old, new] for old, new in repeat.carried.items())]
    return all(len({stored_order(n) for n in group if not n.gives_tuple}) <= 1 for group in groups)


def _move_constants(repeat: Repeat, storage: Storage) -> bool:
    """Let the constants of the first iteration move with the loop. False if those of the others are not at a constant
    stride."""
    moved = {}
    for first, every in repeat.constants.items():
        places = [storage.layouts[node].buffer for node in every]
        offsets = [b.fixed or 0 for b in places]
        step = offsets[1] - offsets[0]
        if step <= 0 or any(b - a != step for a, b in pairwise(offsets)) or len({b.region for b in places}) > 1:
            return False
        moved[first] = replace(storage.layouts[first], buffer=replace(places[0], step=step))
    storage.layouts |= moved
    return True


def _place_given(
    ops: Sequence[KernelOp], storage: Storage, inputs: Sequence[str]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    offsets = {Region.IN: 0, Region.WEIGHTS: 0, Region.CONST: 0}
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    for i, node in enumerate(n for n in ops if n.kind == INPUT):
        is_input = i < len(inputs)
        big = not is_input and node.dtype is Dtype.I8
        region = Region.IN if is_input else Region.WEIGHTS if big else Region.CONST
        name = inputs[i] if is_input else node.name
        tensor = Tensor(name, node.shape, _user_dtype(node), node.dtype, region, offsets[region], node.name)
        offsets[region] += -(-tensor.bytes // ALIGN) * ALIGN
        found[not is_input].append(tensor)
        storage.layouts[node] = dense(_buffer(tensor), tensor.storage, tensor.shape)
    return tuple(found[0]), tuple(found[1])


def _buffer(tensor: Tensor) -> Buffer:
    return Buffer(f"{tensor.region.name.lower()}.{tensor.name}", Space.DRAM, tensor.bytes, tensor.region, tensor.offset)


def _user_dtype(node: KernelOp) -> str:
    return str(node.type).removeprefix("torch.")


def _place_outputs(
    nodes: Sequence[KernelOp], names: Sequence[str], storage: Storage, repeat: Repeat | None
) -> tuple[tuple[Tensor, ...], list[Copy]]:
    """Give each output its place. A value that is computed in row-major order is written straight there; others are
    copied."""
    offset, tensors, copies = 0, [], []
    for node, name in zip(nodes, names, strict=True):
        tensor = Tensor(name, node.shape, _user_dtype(node), node.dtype, Region.OUT, offset, node.name)
        offset += -(-tensor.bytes // ALIGN) * ALIGN
        target = dense(_buffer(tensor), tensor.storage, tensor.shape)
        tensors.append(tensor)
        plain = node.base is node and node.maker.is_operation and stored_order(node) == tuple(range(len(node.shape)))
        shared = repeat is not None and (
            repeat.storage_of(node) is not node or node in repeat.instances or node in repeat.carried.values()
        )
        if plain and not shared and node not in storage.layouts:
            storage.layouts[node] = target
        elif not node.is_empty:
            copies.append((name, node, target))
    return tuple(tensors), copies
