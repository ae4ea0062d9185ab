"""KernelGraph: what of the tile program follows from the graph alone, whatever the chip and the tile sizes.

placeholders → IN, WEIGHTS, CONST      outputs → OUT      kernels in order, identical layers found      live ranges of
values
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from compiler.tile.ir import Buffer
from compiler.tile.kernel_op import INPUT, KernelOp
from compiler.tile.kernels import Kernel, fuse
from compiler.tile.layout import Layout, dense
from compiler.tile.loops import Repeat, find_loop, hoist
from compiler.tile.storage import Storage, live_ranges, stored_order
from isa.architecture import Dtype, Region, Space

ALIGN = 64  # bytes: a DRAM burst


@dataclass(frozen=True)
class Tensor:
    """A tensor of the interface or a packed constant: where it lies in DRAM."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    storage: Dtype
    region: Region
    offset: int
    node: str = ""
    limits: tuple[int, int] | None = None  # of the elements of an input that steers the program

    @property
    def bytes(self) -> int:
        count = 1
        for n in self.shape:
            count *= n
        return -(-count * self.storage.bits // 8)


@dataclass(frozen=True)
class Shared:
    """What other programs of the image have in DRAM: the places of constants that this one has too, by name, and where
    each region is free."""

    places: Mapping[str, int] = field(default_factory=dict)
    free: Mapping[Region, int] = field(default_factory=dict)


NOTHING = Shared()
Copy = tuple[str, KernelOp, Layout]


@dataclass(frozen=True)
class KernelGraph:
    """Kernels in execution order (one copy of a repeated body), layouts of everything in DRAM, live ranges in kernel
    indices.

    `ops` is the whole graph. `copies` are outputs that are copied to their place at the end. `instances` names, for a
    node that the loop computes, the nodes of all iterations."""

    ops: tuple[KernelOp, ...]
    kernels: tuple[Kernel, ...]
    repeat: Repeat | None
    storage: Storage
    live: Mapping[KernelOp, tuple[int, int]]
    inputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    copies: tuple[Copy, ...]
    shared: Shared = NOTHING

    @property
    def instances(self) -> dict[str, tuple[str, ...]]:
        groups = {**self.repeat.instances, **self.repeat.constants} if self.repeat else {}
        return {first.name: tuple(node.name for node in group) for first, group in groups.items()}

    @property
    def stored(self) -> frozenset[KernelOp]:
        """Values that must lie somewhere: other kernels, other iterations or the caller read them."""
        values = {*self.live, *self.storage.layouts}
        if self.repeat is not None:
            values |= {other for value in self.live for other in self.repeat.sharing(value)}
        return frozenset(values)

    @property
    def stretches(self) -> tuple[tuple[int, int], ...]:
        """First and end kernel of what stands before, in and behind the loop."""
        if self.repeat is None:
            return ((0, len(self.kernels)),)
        start, end = self.repeat.start, self.repeat.start + self.repeat.period
        return ((0, start), (start, end), (end, len(self.kernels)))


def group(ops: Sequence[KernelOp], fused: bool = True) -> list[Kernel]:
    """The operations of a frozen graph as kernels in execution order."""
    return hoist(fuse(ops, fused))


def kernel_graph(
    ops: Sequence[KernelOp],
    inputs: Sequence[str],
    outputs: Sequence[str],
    kernels: Sequence[Kernel] | None = None,
    *,
    rolled: bool = True,
    scalars: Mapping[str, tuple[int, int]] | None = None,
    shared: Shared = NOTHING,
) -> KernelGraph:
    """The `kernels` of a frozen graph (default: as `group` makes them of its `ops`) with what they read and give.

    The first values given from outside are the inputs named `inputs`, the others packed constants. With `rolled`,
    identical layers become one loop. `scalars` are inputs that steer the program, with the range of their elements."""
    every = group(ops) if kernels is None else kernels
    storage = Storage()
    results = ops[-1].operands
    repeat = find_loop(every) if rolled else None
    if repeat is not None and not (_same_orders(repeat) and _own_constants(repeat)):
        repeat = None
    tensors_in, constants = _place_given(ops, storage, inputs, scalars or {}, repeat, shared)
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
    scalars: Mapping[str, tuple[int, int]],
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
        limits = scalars.get(name) if is_input else None
        region = _region(node, is_input, limits is not None)
        place = None if is_input else shared.places.get(name)
        offset = offsets[region] if place is None else place
        tensor = Tensor(name, node.shape, _user_dtype(node), node.dtype, region, offset, node.name, limits)
        if place is None:
            offsets[region] += -(-tensor.bytes // ALIGN) * ALIGN
        tensors[node] = tensor
        storage.layouts[node] = dense(_buffer(tensor), tensor.storage, tensor.shape)
    return tuple(tensors[node] for node in names), tuple(tensors[node] for node in given[len(names) :])


def _region(node: KernelOp, is_input: bool, steers: bool) -> Region:
    """Where a value from outside lies in DRAM."""
    if is_input:
        return Region.PARAMS if steers else Region.IN
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
