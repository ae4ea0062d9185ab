"""Banks: what of a kernel may lie among the accumulators instead of in the scratchpad.

VEC and ACT reach both memories; DMA queues and the array's operands only the scratchpad. The float32 rows between a
product and its quantization are the widest values of a model, and they are touched by VEC and ACT alone: where the
scratchpad is small they lie in ACC, which leaves it to weights and to what is quantized. The ISA table says what each
operand may be; nothing is known here by name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from compiler.ops.record import Role
from compiler.tile.ir import Buffer, Op
from compiler.tile.kernel_op import OUTPUT, KernelOp
from isa.architecture import Space


def movable(ops: Iterable[Op]) -> set[Buffer]:
    """Buffers in SRAM of which every operand that touches them may be in ACC as well."""
    found: set[Buffer] = set()
    bound: set[Buffer] = set()
    for op in ops:
        for field, ref in zip(op.row.views, op.views, strict=True):
            if ref is not None and ref.buffer.space is Space.SRAM:
                (found if Space.ACC in field.spaces else bound).add(ref.buffer)
    return found - bound


def moved(ops: Sequence[Op], keep: Iterable[Buffer]) -> list[Op]:
    """The same ops with everything movable in ACC, except the buffers `keep`, which others decide about."""
    target = {buffer: replace(buffer, space=Space.ACC) for buffer in movable(ops) - set(keep)}
    return [_rebound(op, target) for op in ops]


def _rebound(op: Op, target: Mapping[Buffer, Buffer]) -> Op:
    if not any(ref is not None and ref.buffer in target for ref in op.views):
        return op
    return replace(
        op,
        views=tuple(
            ref if ref is None else replace(ref, buffer=target.get(ref.buffer, ref.buffer)) for ref in op.views
        ),
    )


def reachable(value: KernelOp) -> bool:
    """Whether a value can have its storage in ACC: neither the array nor a DMA queue writes or reads it."""
    return value.maker.role is not Role.GATHER and not any(_needs_scratchpad(user) for user in _readers(value))


def _needs_scratchpad(reader: KernelOp) -> bool:
    return reader.kind == OUTPUT or reader.role in (
        Role.MATMUL,
        Role.GATHER,
        Role.CAT,
        Role.ATTENTION,
    )  # a cat may be stored part by part


def _readers(value: KernelOp) -> Iterable[KernelOp]:
    """Who reads a value, also through views."""
    for user in value.users:
        if user.is_view and user.base is not user:
            yield from _readers(user)
        else:
            yield user
