"""The lowered graph in stock PyTorch: every chip operator replaced by the operations that define it."""

import operator
from collections.abc import Hashable

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from compiler.ops.table import BY_TARGET


def expand_reference(gm: fx.GraphModule) -> fx.GraphModule:
    """A graph of aten operations only, which gives the same bits when PyTorch runs it eagerly.

    Each distinct use of an operator (shapes, types, options) is traced once, so layers share the work.
    """
    graph = fx.Graph()
    remap: dict[fx.Node, fx.Node] = {}
    parts: dict[fx.Node, tuple[fx.Node, ...]] = {}  # of operators with several results
    traced: dict[Hashable, fx.GraphModule] = {}
    for node in gm.graph.nodes:
        if node.op == "output":
            graph.output(fx.map_arg(node.args[0], lambda old: remap[old]))
        elif getattr(node.target, "namespace", "") == "llmchip":
            use = _use(node)
            if use not in traced:
                traced[use] = _trace(node)
            result = _inline(graph, node, traced[use], [remap[n] for n in _tensors(node)])
            if isinstance(result, tuple):
                parts[node] = result
            else:
                remap[node] = result
        elif node.target is operator.getitem and node.args[0] in parts:
            remap[node] = parts[node.args[0]][node.args[1]]
        else:
            remap[node] = graph.node_copy(node, lambda old: remap[old])
    return fx.GraphModule(torch.nn.Module(), graph, "Reference")


def _tensors(node: fx.Node) -> list[fx.Node]:
    return [arg for arg in (*node.args, *node.kwargs.values()) if isinstance(arg, fx.Node)]


def _use(node: fx.Node) -> Hashable:
    """What the traced body depends on."""

    def describe(arg: object) -> Hashable:
        if isinstance(arg, fx.Node):
            value = arg.meta["val"]
            return "tensor", tuple(value.shape), value.stride(), value.dtype
        return type(arg).__name__, repr(arg)

    return node.target, tuple(map(describe, node.args)), tuple((key, describe(arg)) for key, arg in node.kwargs.items())


def _trace(node: fx.Node) -> fx.GraphModule:
    """The reference function as a graph of its tensor operands."""
    function = BY_TARGET[node.target].implementation
    assert function is not None

    def body(*tensors: Tensor) -> object:
        given = iter(tensors)
        args = [next(given) if isinstance(arg, fx.Node) else arg for arg in node.args]
        kwargs = {key: next(given) if isinstance(arg, fx.Node) else arg for key, arg in node.kwargs.items()}
        return function(*args, **kwargs)

    values = [n.meta["val"] for n in _tensors(node)]
    with torch.no_grad():
        return make_fx(body, tracing_mode="fake")(
            *(torch.empty_strided(v.shape, v.stride(), dtype=v.dtype) for v in values)
        )


def _inline(
    graph: fx.Graph, node: fx.Node, body: fx.GraphModule, operands: list[fx.Node]
) -> fx.Node | tuple[fx.Node, ...]:
    """Copy a traced body into the graph; returns its result, a node or a tuple of nodes."""
    given = iter(operands)
    remap: dict[fx.Node, fx.Node] = {}
    for inner in body.graph.nodes:
        if inner.op == "placeholder":
            remap[inner] = next(given)
        elif inner.op == "output":
            result = inner.args[0]
            return tuple(remap[n] for n in result) if isinstance(result, (tuple, list)) else remap[result]
        else:
            copy = remap[inner] = graph.node_copy(inner, lambda old: remap[old])
            copy.meta = {
                **{key: node.meta[key] for key in ("source", "origins", "passes") if key in node.meta},
                "val": inner.meta.get("val"),
            }
    raise AssertionError("a traced body has an output")
