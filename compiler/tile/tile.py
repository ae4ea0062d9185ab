"""Tile: from the frozen graph to a tile program, and the homes of everything in it.

    placeholders → IN, WEIGHTS, CONST      outputs → OUT      values between kernels → SRAM, or SCRATCH when they do not fit
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from torch import Tensor as TorchTensor
from torch import fx

from compiler.tile.emit import emit_kernel, fit
from compiler.tile.emitter import FLAT, Cut, Emitter
from compiler.tile.graph import Role, base, computing, dtype, role, shape
from compiler.tile.interleave import interleave
from compiler.tile.ir import Buffer, Loop, Op, Program, Tap
from compiler.tile.kernels import Kernel, fuse
from compiler.tile.layout import DMA_LIMITS, Layout, contiguous, dense, pieces
from compiler.tile.loops import Repeat, find_loop, hoist
from compiler.tile.storage import Storage, live_ranges, materialize_views, stored_order
from isa.chip import Chip
from isa.errors import CompileError
from isa.spec import Dtype, Region, Space

ALIGN = 64  # bytes: a DRAM burst
SHARES = (1.0, 0.7, 0.4, 0.2)  # of the memories that a kernel may plan with, shrinking while the memory plan fails


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

    @property
    def bytes(self) -> int:
        count = 1
        for n in self.shape:
            count *= n
        return -(-count * self.storage.bits // 8)


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


def tile(
    graph: fx.Graph, chip: Chip, inputs: Sequence[str], outputs: Sequence[str], *, fused: bool = True, rolled: bool = True, share: float = 1.0
) -> Tiled:
    """Cut the frozen `graph` into a tile program for `chip`.

    The first placeholders are the inputs named `inputs`, the others packed constants. With `rolled`, identical layers become
    one loop. `share` scales the memory that kernels plan with. Raises CompileError when a kernel fits in no way.
    """
    materialize_views(graph)
    every = hoist(fuse(graph, fused))
    storage = Storage()
    tensors_in, constants = _place_placeholders(graph, storage, inputs)
    results = _output_nodes(graph)
    repeat = find_loop(every) if rolled else None
    if repeat is not None and not (_same_orders(repeat) and _move_constants(repeat, storage)):
        repeat = None
    kernels = repeat.reduced(every) if repeat else every
    tensors_out, copies = _place_outputs(results, outputs, storage, repeat)
    owner = {node: i for i, kernel in enumerate(kernels) for node in kernel.nodes}
    live = live_ranges([k.nodes for k in kernels], results, owner, repeat)
    cut = _reside(kernels, live, storage, chip, share, repeat)
    emitters = [emit_kernel(kernel, storage, cut[index], f"k{index}.") for index, kernel in enumerate(kernels)]
    literals = {buffer: data for e in emitters for buffer, data in e.constants.items()}
    parts = interleave(emitters)
    parts.append([op for name, source, target in copies for op in _copy_out(name, source, target, storage, chip)])
    placed = _place_literals(literals, constants)
    ops = [_rebind(op, placed) for part in parts for op in part]
    groups = {**repeat.instances, **repeat.constants} if repeat else {}
    instances = {first.name: tuple(node.name for node in group) for first, group in groups.items()}
    return Tiled(
        Program(tuple(ops), _loop(repeat, parts)), instances, tensors_in, constants, tensors_out,
        {placed[b]: data for b, data in literals.items()}, tuple(kernels), _materialized(ops, instances),
    )  # fmt: skip


def _loop(repeat: Repeat | None, parts: Sequence[Sequence[Op]]) -> Loop | None:
    """The loop in op indices."""
    if repeat is None:
        return None
    lengths = [len(part) for part in parts]
    return Loop(sum(lengths[: repeat.start]), sum(lengths[: repeat.start + repeat.period]), repeat.count)


def _materialized(ops: Sequence[Op], instances: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    """Nodes whose value some word completes, in every iteration."""
    return frozenset(name for op in ops for tap in op.taps for name in instances.get(tap.node, (tap.node,)))


def _same_orders(repeat: Repeat) -> bool:
    """Whether all values that would share a home want the same order of dimensions."""
    groups = [*repeat.instances.values(), *([old, new] for old, new in repeat.carried.items())]
    return all(len({stored_order(n) for n in group if isinstance(n.meta["val"], TorchTensor)}) <= 1 for group in groups)


def _move_constants(repeat: Repeat, storage: Storage) -> bool:
    """Let the constants of the first iteration move with the loop. False if those of the others are not at a constant stride."""
    moved = {}
    for first, every in repeat.constants.items():
        places = [storage.homes[node].buffer for node in every]
        offsets = [b.fixed or 0 for b in places]
        step = offsets[1] - offsets[0]
        if step <= 0 or any(b - a != step for a, b in pairwise(offsets)) or len({b.region for b in places}) > 1:
            return False
        moved[first] = replace(storage.homes[first], buffer=replace(places[0], step=step))
    storage.homes |= moved
    return True


def _place_placeholders(graph: fx.Graph, storage: Storage, inputs: Sequence[str]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    offsets = {Region.IN: 0, Region.WEIGHTS: 0, Region.CONST: 0}
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    for i, node in enumerate(n for n in graph.nodes if n.op == "placeholder"):
        is_input = i < len(inputs)
        big = not is_input and dtype(node) is Dtype.I8
        region = Region.IN if is_input else Region.WEIGHTS if big else Region.CONST
        name = inputs[i] if is_input else node.name
        tensor = Tensor(name, shape(node), _user_dtype(node), dtype(node), region, offsets[region], node.name)
        offsets[region] += -(-tensor.bytes // ALIGN) * ALIGN
        found[not is_input].append(tensor)
        storage.homes[node] = dense(_buffer(tensor), tensor.storage, tensor.shape)
    return tuple(found[0]), tuple(found[1])


def _buffer(tensor: Tensor) -> Buffer:
    return Buffer(f"{tensor.region.name.lower()}.{tensor.name}", Space.DRAM, tensor.bytes, tensor.region, tensor.offset)


def _user_dtype(node: fx.Node) -> str:
    return str(node.meta["val"].dtype).removeprefix("torch.")


def _output_nodes(graph: fx.Graph) -> list[fx.Node]:
    """The returned values; None results are dropped."""
    (returned,) = next(n for n in graph.nodes if n.op == "output").args
    items = returned if isinstance(returned, tuple | list) else (returned,)
    return [n for n in items if isinstance(n, fx.Node)]


Copy = tuple[str, fx.Node, Layout]


def _place_outputs(
    nodes: Sequence[fx.Node], names: Sequence[str], storage: Storage, repeat: Repeat | None
) -> tuple[tuple[Tensor, ...], list[Copy]]:
    """Give each output its place. A value that is computed in row-major order is written straight there; others are copied."""
    offset, tensors, copies = 0, [], []
    for node, name in zip(nodes, names, strict=True):
        tensor = Tensor(name, shape(node), _user_dtype(node), dtype(node), Region.OUT, offset, node.name)
        offset += -(-tensor.bytes // ALIGN) * ALIGN
        target = dense(_buffer(tensor), tensor.storage, tensor.shape)
        tensors.append(tensor)
        plain = base(node) is node and computing(node).op == "call_function" and stored_order(node) == tuple(range(len(shape(node))))
        shared = repeat is not None and (repeat.home_of(node) is not node or node in repeat.instances or node in repeat.carried.values())
        if plain and not shared and node not in storage.homes:
            storage.homes[node] = target
        else:
            copies.append((name, node, target))
    return tuple(tensors), copies


def _reside(
    kernels: Sequence[Kernel], live: Mapping[fx.Node, tuple[int, int]], storage: Storage, chip: Chip, share: float, repeat: Repeat | None
) -> list[Cut]:
    """Give every value between kernels a home, SRAM where it fits, and find each kernel's cut beside what is resident.

    Small and short-lived values first. A kernel that does not fit evicts the largest value alive.
    """
    loose = [n for n in live if n not in storage.homes]
    size = {n: -(-dense(FLAT, dtype(n), shape(n)).elements * dtype(n).bits // 8 // ALIGN) * ALIGN for n in loose}
    resident = [0] * (len(kernels) + 1)
    limit = int(chip.sram.bytes * share) // 2
    for node in sorted(loose, key=lambda n: size[n] * (live[n][1] - live[n][0] + 1)):
        first, last = live[node]
        fits = all(resident[i] + size[node] <= limit for i in range(first, last + 1))
        _set_home(storage, node, Space.SRAM if fits else Space.DRAM, size[node], repeat)
        for i in range(first, last + 1) if fits else ():
            resident[i] += size[node]
    _overwrite(kernels, live, storage, repeat, resident, size)
    found: list[Cut] = []
    while len(found) < len(kernels):
        index = len(found)
        try:
            found.append(fit(kernels[index], storage, chip, resident[index], f"k{index}.", share))
        except CompileError:
            inside = [n for n in loose if storage.homes[n].buffer.space is Space.SRAM and live[n][0] <= index <= live[n][1]]
            if not inside:
                raise
            victim = max(inside, key=lambda n: size[n])
            _set_home(storage, victim, Space.DRAM, size[victim], repeat)
            for i in range(live[victim][0], live[victim][1] + 1):
                resident[i] -= size[victim]
            found = found[: live[victim][0]]
    return found


def _overwrite(
    kernels: Sequence[Kernel],
    live: Mapping[fx.Node, tuple[int, int]],
    storage: Storage,
    repeat: Repeat | None,
    resident: list[int],
    size: Mapping[fx.Node, int],
) -> None:
    """Let a value live in the home of another of its kind that nobody needs meanwhile: the residual stream stays in one place.

    It may begin in the kernel that reads the other for the last time, block by block, before it writes; and likewise end
    in the kernel that writes the other's next value.
    """
    if repeat is None:
        return
    for old, new in repeat.carried.items():
        home, own = storage.homes[new], live[new]
        written = next(i for i, k in enumerate(kernels) if computing(new) in k.members)
        last = max((i for i, k in enumerate(kernels) if i <= written and any(base(n) is old for m in k.nodes for n in m.all_input_nodes)), default=written)
        for value, (first, end) in live.items():
            twin = storage.homes[value].strides == home.strides and dtype(value) is dtype(new) and shape(value) == shape(new)
            inside = own[0] <= last <= first <= end <= written
            if value in (old, *repeat.carried.values()) or not twin or not inside or home.buffer.space is not Space.SRAM:
                continue
            if (first > last or _read_before_written(kernels[first], old, value)) and (end < written or _read_before_written(kernels[end], value, new)):
                if storage.homes[value].buffer.space is Space.SRAM:
                    for i in range(first, end + 1):
                        resident[i] -= size[value]
                for node in (value, *repeat.instances.get(value, ())):
                    storage.homes[node] = home
                last = end


def _read_before_written(kernel: Kernel, read: fx.Node, written: fx.Node) -> bool:
    """Whether every block of `kernel` has read its part of `read`, and no more, when it writes its part of `written`."""
    order = {node: i for i, node in enumerate(kernel.nodes)}
    for node in kernel.nodes:
        for operand in node.all_input_nodes:
            if base(operand) is read:
                whole = operand is not read or shape(read)[: len(kernel.domain)] != kernel.domain or role(node) in (Role.MATMUL, Role.GATHER)
                if whole or order[node] > order[computing(written)]:
                    return False
    return True


def _set_home(storage: Storage, node: fx.Node, space: Space, size: int, repeat: Repeat | None) -> None:
    """Give a value its home, and those that share it: its counterparts in the other iterations, what it is carried from."""
    buffer = Buffer(f"v.{node.name}", space, size, Region.SCRATCH)
    home = dense(buffer, dtype(node), shape(node), stored_order(node))
    sharing = [node] if repeat is None else [node, *repeat.instances.get(node, ()), *(old for old, new in repeat.carried.items() if new is node)]
    for other in sharing:
        storage.homes[other] = home


def _copy_out(name: str, node: fx.Node, target: Layout, storage: Storage, chip: Chip) -> list[Op]:
    """Copy a value, or a view of one, to its place among the outputs."""
    source = storage.resolve(node)
    e = Emitter(Kernel([], ()), storage, Cut(1), f"out.{name}.")
    sizes = source.shape
    rows = max(1, chip.sram.bytes // 4 // max(1, target.elements // max(1, sizes[0] if sizes else 1) * target.dtype.bits // 8))
    step = min(rows, sizes[0]) if sizes else 1
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
