"""Split the graph: what depends only on weights is computed when an image is packed, the rest by the chip.

before   one graph of (inputs, weights)
after    main(inputs, constants) for the chip, pack(weights) -> constants for the host
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode

from compiler.graph.arguments import integer, integers, tensor, tensors
from compiler.graph.editor import Editor, aten, evaluate_fake, fake_mode, forget_forms, is_static, short_name
from compiler.graph.fx_copy import copy_node, graph_module, new_node
from compiler.graph.legal import frozen, random
from compiler.graph.manager import unsupported, verify

_PREFIXES = ("p_", "b_", "c_")
_QUANTIZED = ("llmchip.quantize_rows.default", "llmchip.quantize_weights.default")


@dataclass(frozen=True)
class SplitGraphs:
    """The two graphs, and the constants' names in the order in which one gives and the other takes them."""

    main: fx.GraphModule
    pack: fx.GraphModule
    constants: tuple[str, ...]


def freeze(gm: fx.GraphModule, whole: bool = True) -> SplitGraphs:
    """The frozen graph, and the one that packs its constants. Raises UnsupportedError for what the chip cannot do;
    unless the passes were run as a `whole`: those that would have refused a node, or replaced it, may be missing."""
    if whole:
        for node in gm.graph.nodes:
            if random(node):
                raise unsupported(node, "draws random numbers, which the chip cannot")
        verify(gm, frozen)
    halves = split(gm)
    forget_forms(gm.graph)
    return halves


def split(gm: fx.GraphModule) -> SplitGraphs:
    """Cut the graph between what is static and what is not."""
    Editor(gm, "split")  # dependence, once more
    border = _border(gm.graph)
    pack = _pack(gm.graph, border)
    main, names = _main(gm.graph, border)
    layout(main)
    return SplitGraphs(graph_module(main, "Main"), graph_module(pack, "Pack"), names)


def _border(graph: fx.Graph) -> list[fx.Node]:
    """Static nodes that something dynamic (or the result) reads, in the order of their first use."""
    border: dict[fx.Node, None] = {}
    for node in graph.nodes:
        if node.op == "output" or (node.op == "call_function" and not is_static(node)):
            border.update(dict.fromkeys(n for n in node.all_input_nodes if is_static(n)))
    return list(border)


def _pack(graph: fx.Graph, border: Sequence[fx.Node]) -> fx.Graph:
    out = fx.Graph()
    remap: dict[fx.Node, fx.Node] = {}
    needed = _ancestors(border)
    for node in graph.nodes:
        if (node.op == "placeholder" and node.meta.get("weight")) or (node in needed and is_static(node)):
            remap[node] = copy_node(
                out, node, remap, node.name if node.op == "placeholder" else short_name(node.target)
            )
    results = []
    for node in border:
        value = remap[node]
        if not node.meta["val"].is_contiguous():
            value = new_node(
                out, "call_function", aten.clone.default, (value,), {"memory_format": torch.contiguous_format}, "clone"
            )
            value.meta = dict(remap[node].meta)
        results.append(value)
    out.output(tuple(results))
    return out


def _ancestors(nodes: Sequence[fx.Node]) -> set[fx.Node]:
    seen: set[fx.Node] = set()
    todo = list(nodes)
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo.extend(node.all_input_nodes)
    return seen


def _main(graph: fx.Graph, border: Sequence[fx.Node]) -> tuple[fx.Graph, tuple[str, ...]]:
    out = fx.Graph()
    remap: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node.op == "placeholder" and not node.meta.get("weight"):
            remap[node] = copy_node(out, node, remap)
    mode = fake_mode(graph)
    names = []
    for node in border:
        holder = remap[node] = out.placeholder(constant_name(*_origin(node)))
        holder.target = holder.name  # which is unique
        holder.meta = {**node.meta, "packed_from": _origin(node)}
        if not node.meta["val"].is_contiguous():
            with mode:
                holder.meta["val"] = node.meta["val"].contiguous()
        holder.meta["weight"] = True
        names.append(holder.name)
    for node in graph.nodes:
        if node.op == "output":
            out.output(tuple(_own(out, remap[n]) for n in tensors(node, 0)))
        elif node not in remap and not is_static(node) and node.op != "placeholder":
            # named after its operation and numbered from the start, so that names say nothing about the passes' history
            remap[node] = copy_node(out, node, remap, short_name(node.target))
    return out, tuple(names)


def _own(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """A result of its own where the model returns one of its inputs or a constant."""
    if node.op != "placeholder":
        return node
    copy = graph.call_function(aten.clone.default, (node,))
    copy.meta = dict(node.meta)
    return copy


def _origin(node: fx.Node) -> tuple[str, str, bool]:
    """The weight that a constant is made of, `_q` or `_s` for its quantized values or scales, and True; else an
    operation's name."""
    base, suffix = node, ""
    source = node.args[0] if node.args else None
    if isinstance(source, fx.Node) and str(source.target) in _QUANTIZED:
        suffix = ("_q", "_s")[integer(node, 1)]
        base = tensor(source, 0)
    while base.target in (aten.reshape.default, aten.permute.default, aten._to_copy.default):
        base = tensor(base, 0)
    weight = base.op == "placeholder"
    return (str(base.target) if weight else short_name(base.target)), suffix, weight


def constant_name(base: str, suffix: str, weight: bool) -> str:
    """What a constant is called."""
    name = base[2:] if weight and base.startswith(_PREFIXES) else base
    return f"w{name}{suffix}" if name[0].isdigit() else name + suffix


def _is_view(node: fx.Node) -> bool:
    """Whether a reshape moves nothing. Asked of meta tensors: fake ones of torch 2.13 view (2, 1, 2) of strides (1, 1,
    2) as (4,), real ones do not."""
    value: Tensor = tensor(node, 0).meta["val"]
    try:
        torch.empty_strided(value.shape, value.stride(), device="meta").view(integers(node, 1))
    except RuntimeError:
        return False
    return True


def layout(graph: fx.Graph) -> None:
    """Turn reshapes into views (after a copy where strides demand it), so that every node says what it moves."""
    mode = fake_mode(graph)
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if node.target is aten.reshape.default:
            node.target = aten.view.default
            if not _is_view(node):
                _copy_before(graph, mode, node)
        node.meta["val"] = evaluate_fake(mode, node)
    result = graph.output_node()
    owned = [
        node if node.meta["val"].is_contiguous() else _contiguous(graph, mode, node, result)
        for node in tensors(result, 0)
    ]
    result.args = (tuple(owned),)


def _contiguous(graph: fx.Graph, mode: FakeTensorMode, node: fx.Node, at: fx.Node) -> fx.Node:
    with graph.inserting_before(at):
        copy = graph.create_node(
            "call_function", aten.clone.default, (node,), {"memory_format": torch.contiguous_format}, name="copy"
        )
    copy.meta = dict(node.meta)
    copy.meta["val"] = evaluate_fake(mode, copy)
    return copy


def _copy_before(graph: fx.Graph, mode: FakeTensorMode, node: fx.Node) -> None:
    node.args = (_contiguous(graph, mode, tensor(node, 0), node), node.args[1])
