"""The image of a compiled model: program, packed constants, interface, memory plan and debug map in one record."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compiler.codegen.layers import layers_of, modules_of
from compiler.codegen.program import Code
from compiler.codegen.view_registers import LEVEL
from compiler.frontend.leftovers import give_back
from compiler.packing import Store
from compiler.tile.decisions import Placement, Tiled
from compiler.tile.kernel_graph import Tensor as Interface
from compiler.tile.kernel_op import INPUT, OUTPUT, KernelOp
from compiler.types import flat_bytes
from isa.architecture import IMAGE_REGIONS, WORD_BYTES, Region, Space
from isa.chip import Chip
from isa.errors import UnsupportedError
from isa.image.image import Image
from isa.image.records import (
    FUSED_INTO,
    RESULTS,
    VIEW_OF,
    DebugMap,
    DebugNode,
    Entry,
    PlanRecord,
    Probe,
    Scalar,
    Span,
    TensorSpec,
)

LARGE = 16 << 20  # bytes of packed constants


def region_sizes(tiled: Tiled, placement: Placement) -> dict[Region, int]:
    """Bytes of each DRAM region that the program may touch."""
    sizes = dict.fromkeys(Region, 0)
    for tensor in (*tiled.inputs, *tiled.constants, *tiled.outputs):
        sizes[tensor.region] = max(sizes[tensor.region], tensor.offset + tensor.bytes)
    for buffer in tiled.literals:
        sizes[Region.CONST] = max(sizes[Region.CONST], (buffer.fixed or 0) + buffer.bytes)
    sizes[Region.SCRATCH] = placement.scratch_bytes
    return sizes


@dataclass(frozen=True)
class Part:
    """A program of an image, which begins at the entry `name`. `fill` hands over its packed constants, by their
    numbers in `tiled.constants`."""

    name: str
    tiled: Tiled
    placement: Placement
    code: Code
    fill: Callable[[Store], None]
    modules: Mapping[str, str] = field(default_factory=dict)  # of the captured nodes


Place = tuple[Region, int, str]  # of a constant; one without bytes shares its offset, so it is told by its name


def build_image(parts: Sequence[Part], chip: Chip, metadata: Mapping[str, Any]) -> Image:
    """Put everything into one image. A constant that several programs have is there once.

    Each goes straight into its place, so that packed weights are in memory once.
    """
    needed = [region_sizes(part.tiled, part.placement) for part in parts]
    sizes = {region: max(one[region] for one in needed) for region in Region}
    if sum(sizes[region] for region in IMAGE_REGIONS) > LARGE:
        give_back()  # what the passes needed, before as much again is packed
    data = {region: np.zeros(sizes[region], np.uint8) for region in IMAGE_REGIONS}
    constants: dict[Place, Interface] = {}
    for part in parts:
        _fill(part, data, constants)
        constants.update({_place(tensor): tensor for tensor in part.tiled.constants})
    starts = list(accumulate((len(part.code.instructions) for part in parts), initial=0))
    nodes = list(accumulate((len(_nodes(part.tiled, part.code, {})) for part in parts), initial=0))
    debug = [
        debug_map(part.tiled, part.code, part.modules, *at) for part, *at in zip(parts, starts, nodes, strict=False)
    ]
    return Image(
        code=b"".join(part.code.bytes for part in parts),
        weights=data[Region.WEIGHTS].data,
        const=data[Region.CONST].data,
        sizes=tuple(sizes[region] for region in Region),
        entries=tuple(_entry(part, start) for part, start in zip(parts, starts, strict=False)),
        states=tuple(_spec(tensor) for tensor in constants.values() if tensor.region is Region.STATE),
        constants=tuple(_spec(tensor) for tensor in constants.values() if tensor.region is not Region.STATE),
        plan=tuple(record for part, start in zip(parts, starts, strict=False) for record in _plan(part, start)),
        debug=DebugMap(
            tuple(node for one in debug for node in one.nodes),
            tuple(probe for one in debug for probe in one.probes),
            tuple(span for one in debug for span in one.spans),
        ),
        metadata=dict(metadata),
        chip=chip,
    )


def _place(tensor: Interface) -> Place:
    return tensor.region, tensor.offset, "" if tensor.bytes else tensor.name


def _fill(part: Part, data: Mapping[Region, NDArray[np.uint8]], there: Collection[Place]) -> None:
    """The constants of a program, but for those that are there already, and its literals."""

    def store(number: int, value: Tensor | NDArray[np.uint8]) -> None:
        tensor = part.tiled.constants[number]
        if tensor.region is Region.STATE or _place(tensor) in there:
            return  # state begins with zeros
        data[tensor.region][tensor.offset : tensor.offset + tensor.bytes] = (
            stored_bytes(value) if isinstance(value, Tensor) else value
        )

    part.fill(store)
    for buffer, literal in part.tiled.literals.items():
        offset = buffer.fixed or 0
        data[Region.CONST][offset : offset + buffer.bytes] = np.frombuffer(literal, np.uint8)


def _entry(part: Part, start: int) -> Entry:
    tiled = part.tiled
    inputs = tuple(_spec(tensor) for tensor in tiled.inputs if tensor.limits is None)
    scalars = tuple(scalar for tensor in tiled.inputs for scalar in _scalars(tensor))
    return Entry(part.name, start * WORD_BYTES, inputs, tuple(map(_spec, tiled.outputs)), scalars)


def stored_bytes(value: Tensor) -> NDArray[np.uint8]:
    """A tensor as the chip stores it: int64 as int32, bool as int8, all else as it is; row-major. Raises
    UnsupportedError for an integer that does not fit in 32 bits."""
    if value.dtype is torch.int64:
        narrow = value.to(torch.int32)
        if not torch.equal(narrow.to(torch.int64), value):
            raise UnsupportedError(
                "an integer constant does not fit in 32 bits", hint="the chip computes with 32-bit integers"
            )
        value = narrow
    found: NDArray[Any] = np.from_dlpack(flat_bytes(value))  # not numpy(): it forbids to resize the weight
    return found


def _spec(tensor: Interface) -> TensorSpec:
    return TensorSpec(tensor.name, tensor.shape, tensor.dtype, tensor.storage, tensor.region, tensor.offset)


def _scalars(tensor: Interface) -> Iterator[Scalar]:
    """The elements of an input that steers the program."""
    if tensor.limits is not None:
        for number in range(tensor.bytes // 4):
            yield Scalar(f"{tensor.name}.{number}", tensor.offset + 4 * number, *tensor.limits)


def _plan(part: Part, start: int) -> tuple[PlanRecord, ...]:
    """Buffers that the planner placed, with their live ranges in instructions."""
    placement, code = part.placement, part.code
    return tuple(
        PlanRecord(
            b.name,
            b.space,
            placement.offsets[b],
            b.bytes,
            start + code.pc_of[first],
            start + code.pc_of[last],
            b.region if b.space is Space.DRAM else Region.SCRATCH,
        )
        for b, (first, last) in placement.live.items()
        if b.fixed is None
    )


def _nodes(tiled: Tiled, code: Code, modules: Mapping[str, str]) -> list[DebugNode]:
    """Names for everything: graph nodes first, then what spans mention beside them (inputs and constants being
    loaded)."""
    layers = layers_of(tiled.ops, modules)
    records = [_node(op, tiled, layers.get(op.name, ""), modules) for op in tiled.ops if op.kind != OUTPUT]
    known = {record.name for record in records}
    for name in dict.fromkeys(name for _, _, name in code.spans):
        if name not in known:
            records.append(DebugNode(name, "constant", status="constant", reason="a literal of the program"))
    return records


def debug_map(
    tiled: Tiled, code: Code, modules: Mapping[str, str] = MappingProxyType({}), start: int = 0, before: int = 0
) -> DebugMap:
    """The nodes of a program that begins with instruction `start`, numbered from `before` on, and what each instruction
    has to do with them. `modules` are those of the captured nodes."""
    records, move = _nodes(tiled, code, modules), start * WORD_BYTES
    index = {record.name: before + i for i, record in enumerate(records)}

    def numbers(name: str, pc: int) -> tuple[tuple[int, ...], int]:
        """The nodes that an instruction works for, one per iteration in a loop, and the loop's level."""
        if not code.in_loop(pc) or name not in tiled.instances:
            return (index[name],), -1
        return tuple(index[n] for n in tiled.instances[name]), LEVEL

    probes = tuple(
        Probe(pc + move, t.operand, *numbers(t.node, pc), t.offset, t.ps, t.rs, t.cs) for pc, t in code.probes
    )
    spans = tuple(Span(first + move, end + move, *numbers(name, first)) for first, end, name in code.spans)
    return DebugMap(tuple(records), probes, spans)


def _node(op: KernelOp, tiled: Tiled, layer: str, modules: Mapping[str, str]) -> DebugNode:
    status, reason = _status(op, tiled)
    single, source, found = not op.gives_tuple, op.origin.source, modules_of(op, modules)
    return DebugNode(
        name=op.name,
        op=str(op.target) if op.is_operation else "placeholder",
        shape=op.shape if single else (),
        dtype=str(op.type).removeprefix("torch.") if single else "tuple",
        file=source.file,
        line=source.line,
        code=source.code,
        origins=op.origin.calls,
        passes=op.origin.passes,
        status=status,
        reason=reason,
        layer=layer,
        module=next(iter(found), ""),
        also=found[1:],
    )


def _status(op: KernelOp, tiled: Tiled) -> tuple[str, str]:
    """Whether the program stores an operation's value where it can be read, and if not, why."""
    if op.kind == INPUT:
        packed = any(c.node == op.name for c in tiled.constants)
        return ("constant", "packed with the weights") if packed else ("input", "given by the caller")
    if op.name in tiled.materialized:
        return "materialized", ""
    if op.is_view:
        return ("fused", "never read") if op.base is op else ("view", f"{VIEW_OF}{op.base.name}")
    readers = ", ".join(user.name for user in op.users)
    return ("view", f"{RESULTS}{readers}") if op.gives_tuple else ("fused", f"{FUSED_INTO}{readers or 'nothing'}")
