"""Materialize: copies where a view cannot be had by strides alone, so that behind it every view is a matter of
addresses.

    %v = reshape(%permuted)   →   %copy = clone(%permuted); %v = reshape(%copy)

Values that are stored in the order of their readers (`stored_order`) make most of them unnecessary.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import fx

from compiler.fuse.resident import keep_weights
from compiler.ops.record import Role
from compiler.tile.access import apply_view
from compiler.tile.ir import Buffer
from compiler.tile.kernel_op import OUTPUT, KernelOp, kernel_ops
from compiler.tile.layout import Layout, dense
from compiler.tile.state import TileState, made
from compiler.tile.storage import stored_order
from isa.architecture import Space

_SOMEWHERE = Buffer("somewhere", Space.DRAM, 0)


@dataclass(frozen=True)
class ReadGraph:
    """Make a kernel operation of every node of the frozen graph; insert copies where a view needs one."""

    name: ClassVar[str] = "read-graph"

    def run(self, state: TileState) -> TileState:
        graph = made(state.frozen).graph
        keep_weights(graph)
        return replace(state, ops=materialize_views(graph))


def materialize_views(graph: fx.Graph) -> tuple[KernelOp, ...]:
    """The operations of the frozen `graph`, in which copies are made or inserted where a view needs one."""
    while True:
        ops = kernel_ops(graph)
        names = {op.name for op in views_without_strides(ops)}
        for node in list(graph.nodes) if names else ():
            if node.name in names:
                _make_copy(graph, node)
        if not names:
            return ops


def views_without_strides(ops: Iterable[KernelOp]) -> Iterator[KernelOp]:
    """Views that are not strides over what their source is, when that lies as its readers want it; and look-ups in a
    table whose rows do not lie in one piece."""
    layouts: dict[KernelOp, Layout] = {}
    for op in ops:
        if op.kind == OUTPUT or op.gives_tuple:
            continue
        if op.role is Role.GATHER and (table := layouts[op.first]).shape[-1] > 1 and table.strides[-1] != 1:
            yield op
        if not op.is_view or op.base is op:
            order = stored_order(op) if op.is_operation else None  # the caller's tensors are as they are
            layouts[op] = dense(_SOMEWHERE, op.dtype, op.shape, order)
            continue
        try:
            layouts[op] = apply_view(layouts[op.first], op)
        except RuntimeError:
            yield op
            layouts[op] = apply_view(dense(_SOMEWHERE, op.dtype, op.first.shape), op)


def _make_copy(graph: fx.Graph, node: fx.Node) -> None:
    """Before view `node`, copy its operand into a dense value; a `clone` there becomes one."""
    operand = node.args[0]
    assert isinstance(operand, fx.Node)
    if operand.target is not torch.ops.aten.clone.default:
        with graph.inserting_before(node):
            clone = graph.call_function(
                torch.ops.aten.clone.default, (operand,), {"memory_format": torch.contiguous_format}
            )
        clone.meta = {**operand.meta, "origins": node.meta.get("origins", ()), "val": operand.meta["val"].contiguous()}
        node.replace_input_with(operand, clone)
        operand = clone
    operand.meta["copy"] = True
