"""Replicate: from the lowered graphs of a few layers to those of all.

    lowered      before | 1 | 2 | 3 |           last | after
    replicated   before | 1 | 2 | 3 | 4 … n-2 | last | after

Block 3 relates to block 2 exactly as block 2 relates to block 1, so every layer between is block 3 again, with weights
of its own.

What a lowered node belongs to is told by the first of its origins: the captured node at whose place it stands. Wherever
something is not as it must be, there is no answer (None), and all layers are lowered one by one.
"""

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from itertools import groupby

from torch import fx

from compiler.graph.arguments import tensors
from compiler.graph.fx_copy import graph_module, new_node
from compiler.passes.split import SplitGraphs, constant_name
from compiler.repeat.find import KEPT, Layers, form

TEMPLATE = KEPT - 1  # the window that is replicated
_NUMBER = re.compile(r"_\d+$")
LAST = KEPT  # what the last window is called among those that were lowered


class NotUniform(Exception):
    """The lowered layers are not alike."""


def replicate(halves: SplitGraphs, captured: fx.Graph, layers: Layers) -> SplitGraphs | None:
    """The halves of the whole `captured` graph, from those of the reduced one (see compiler.repeat.find)."""
    try:
        return _stamped(halves, captured, _Windows(layers))
    except NotUniform:
        return None


class _Windows:
    """Which captured node is where: window (1 to 3, LAST) and place in it, by name; and the names of all windows."""

    def __init__(self, layers: Layers) -> None:
        kept = [*enumerate(layers.windows[:KEPT]), (LAST, layers.windows[-1])]
        self.place = {
            node.name: (number, place) for number, window in kept if number for place, node in enumerate(window)
        }
        self.names = [[node.name for node in window] for window in layers.windows]
        self.dropped = layers.dropped

    def of(self, node: fx.Node) -> int | None:
        found = self.place.get(node.meta["origins"][0]) if node.meta.get("origins") else None
        return None if found is None else found[0]

    def moved(self, name: str, by: int) -> str:
        """The counterpart of a name in the model window or the next one, `by` windows later."""
        if name not in self.place:
            return name
        number, place = self.place[name]
        return self.names[number + by][place]

    def origins(self, node: fx.Node, own: int | None) -> tuple[str, ...]:
        """The origins of a node that stays. A node of all layers, such as a mask, has those of the dropped layers
        too."""
        result: list[str] = []
        chunks = [
            (number, list(names))
            for number, names in groupby(node.meta["origins"], lambda name: self.place.get(name, (None,))[0])
        ]
        for index, (number, names) in enumerate(chunks):
            near = number is None or (own is not None and own in (number, number - 1))
            if own is not None and not near:
                raise NotUniform
            result += (
                [self.names[TEMPLATE + 1][self.place[name][1]] for name in names]
                if own == TEMPLATE and number == LAST
                else names
            )
            if own is None and number == TEMPLATE:
                before = chunks[index - 1] if index else (None, [])
                if before[0] != TEMPLATE - 1 or [self.place[n][1] for n in before[1]] != [
                    self.place[n][1] for n in names
                ]:
                    raise NotUniform
                result += [self.moved(name, number - TEMPLATE) for number in self.dropped for name in names]
        return tuple(result)


class _Graph:
    """One of the two graphs while it is copied with the dropped layers in their places."""

    def __init__(self, windows: _Windows, nodes: Sequence[fx.Node], weights: Sequence[fx.Node]) -> None:
        self.windows, self.nodes = windows, nodes
        self.blocks: dict[int, list[fx.Node]] = {number: [] for number in range(1, KEPT)}
        self.ends: dict[fx.Node, range] = {}  # last node of each run of the model block: places of that run
        self.graph = fx.Graph()
        self.weights = {node.name: self._holder(str(node.target), node.name, node.meta) for node in weights}
        self.placeholders: list[tuple[fx.Node, int]] = []  # in order: which, and how many windows later
        self.remap: dict[fx.Node, fx.Node] = {}
        self.replicated: dict[int, list[fx.Node]] = {number: [] for number in (TEMPLATE, *windows.dropped)}
        self._find_blocks()
        self.place = {
            node: (number, place) for number, block in self.blocks.items() for place, node in enumerate(block)
        }
        for theirs, ours in zip(self.blocks[TEMPLATE - 1], self.blocks[TEMPLATE], strict=True):
            if self._key(theirs, TEMPLATE - 1) != self._key(ours, TEMPLATE):
                raise NotUniform

    def _holder(self, target: str, name: str | None, meta: Mapping[str, object]) -> fx.Node:
        holder = self.graph.create_node("placeholder", target, name=name)
        if name is None:
            holder.target = holder.name
        holder.meta = dict(meta)
        return holder

    def _find_blocks(self) -> None:
        """Runs of nodes of windows 1, 2, 3 and the last, one after the other and (but for the last) of one length."""
        runs = [(number, list(nodes)) for number, nodes in groupby(self.nodes, self.windows.of)]
        for index, (number, run) in enumerate(runs):
            if number in self.blocks:
                before, after = (
                    runs[index - 1] if index else (None, []),
                    runs[index + 1] if index + 1 < len(runs) else (None, []),
                )
                if after[0] != number + 1 or (number > 1 and (before[0] != number - 1 or len(before[1]) != len(run))):
                    raise NotUniform
                if number == TEMPLATE:
                    self.ends[run[-1]] = range(len(self.blocks[TEMPLATE]), len(self.blocks[TEMPLATE]) + len(run))
                self.blocks[number] += run

    def _key(self, node: fx.Node, window: int) -> Hashable:
        """All that a node is, seen from its window."""
        places = [self.windows.place.get(name) for name in node.meta["origins"]]
        if any(place is not None and not 0 <= place[0] - window <= 1 for place in places):
            raise NotUniform
        origins = tuple(
            name if place is None else (place[0] - window, place[1])
            for name, place in zip(node.meta["origins"], places, strict=True)
        )
        packed: tuple[str, str, bool] = node.meta.get("packed_from", ("", "", False))
        place = self.windows.place.get(packed[0]) if packed[2] else None
        base = packed[0] if place is None else (place[0] - window, place[1])
        operands = _describe(
            (node.args, node.kwargs) if node.op != "placeholder" else (), lambda n: self._operand(n, window)
        )
        meta = tuple(node.meta.get(name) for name in ("source", "passes", "weight"))
        return (
            node.op,
            node.op == "placeholder" or node.target,
            operands,
            form(node.meta["val"]),
            meta,
            origins,
            base,
            packed[1:],
        )

    def _operand(self, node: fx.Node, window: int) -> Hashable:
        """An operand seen from a window: how many windows before, and where there; or the node itself."""
        found = self.place.get(node) or (self.windows.place.get(node.name) if node.name in self.weights else None)
        if found is None:
            return node
        if not 0 <= window - found[0] <= 1:
            raise NotUniform
        return window - found[0], found[1], node.op

    def build(self) -> None:
        for node in self.nodes:
            number = self.windows.of(node)
            origins = self.windows.origins(node, number)
            self.remap[node] = self._add(node, partial(self.value, reader=node), origins, 0)
            if number == TEMPLATE:
                self.replicated[TEMPLATE].append(self.remap[node])
            for window in self.windows.dropped if node in self.ends else ():
                for place in self.ends[node]:
                    self._stamp(self.blocks[TEMPLATE][place], window)

    def _stamp(self, node: fx.Node, window: int) -> None:
        by = window - TEMPLATE
        origins = tuple(self.windows.moved(name, by) for name in node.meta["origins"])
        self.replicated[window].append(self._add(node, lambda operand: self.counterpart(operand, by), origins, by))

    def counterpart(self, node: fx.Node, by: int) -> fx.Node:
        """What a node that the model window reads is `by` windows later."""
        if node in self.place:
            number, place = self.place[node]
            return self.replicated[number + by][place] if number + by >= TEMPLATE else self.remap[node]
        return self.weights[self.windows.moved(node.name, by)] if node.name in self.weights else self.remap[node]

    def value(self, node: fx.Node, reader: fx.Node) -> fx.Node:
        """What a node is for a reader that stays. What the last window reads of the one before it is in another place
        now."""
        if node in self.place and reader not in self.place:
            if self.windows.of(reader) != LAST or self.place[node][0] != TEMPLATE or node.op == "placeholder":
                raise NotUniform
            return self.replicated[self.windows.dropped[-1]][self.place[node][1]]
        return self.weights[node.name] if node.name in self.weights else self.remap[node]

    def _add(self, node: fx.Node, operand: Callable[[fx.Node], fx.Node], origins: tuple[str, ...], by: int) -> fx.Node:
        meta = {**node.meta, "origins": origins}
        if node.op != "placeholder":
            args, kwargs = fx.map_arg((node.args, node.kwargs), operand)
            new = new_node(self.graph, node.op, node.target, args, kwargs, _NUMBER.sub("", node.name))
            new.meta = meta
            return new
        self.placeholders.append((node, by))
        if "packed_from" not in meta:
            return self._holder(str(node.target), node.name, meta)
        base, suffix, weight = meta["packed_from"]
        meta["packed_from"] = self.windows.moved(base, by) if by and weight else base, suffix, weight
        return self._holder(constant_name(*meta["packed_from"]), None, meta)


def _describe(value: object, operand: Callable[[fx.Node], Hashable]) -> Hashable:
    if isinstance(value, fx.Node):
        return operand(value)
    if isinstance(value, (tuple, list)):
        return tuple(_describe(item, operand) for item in value)
    if isinstance(value, dict):
        return tuple((key, _describe(item, operand)) for key, item in value.items())
    return type(value), repr(value)


def _stamped(halves: SplitGraphs, captured: fx.Graph, windows: _Windows) -> SplitGraphs:
    old_main, old_pack = halves.main.graph, halves.pack.graph
    main = _Graph(windows, [node for node in old_main.nodes if node.op != "output"], ())
    weights = [node for node in captured.find_nodes(op="placeholder") if node.meta.get("weight")]
    pack = _Graph(windows, [node for node in old_pack.nodes if node.op not in ("placeholder", "output")], weights)
    main.build()
    pack.build()
    output = old_main.output_node()
    main.graph.output(tuple(main.value(node, output) for node in tensors(output, 0)))
    given = tensors(old_pack.output_node(), 0)
    packed = dict(
        zip((node for node in old_main.find_nodes(op="placeholder") if node.meta.get("weight")), given, strict=True)
    )
    pack.graph.output(tuple(_result(pack, packed[old], by) for old, by in main.placeholders if old in packed))
    names = tuple(node.name for node in main.graph.find_nodes(op="placeholder") if node.meta.get("weight"))
    return SplitGraphs(graph_module(main.graph, "Main"), graph_module(pack.graph, "Pack"), names)


def _result(pack: _Graph, node: fx.Node, by: int) -> fx.Node:
    """What packing gives for a constant, or for its counterpart `by` windows later."""
    if not by:
        return pack.weights[node.name] if node.name in pack.weights else pack.remap[node]
    if node in pack.place and pack.place[node][0] != TEMPLATE:
        raise NotUniform
    return pack.counterpart(node, by)
