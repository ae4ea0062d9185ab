"""A graph of Dynamo's that is a step of a decoder: new tokens of a text, over a cache of transformers' that the caller
keeps. What it computes with weights are logits and, in each layer, new keys and values; the rest only tends the cache.

graph     %k = …weights…; %keys = cat(%old_keys, %k); … ; return (%keys, %values, %logits)
rest      given %logits, %k, %v: %keys = cat(%old_keys, %k); …; return (%keys, %values, %logits)

So a step runs anywhere: who knows logits, keys and values by other means runs the rest, and the caller's cache is what
PyTorch would have made of them, whatever kind of cache it is. Where more than that needs weights (hidden states,
attentions, a loss), or the model takes something else, the graph is no step.
"""

import inspect
import operator
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload

IDS, POSITIONS, MASK, CACHE = "input_ids", "position_ids", "attention_mask", "past_key_values"
PARTS = "keys", "values"  # of a layer of a cache


@dataclass(frozen=True)
class StepGraph:
    """All numbers are positions among the arguments of Dynamo's function, but those of results."""

    ids: int
    positions: int | None
    masks: Mapping[str, int]  # by kind of layer, as transformers names them; "" where one mask is for all layers
    parameters: Mapping[str, int]
    buffers: Mapping[str, int]
    numbers: tuple[int, ...]  # of the model: sizes and factors that Dynamo has as arguments
    caches: tuple[tuple[int, int], ...]  # keys and values of each layer; empty before the first tokens
    lengths: tuple[int, ...]  # tensors that say how many tokens a layer has
    rest: fx.GraphModule  # of all arguments, logits, then keys and values of each layer: the results
    result: int  # which of them is logits
    dtype: torch.dtype  # of logits
    count: int | None  # of the last tokens, whose logits these are; None: of all
    cache_dtype: torch.dtype
    heads: tuple[tuple[int, int], ...]  # and their width, of keys and values in turn, layer by layer
    held: tuple[tuple[int | None, int | None], ...]  # which results are the new cache; None: it is changed in place


def step_graph(gm: fx.GraphModule, sources: Sequence[str], model: nn.Module) -> StepGraph | None:
    """The graph as a step, where it is one. `sources` say in Dynamo's words where each argument comes from."""
    named = _Arguments(model, sources)
    if named.foreign or IDS not in named.inputs:
        return None
    masks = {name[len(MASK) :]: at for name, at in named.inputs.items() if name.startswith(MASK)}
    caches = named.caches()
    cut = _cut(gm, frozenset((*named.parameters.values(), *named.buffers.values())))
    if caches is None or cut is None or len(cut.made) % 2 or (caches and len(cut.made) != 2 * len(caches)):
        return None
    held = _held(gm, cut, [at for pair in caches for at in pair])
    made, logits = ([node.meta["example_value"] for node in nodes] for nodes in (cut.made, (cut.logits,)))
    if held is None or not made or not all(value.dim() == 4 for value in made) or logits[0].dim() != 3:
        return None
    count = logits[0].shape[1]
    return StepGraph(
        named.inputs[IDS],
        named.inputs.get(POSITIONS),
        masks,
        named.parameters,
        named.buffers,
        tuple(named.numbers),
        caches,
        tuple(named.lengths),
        _rest(gm, cut),
        cut.result,
        logits[0].dtype,
        count if isinstance(count, int) else None,
        made[0].dtype,
        tuple((value.shape[1], value.shape[3]) for value in made),
        tuple(zip(held[::2], held[1::2], strict=True)),
    )


_MEMBER = re.compile(r"_(modules|parameters|buffers)\['([^']+)'\]")
_INPUT = re.compile(r"L\['kwargs'\]\['(\w+)'\](?:\['(\w+)'\])?$|L\['args'\]\[(\d+)\]$")
_LAYER = re.compile(r"\.layers\[(\d+)\]\.(\w+)$")
_SIZE = re.compile(r"\.(size|stride|storage_offset)\(\)")


class _Arguments:
    """The arguments of Dynamo's function by what they are to the model."""

    def __init__(self, model: nn.Module, sources: Sequence[str]) -> None:
        self._names = list(inspect.signature(type(model).forward).parameters)[1:]
        self.inputs: dict[str, int] = {}
        self.parameters: dict[str, int] = {}
        self.buffers: dict[str, int] = {}
        self.numbers: list[int] = []
        self.lengths: list[int] = []
        self.foreign: list[str] = []
        self._parts: dict[tuple[int, str], int] = {}
        for at, source in enumerate(sources):
            self._sort(at, source)

    def caches(self) -> tuple[tuple[int, int], ...] | None:
        """Keys and values, layer by layer; None where a layer has but one of them."""
        layers = sorted({layer for layer, _ in self._parts})
        if len(self._parts) != 2 * len(layers):
            return None
        keys, values = ([self._parts[layer, part] for layer in layers] for part in PARTS)
        return tuple(zip(keys, values, strict=True))

    def _sort(self, at: int, source: str) -> None:
        if _SIZE.search(source):  # of another argument
            return
        if source.startswith("L['self']"):
            self._of_model(at, source)
        elif f"'{CACHE}'" in source:
            self._of_cache(at, source)
        elif found := _INPUT.match(source):
            name, kind, place = found.groups()
            name = name or (self._names[int(place)] if int(place) < len(self._names) else "")
            if name not in (IDS, POSITIONS, MASK) or (kind and name != MASK):
                self.foreign.append(source)
            self.inputs[name + (kind or "")] = at
        else:
            self.foreign.append(source)

    def _of_model(self, at: int, source: str) -> None:
        path = _MEMBER.findall(source)
        kind, name = path[-1][0] if path else "", ".".join(part for _, part in path)
        if kind == "parameters":
            self.parameters[name] = at
        elif kind == "buffers":
            self.buffers[name] = at
        else:
            self.numbers.append(at)

    def _of_cache(self, at: int, source: str) -> None:
        found = _LAYER.search(source)
        if found and found[2] in PARTS:
            self._parts[int(found[1]), found[2]] = at
        elif found and found[2] == "cumulative_length":
            self.lengths.append(at)


@dataclass(frozen=True)
class _Cut:
    """Where a graph is cut: what is made of weights, and where it goes."""

    heavy: frozenset[fx.Node]  # depends on weights
    made: tuple[fx.Node, ...]  # new keys and values, layer by layer
    logits: fx.Node
    result: int


def _cut(gm: fx.GraphModule, weights: frozenset[int]) -> _Cut | None:
    """None where something else than logits and the cache depends on weights."""
    holders = gm.graph.find_nodes(op="placeholder")
    taken = [node for number, node in enumerate(holders) if number in weights]
    whole = _after(gm.graph, taken, ())
    made: dict[fx.Node, None] = {}
    for node in gm.graph.nodes:
        if node.op != "placeholder" and _tends_cache(node):
            made |= {n: None for n in node.all_input_nodes if n in whole and not _tends_cache(n)}
    heavy = _after(gm.graph, taken, made)
    results = list(gm.graph.output_node().args[0])  # type: ignore[arg-type]
    found = [number for number, node in enumerate(results) if node in heavy]
    tampered = any(node in heavy and _root(node).op == "placeholder" for node in gm.graph.nodes if _in_place(node))
    if len(found) != 1 or tampered or not all(isinstance(node, fx.Node) for node in results):
        return None
    logits = results[found[0]]
    assert isinstance(logits, fx.Node)
    return _Cut(frozenset(heavy), tuple(made), logits, found[0])


def _after(graph: fx.Graph, first: Sequence[fx.Node], but: "Mapping[fx.Node, None] | tuple[()]") -> set[fx.Node]:
    """All nodes that depend on the first ones, by no way through the others. A change in place is a way, too."""
    found = set(first)
    for node in graph.nodes:
        if node.op != "output" and node not in but and not found.isdisjoint(node.all_input_nodes):
            found.add(node)
            if _in_place(node) and _root(node) not in but and _root(node).op != "placeholder":
                found.add(_root(node))
    return found


def _rest(gm: fx.GraphModule, cut: _Cut) -> fx.GraphModule:
    """What is left of the graph."""
    graph, remap = fx.Graph(), {}
    for node in gm.graph.find_nodes(op="placeholder"):
        remap[node] = graph.placeholder(node.name)
    for node in (cut.logits, *cut.made):
        remap[node] = graph.placeholder(f"made_{node.name}")
    kept = _kept(gm.graph, cut)
    for node in gm.graph.nodes:
        if node in kept and node not in remap:
            remap[node] = graph.node_copy(node, remap.__getitem__)
    graph.output(fx.node.map_arg(gm.graph.output_node().args[0], remap.__getitem__))
    return fx.GraphModule(gm, graph, "Rest")


def _held(gm: fx.GraphModule, cut: _Cut, caches: Sequence[int]) -> list[int | None] | None:
    """For each of the new keys and values, which result is the tensor that holds them; None: one of `caches`, the
    arguments, does. None at all where one is held by none."""
    of_made = _following(gm.graph, cut.made)
    holders, results = gm.graph.find_nodes(op="placeholder"), list(gm.graph.output_node().args[0])  # type: ignore[arg-type]
    held: list[int | None] = []
    for slot in range(len(cut.made)):
        found = [number for number, node in enumerate(results) if of_made.get(node) == {slot}]
        if not found and not (caches and of_made.get(holders[caches[slot]]) == {slot}):
            return None
        held.append(found[0] if found else None)
    return held


def _kept(graph: fx.Graph, cut: _Cut) -> set[fx.Node]:
    """What results need but for logits, keys and values; and what changes that, or an argument, in place."""
    kept: set[fx.Node] = {node for node in graph.nodes if node.op == "placeholder"}
    changes = [node for node in graph.nodes if _in_place(node) and node not in cut.heavy]
    waiting = [node for node in graph.output_node().all_input_nodes if node is not cut.logits]
    while waiting := [*waiting, *(node for node in changes if node not in kept and _root(node) in kept)]:
        while waiting:
            node = waiting.pop()
            if node not in kept and node not in cut.made:
                kept.add(node)
                waiting += node.all_input_nodes
    return kept


def _following(graph: fx.Graph, made: Sequence[fx.Node]) -> dict[fx.Node, set[int]]:
    """Which of the new keys and values each node has in it."""
    found = {node: {number} for number, node in enumerate(made)}
    for node in graph.nodes:
        if node.op in ("placeholder", "output") or node in made:
            continue
        own = set().union(*(found.get(n, ()) for n in node.all_input_nodes))
        if own:
            found[node] = own
            if _in_place(node):
                found.setdefault(_root(node), set()).update(own)
    return found


def _tends_cache(node: fx.Node) -> bool:
    """Whether a line of transformers' caches wrote this node."""
    files = re.findall(r'File "([^"]+)"', node.meta.get("stack_trace") or "")
    return bool(files) and files[-1] == sys.modules["transformers.cache_utils"].__file__


def _in_place(node: fx.Node) -> bool:
    """Whether a node changes its first operand."""
    if node.op == "call_method":
        name = str(node.target)
        return (name.endswith("_") and not name.endswith("__")) or name == "__setitem__"
    if node.op != "call_function":
        return False
    if isinstance(node.target, OpOverload):
        return node.target._schema.is_mutable
    name = getattr(node.target, "__name__", "")
    return node.target is operator.setitem or name in _INPLACE or (name.endswith("_") and not name.startswith("_"))


_INPLACE = frozenset(("iadd", "isub", "imul", "itruediv", "ifloordiv", "iand", "ior", "ixor"))
_VIEWS = frozenset(("view", "transpose", "getitem", "expand", "unsqueeze", "squeeze", "narrow", "select", "permute"))


def _root(node: fx.Node) -> fx.Node:
    """What a node changes, or shows a part of."""
    while _in_place(node) or getattr(node.target, "__name__", node.target) in _VIEWS:
        first = node.args[0]
        if not isinstance(first, fx.Node):
            break
        node = first
    return node


def sources(gm: fx.GraphModule) -> Iterator[str]:
    """Where Dynamo has each argument from. To be asked while the backend is called."""
    for node in gm.graph.find_nodes(op="placeholder"):
        name = getattr(getattr(node.meta.get("grapharg"), "source", None), "name", "")
        yield str(name() if callable(name) else name)


def called_model() -> nn.Module | None:
    """The language model of transformers whose whole call Dynamo has traced, over a cache that the caller keeps. To be
    asked while the backend is called, too."""
    if "transformers.modeling_utils" not in sys.modules:  # importing it would take seconds
        return None
    from torch._dynamo.symbolic_convert import InstructionTranslator
    from transformers import DynamicCache, PreTrainedModel, StaticCache

    frame = InstructionTranslator.current_tx().f_locals
    model = frame.get("self")
    if not isinstance(model, PreTrainedModel) or not hasattr(model, "generation_config"):
        return None
    names = list(inspect.signature(type(model).forward).parameters)[1:]
    given = {**dict(zip(names, frame.get("args", ()), strict=False)), **frame.get("kwargs", {})}
    cache = given.get(CACHE)
    if type(cache) not in (DynamicCache, StaticCache) or getattr(cache, "offloading", False) or model.training:
        return None
    return model if all(_plain(parameter) for parameter in model.parameters()) else None


def _plain(parameter: nn.Parameter) -> bool:
    return type(parameter) is nn.Parameter and type(parameter.data) is Tensor and parameter.device == _CPU


_CPU = torch.device("cpu")
