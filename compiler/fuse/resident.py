"""Resident weights: what many products read comes on chip once.

    every step: %c = matmul_i8(%q, %w)     →     %copy = clone(%w); every step: %c = matmul_i8(%q, %copy)

A constant is loaded by each kernel that reads it; a value stays in the scratchpad as long as somebody needs it. The
steps of a recurrent layer have one set of weights, and each takes less time than they take to come.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, fx

from compiler.graph.fx_copy import new_node
from compiler.ops import library as ops

MANY = 4  # products that read a weight
ROOM = 1 << 20  # bytes of all such weights; of any chip, since the graph is the same for all. What does not fit in a
# scratchpad beside other values is put back into DRAM, as they are.


def keep_weights(graph: fx.Graph) -> None:
    """Copy the constants of the frozen `graph` that many products read, the smallest first, as long as there is
    room."""
    free = ROOM
    for node in sorted(_read_often(graph), key=_bytes):
        free -= _bytes(node)
        if free < 0:
            return
        _copy(graph, node)


def _read_often(graph: fx.Graph) -> Iterator[fx.Node]:
    """Weights of many products, and their scales."""
    for node in graph.find_nodes(op="placeholder"):
        if node.meta.get("weight") and not node.meta.get("state"):
            places = [(user.target, place) for user in node.users for place, arg in enumerate(user.args) if arg is node]
            if len(places) >= MANY and all(place in _PLACES for place in places):
                yield node


_PLACES = ((ops.matmul_i8, 1), (ops.dequantize, 2))  # the weights, the scales of their rows


def _bytes(node: fx.Node) -> int:
    value = node.meta["val"]
    assert isinstance(value, Tensor)
    return value.numel() * value.element_size()


def _copy(graph: fx.Graph, node: fx.Node) -> None:
    """Let everybody read a copy of a constant; it takes one more than its readers to be made."""
    with graph.inserting_before(next(iter(node.users))):
        copy = new_node(graph, "call_function", torch.ops.aten.clone.default, (node,), {}, f"{node.name}_kept")
    node.replace_all_uses_with(copy, delete_user_cb=lambda user: user is not copy)
    copy.meta = {**node.meta, "copy": True, "origins": (), "weight": False}
