"""Storage: where every value of the graph lives between kernels, and what views of it look like.

A value that only its own kernel reads has no home. Others live in SRAM or DRAM, in the dimension order that their
readers want: keys permuted to (batch, head, token) are stored that way, so that no copy is ever made.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from compiler.ops.record import Role
from compiler.tile.access import follow, source
from compiler.tile.ir import Buffer
from compiler.tile.layout import Layout, dense
from compiler.tile.loops import Repeat
from compiler.tile.nodes import base, computing, dtype, op_name, role, shape


@dataclass
class Storage:
    """Homes of values by their base node."""

    layouts: dict[fx.Node, Layout] = field(default_factory=dict)

    def resolve(self, node: fx.Node) -> Layout:
        """The layout of a value or of any view of one. Raises RuntimeError if the view has no strides."""
        return follow(self.layouts[base(node)], node)


def stored_order(node: fx.Node) -> tuple[int, ...]:
    """Dimensions of a value, outermost first, in the order its readers want it stored."""
    rank = len(shape(node))
    orders = set()
    for user in node.users:
        if user.op == "call_function" and op_name(user) == "permute":
            dims: Any = user.args[1]
            orders.add(tuple(int(d) % rank for d in dims))
        else:
            return tuple(range(rank))
    return orders.pop() if len(orders) == 1 else tuple(range(rank))


def materialize_views(graph: fx.Graph) -> int:
    """Turn the `clone`s that stand for real data movement into copies; insert one where a view has no strides.

    Returns how many copies there are. Values stored by `stored_order` make most of them unnecessary.
    """
    storage, copies = Storage(), 0
    scratch = Buffer("scratch", space=0, bytes=0)  # type: ignore[arg-type]
    for node in list(graph.nodes):
        if node.op == "output" or isinstance(node.meta.get("val"), tuple | list):
            continue
        if node.op == "call_function" and role(node) is Role.VIEW and base(node) is not node:
            try:
                storage.resolve(node)
                continue
            except RuntimeError:
                copies += 1
                _make_copy(graph, node, storage, scratch)
                storage.resolve(node)
                continue
        order = stored_order(node) if node.op == "call_function" else None  # the caller's tensors are as they are
        storage.layouts[node] = dense(scratch, dtype(node), shape(node), order)
    return copies


def _make_copy(graph: fx.Graph, node: fx.Node, storage: Storage, scratch: Buffer) -> None:
    """Before view `node`, copy its operand into a dense value."""
    operand = source(node)
    if op_name(operand) != "clone":
        with graph.inserting_before(node):
            clone = graph.call_function(
                torch.ops.aten.clone.default, (operand,), {"memory_format": torch.contiguous_format}
            )
        clone.meta = {**operand.meta, "origins": node.meta.get("origins", ()), "val": operand.meta["val"].contiguous()}
        node.replace_input_with(operand, clone)
        operand = clone
    operand.meta["copy"] = True
    storage.layouts[operand] = dense(scratch, dtype(operand), shape(operand))


def live_ranges(
    kernels: Sequence[Sequence[fx.Node]],
    outputs: Iterable[fx.Node],
    owner: Mapping[fx.Node, int],
    repeat: Repeat | None,
) -> dict[fx.Node, tuple[int, int]]:
    """First and last kernel index of every value that another kernel (or the caller) reads.

    With a loop, values of later iterations count as those of the first, and what the loop carries or shares with the
    kernels around it lives through all of the body.
    """
    ranges: dict[fx.Node, tuple[int, int]] = {}

    def touch(value: fx.Node, index: int) -> None:
        origin = base(value)
        producer = computing(repeat.canonical.get(origin, origin) if repeat else origin)
        if producer not in owner or (
            owner[producer] == index and base(value) not in (repeat.canonical if repeat else ())
        ):
            return
        home = repeat.home_of(origin) if repeat else origin
        first, last = ranges.get(home, (owner[producer], owner[producer]))
        ranges[home] = (min(first, owner[producer]), max(last, index))

    for index, nodes in enumerate(kernels):
        for node in nodes:
            for operand in node.all_input_nodes:
                touch(operand, index)
    for node in outputs:
        touch(node, len(kernels))
    if repeat is not None:
        body = range(repeat.start, repeat.start + repeat.period)
        for value, (first, last) in ranges.items():
            inside = first in body and last in body
            if value in repeat.carried.values() or (last >= body.start and first < body.stop and not inside):
                ranges[value] = (min(first, body.start), max(last, body.stop - 1))
    return ranges
