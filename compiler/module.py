"""Graph modules whose Python code is written when it is first needed: most graphs are only read."""

import torch
from torch import fx
from torch.fx._lazy_graph_module import _LazyGraphModule


def graph_module(graph: fx.Graph, name: str) -> fx.GraphModule:
    """`graph` as something that can be called and printed."""
    return _LazyGraphModule(torch.nn.Module(), graph, name)


def copied(gm: fx.GraphModule, name: str) -> fx.GraphModule:
    """A copy that may be edited. Metadata dictionaries are copied, what they hold is shared."""
    graph = fx.Graph()
    remap: dict[fx.Node, fx.Node] = {}
    output = graph.graph_copy(gm.graph, remap)
    graph.output(output)
    for old, new in remap.items():
        new.meta = dict(old.meta)
    return graph_module(graph, name)
