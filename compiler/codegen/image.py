"""The image of a compiled model: program, packed constants, interface, memory plan and debug map in one record."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compiler.codegen.program import Code
from compiler.codegen.view_registers import LEVEL
from compiler.packing import Store
from compiler.tile.decisions import Placement, Tiled
from compiler.tile.kernel_graph import Tensor as Interface
from compiler.tile.kernel_op import INPUT, OUTPUT, KernelOp
from isa.architecture import IMAGE_REGIONS, Region, Space
from isa.chip import Chip
from isa.errors import UnsupportedError
from isa.image.image import Image
from isa.image.records import DebugMap, DebugNode, Entry, PlanRecord, Probe, Span, TensorSpec


def region_sizes(tiled: Tiled, placement: Placement) -> dict[Region, int]:
    """Bytes of each DRAM region that the program may touch."""
    sizes = dict.fromkeys(Region, 0)
    for tensor in (*tiled.inputs, *tiled.constants, *tiled.outputs):
        sizes[tensor.region] = max(sizes[tensor.region], tensor.offset + tensor.bytes)
    for buffer in tiled.literals:
        sizes[Region.CONST] = max(sizes[Region.CONST], (buffer.fixed or 0) + buffer.bytes)
    sizes[Region.SCRATCH] = placement.scratch_bytes
    return sizes


def build_image(
    tiled: Tiled,
    placement: Placement,
    code: Code,
    chip: Chip,
    fill: Callable[[Store], None],
    metadata: Mapping[str, Any],
) -> Image:
    """Put everything into one image. `fill` hands over the packed constants, by their numbers in `tiled.constants`.

    Each goes straight into its place, so that packed weights are in memory once.
    """
    sizes = region_sizes(tiled, placement)
    data = {region: np.zeros(sizes[region], np.uint8) for region in IMAGE_REGIONS}

    def store(number: int, value: Tensor | NDArray[np.uint8]) -> None:
        tensor = tiled.constants[number]
        data[tensor.region][tensor.offset : tensor.offset + tensor.bytes] = (
            stored_bytes(value) if isinstance(value, Tensor) else value
        )

    fill(store)
    for buffer, literal in tiled.literals.items():
        offset = buffer.fixed or 0
        data[Region.CONST][offset : offset + buffer.bytes] = np.frombuffer(literal, np.uint8)
    entry = Entry("main", 0, tuple(map(_spec, tiled.inputs)), tuple(map(_spec, tiled.outputs)))
    return Image(
        code=code.bytes,
        weights=data[Region.WEIGHTS].data,
        const=data[Region.CONST].data,
        sizes=tuple(sizes[region] for region in Region),
        entries=(entry,),
        constants=tuple(map(_spec, tiled.constants)),
        plan=_plan(placement, code),
        debug=_debug(tiled, code),
        metadata=dict(metadata),
        chip=chip,
    )


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
    found: NDArray[Any] = np.from_dlpack(
        value.detach().contiguous().reshape(-1).view(torch.uint8)
    )  # not numpy(): it forbids to resize the weight
    return found


def _spec(tensor: Interface) -> TensorSpec:
    return TensorSpec(tensor.name, tensor.shape, tensor.dtype, tensor.storage, tensor.region, tensor.offset)


def _plan(placement: Placement, code: Code) -> tuple[PlanRecord, ...]:
    """Buffers that the planner placed, with their live ranges in instructions."""
    return tuple(
        PlanRecord(
            b.name,
            b.space,
            placement.offsets[b],
            b.bytes,
            code.pc_of[first],
            code.pc_of[last],
            b.region if b.space is Space.DRAM else Region.SCRATCH,
        )
        for b, (first, last) in placement.live.items()
        if b.fixed is None
    )


def _debug(tiled: Tiled, code: Code) -> DebugMap:
    """Names for everything: graph nodes first, then what spans mention beside them (inputs and constants being
    loaded)."""
    records = [_node(op, tiled) for op in tiled.ops if op.kind != OUTPUT]
    index = {record.name: i for i, record in enumerate(records)}
    for _, _, name in code.spans:
        if name not in index:
            index[name] = len(records)
            records.append(DebugNode(name, "constant", status="constant", reason="a literal of the program"))

    def numbers(name: str, pc: int) -> tuple[tuple[int, ...], int]:
        """The nodes that an instruction works for, one per iteration in a loop, and the loop's level."""
        if not code.in_loop(pc) or name not in tiled.instances:
            return (index[name],), -1
        return tuple(index[n] for n in tiled.instances[name]), LEVEL

    probes = tuple(Probe(pc, t.operand, *numbers(t.node, pc), t.offset, t.ps, t.rs, t.cs) for pc, t in code.probes)
    spans = tuple(Span(first, end, *numbers(name, first)) for first, end, name in code.spans)
    return DebugMap(tuple(records), probes, spans)


def _node(op: KernelOp, tiled: Tiled) -> DebugNode:
    status, reason = _status(op, tiled)
    single, source = not op.gives_tuple, op.origin.source
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
    )


def _status(op: KernelOp, tiled: Tiled) -> tuple[str, str]:
    """Whether the program stores an operation's value where it can be read, and if not, why."""
    if op.kind == INPUT:
        packed = any(c.node == op.name for c in tiled.constants)
        return ("constant", "packed with the weights") if packed else ("input", "given by the caller")
    if op.name in tiled.materialized:
        return "materialized", ""
    if op.is_view:
        return ("fused", "never read") if op.base is op else ("view", f"a view of {op.base.name}")
    readers = ", ".join(user.name for user in op.users)
    return ("view", f"several results: {readers}") if op.gives_tuple else ("fused", f"into {readers or 'nothing'}")
