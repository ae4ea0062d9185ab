"""Graph modules whose Python code is written when it is first needed: most graphs are only read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import fx
from torch.fx._lazy_graph_module import _LazyGraphModule
from torch.fx.node import Argument, Target


@contextmanager
def as_written() -> Iterator[None]:
    """PyTorch computes in here what a graph says: without gradients, and without the casts of the caller's autocast."""
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        yield


def graph_module(graph: fx.Graph, name: str, root: torch.nn.Module | None = None) -> fx.GraphModule:
    """`graph` as something that can be called and printed. What it reads as an attribute (`get_attr`) is `root`'s."""
    return _LazyGraphModule(root or torch.nn.Module(), graph, name)


def new_node(
    graph: fx.Graph, op: str, target: Target, args: tuple[Argument, ...], kwargs: Mapping[str, Argument], name: str
) -> fx.Node:
    """A node at the insertion point. Operands are set afterwards: `create_node` looks through them for symbols, which
    takes longer than all else it does."""
    node = graph.create_node(op, target, name=name)
    node.args = args
    if kwargs:
        node.kwargs = dict(kwargs)
    return node


def copy_node(graph: fx.Graph, node: fx.Node, remap: Mapping[fx.Node, fx.Node], name: str | None = None) -> fx.Node:
    """`node` at the end of another graph, its operands replaced. The metadata dictionary is copied, what it holds is
    shared."""
    args, kwargs = fx.map_arg((node.args, node.kwargs), remap.__getitem__)
    new = new_node(graph, node.op, node.target, args, kwargs, name or node.name)
    new.type = node.type
    new.meta = dict(node.meta)
    return new


def copied(gm: fx.GraphModule, name: str) -> fx.GraphModule:
    """A copy that may be edited."""
    graph = fx.Graph()
    remap: dict[fx.Node, fx.Node] = {}
    for node in gm.graph.nodes:
        if node.op == "output":
            graph.output(fx.map_arg(node.args[0], remap.__getitem__))
        else:
            remap[node] = copy_node(graph, node, remap)
    return graph_module(graph, name)
