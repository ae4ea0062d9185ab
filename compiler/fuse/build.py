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
from compiler.tile.kernel_graph import NOTHING, Copy, KernelGraph, Repeat, Shared, Tensor
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
            kernel_graph=kernel_graph(
                state.ops,
                frozen.inputs,
                frozen.outputs,
                state.kernels,
                rolled=self.rolled,
                shared=frozen.shared,
            ),
        )


def kernel_graph(
    ops: Sequence[KernelOp],
    inputs: Sequence[str],
    outputs: Sequence[str],
    kernels: Sequence[Kernel] | None = None,
    *,
    rolled: bool = True,
    shared: Shared = NOTHING,
) -> KernelGraph:
    """The `kernels` of a frozen graph (default: as `group` makes them of its `ops`) with what they read and give.

    The first values given from outside are the inputs named `inputs`, the others packed constants. With `rolled`,
    identical layers become one loop."""
    every = group(ops) if kernels is None else kernels
    storage = Storage()
    results = ops[-1].operands
    repeat = find_loop(every) if rolled else None
    if repeat is not None and not (_same_orders(repeat) and _own_constants(repeat)):
        repeat = None
    tensors_in, constants = _place_given(ops, storage, inputs, repeat, shared)
    if repeat is not None and not _move_constants(repeat, storage):
        repeat = None  # other programs have them in another order
    kernels = repeat.reduced(every) if repeat else every
    tensors_out, copies = _place_outputs(results, outputs, storage, repeat)
    owner = {node: i for i, kernel in enumerate(kernels) for node in kernel.nodes}
    live = live_ranges([k.nodes for k in kernels], results, owner, repeat)
    return KernelGraph(
        tuple(ops), tuple(kernels), repeat, storage, live, tensors_in, constants, tensors_out, tuple(copies), shared
    )


def _same_orders(repeat: Repeat) -> bool:
    """Whether all values that would share a place want the same order of dimensions."""
    groups = [*repeat.instances.values(), *([old, new] for old, new in repeat.carried.items())]
    return all(len({stored_order(n) for n in group if not n.gives_tuple}) <= 1 for group in groups)


def _own_constants(repeat: Repeat) -> bool:
    """Whether no iteration has a constant of another one, or one in two places; and all are of one kind."""
    every = [node for group in repeat.constants.values() for node in group]
    alike = all(len({(n.results, n.is_state) for n in group}) == 1 for group in repeat.constants.values())
    return alike and len(set(every)) == len(every)


def _move_constants(repeat: Repeat, storage: Storage) -> bool:
    """Let the constants of the first iteration move with the loop. False if those of the others are not at a constant
    stride."""
    moved = {}
    for first, every in repeat.constants.items():
        places = [storage.layouts[node].buffer for node in every]
        offsets = [b.fixed or 0 for b in places]
        step = offsets[1] - offsets[0]
        if step <= 0 or any(b - a != step for a, b in pairwise(offsets)):
            return False
        moved[first] = replace(storage.layouts[first], buffer=replace(places[0], step=step))
    storage.layouts |= moved
    return True


def _in_places(given: Sequence[KernelOp], repeat: Repeat | None) -> list[KernelOp]:
    """Values from outside in the order in which they lie in DRAM: the constants of iterations last, one iteration
    after the other."""
    if repeat is None:
        return list(given)
    moving = dict.fromkeys(group[i] for i in range(repeat.count) for group in repeat.constants.values())
    return [*(node for node in given if node not in moving), *moving]


def _place_given(
    ops: Sequence[KernelOp],
    storage: Storage,
    inputs: Sequence[str],
    repeat: Repeat | None,
    shared: Shared,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Inputs, and packed constants in their order, with their places; a stretch of the loop's constants for each
    iteration."""
    offsets = dict.fromkeys((Region.IN, Region.PARAMS, Region.WEIGHTS, Region.CONST, Region.STATE), 0)
    offsets |= shared.free
    given = [node for node in ops if node.kind == INPUT]
    names = dict(zip(given, inputs, strict=False))
    tensors: dict[KernelOp, Tensor] = {}
    for node in _in_places(given, repeat):
        is_input, name = node in names, names.get(node, node.name)
        region = _region(node, is_input)
        place = None if is_input else shared.places.get(name)
        offset = offsets[region] if place is None else place
        tensor = Tensor(name, node.shape, _user_dtype(node), node.dtype, region, offset, node.name, node.limits)
        if place is None:
            offsets[region] += -(-tensor.bytes // ALIGN) * ALIGN
        tensors[node] = tensor
        storage.layouts[node] = dense(_buffer(tensor), tensor.storage, tensor.shape)
    return tuple(tensors[node] for node in names), tuple(tensors[node] for node in given[len(names) :])


def _region(node: KernelOp, is_input: bool) -> Region:
    """Where a value from outside lies in DRAM."""
    if is_input:
        return Region.PARAMS if node.limits is not None else Region.IN
    if node.is_state:
        return Region.STATE
    return Region.WEIGHTS if node.dtype is Dtype.I8 else Region.CONST


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
