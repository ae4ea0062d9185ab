"""Epilogues: operations of a kernel that are done on the way of another one.

    matmul_i8 → dequantize → add    the sums leave the array through one instruction, which adds the residual, too
    dequantize → softmax            the maximum of each row comes with the rows
    softmax → quantize_rows         rows stay undivided by their sums: the quantization does it
    layer_norm → quantize_rows      the largest magnitude of each row comes with the rows

Each only where nobody else needs what is then nowhere. No bit changes: docs/numerics.md has the same steps in the same
order, whether one instruction does them or several. A product that two dequantizations read is made for each of them:
on the array that costs less than to keep its sums.
"""

from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from typing import ClassVar

from compiler.tile.kernel_op import CHOSEN, KernelOp
from compiler.tile.kernels import EXP, MAGNITUDE, MAXIMUM, RECIP, Kernel, Step
from compiler.tile.layout import fits_row
from compiler.tile.state import TileState, made
from isa.architecture import Dtype

PRODUCTS = "matmul_i8", CHOSEN  # of which a dequantize takes the sums


@dataclass(frozen=True)
class FuseEpilogues:
    """Do operations of a kernel on the way of others: additions behind products, row maxima before a softmax."""

    name: ClassVar[str] = "fuse-epilogues"

    def run(self, state: TileState) -> TileState:
        graph = made(state.kernel_graph)
        stored = graph.stored
        return replace(
            state,
            kernel_graph=replace(graph, kernels=tuple(fuse_epilogues(kernel, stored) for kernel in graph.kernels)),
        )


def fuse_epilogues(kernel: Kernel, stored: Set[KernelOp]) -> Kernel:
    """The kernel with as few steps as can be. What is `stored` must be there in full."""
    products = {op for op in kernel.nodes if op.kind in PRODUCTS and _only_dequantized(op, kernel, stored)}
    residuals: dict[KernelOp, KernelOp] = {}  # the addition that ends a dequantize
    ends: dict[KernelOp, KernelOp] = {}
    for op in kernel.nodes:
        if op.kind == "add" and (begun := _last_before(op, kernel, stored)) is not None:
            residuals[begun], ends[op] = op, begun
    steps = []
    for op in kernel.nodes:
        first = ends.get(op, op)
        if op in products or op in residuals:
            continue
        product = first.tensor("c") if first.kind == "dequantize" else None
        step = Step(first, product if product in products else None, op if op is not first else None)
        steps.append(replace(step, hands=_hands(step, kernel, stored)))
    return replace(kernel, steps=tuple(steps))


def _only_dequantized(op: KernelOp, kernel: Kernel, stored: Set[KernelOp]) -> bool:
    return (
        op not in stored
        and bool(op.users)
        and all(user.kind == "dequantize" and user in kernel.members for user in op.users)
    )


def _last_before(add: KernelOp, kernel: Kernel, stored: Set[KernelOp]) -> KernelOp | None:
    """Of the dequantized products that an addition could end, the one that is computed last; the other is there
    then."""
    a, b = add.operand("self"), add.operand("other")
    if not isinstance(a, KernelOp) or not isinstance(b, KernelOp) or a is b or not add.dtype.is_float:
        return None
    if any(x.shape != add.shape or x.dtype is not add.dtype for x in (a, b)):
        return None
    possible = [x for x in (a, b) if x.kind == "dequantize" and _is_inner(x, kernel, stored)]
    return max(possible, key=kernel.nodes.index, default=None)


def _is_inner(op: KernelOp, kernel: Kernel, stored: Set[KernelOp]) -> bool:
    """Whether one operation of its own kernel is all that reads a value."""
    return op in kernel.members and op not in stored and len(op.users) == 1 and op.users[0] in kernel.members


def _hands(step: Step, kernel: Kernel, stored: Set[KernelOp]) -> tuple[str, ...]:
    """What a step leaves to those behind it."""
    last = step.last
    readers = [user for user in last.users if user in kernel.members]
    kinds = [user.kind for user in readers]
    narrow = last.shape != () and fits_row("vaff", last.shape[-1])
    match step.op.kind:
        case "dequantize" if kinds == ["softmax"] and len(last.users) == 1 and step.op.dtype is Dtype.F32 and narrow:
            return (MAXIMUM,)
        case "softmax" if kinds == ["quantize_rows"] and _is_inner(last, kernel, stored):
            return (EXP, RECIP) if readers[0].tensor("x") is last else ()
        case "layer_norm" if narrow and any(_unscaled(readers)):
            return (MAGNITUDE,)
    return ()


def _unscaled(readers: list[KernelOp]) -> Iterator[bool]:
    return (
        user.kind == "quantize_rows" and user.optional("col") is None and user.optional("absmax") is None
        for user in readers
    )
