"""Layers: find the identical layers of a captured graph, so that a few can be lowered in place of all.

    before | 0 | 1 | 2 | 3 | 4 … n-2 | n-1 | after        windows of one period; where a period begins does not matter

Windows from 1 on are the same operations on the same shapes, from the same source lines, connected in the same way: to
their own values, to those of the window before, to weights of their own, and to values and weights that all of them
share.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from compiler.graph.fx_copy import copy_node, graph_module

KEPT = 4  # windows at the start that stay: one with the model's inputs before it, and three to compare
FEWEST = 2  # windows left out; with fewer, nothing is gained
ATTEMPTS = 8  # periods to try


@dataclass(frozen=True)
class Layers:
    """The windows: nodes in order, then the weights that only this window reads, in the order of their first use."""

    windows: tuple[tuple[fx.Node, ...], ...]

    @property
    def dropped(self) -> range:
        """Numbers of the windows that need not be lowered: those between the first ones and the last."""
        return range(KEPT, len(self.windows) - 1)


def find_layers(graph: fx.Graph, schemes: Mapping[str, str] | None = None) -> Layers | None:
    """The layers of a graph; None where there are too few to be worth the trouble. Operations of other `schemes` are
    others."""
    named = schemes or {}
    nodes = [node for node in graph.nodes if node.op == "call_function"]
    numbers: dict[Hashable, int] = {}
    prints = [numbers.setdefault((_signature(node), named.get(node.name)), len(numbers)) for node in nodes]
    start, period, count = _longest(prints)
    for first, last in ((0, count), (1, count), (0, count - 1), (1, count - 1)):
        if last - first > KEPT + FEWEST:
            found = _checked([nodes[start + w * period : start + (w + 1) * period] for w in range(first, last)])
            if found is not None:
                return found
    return None


def reduced(gm: fx.GraphModule, layers: Layers) -> fx.GraphModule:
    """A copy of the graph without the dropped windows: the last one reads the results of the last that is kept."""
    dropped = {node for number in layers.dropped for node in layers.windows[number]}
    before_last, stand_in = layers.windows[-2], layers.windows[KEPT - 1]
    graph = fx.Graph()
    remap: dict[fx.Node, fx.Node] = {}
    for node in gm.graph.nodes:
        if node in dropped:
            continue
        if node is layers.windows[-1][0]:
            remap |= {old: remap[new] for old, new in zip(before_last, stand_in, strict=True)}
        if node.op == "output":
            graph.output(fx.map_arg(node.args[0], remap.__getitem__))
        else:
            remap[node] = copy_node(graph, node, remap)
    return graph_module(graph, "Lowering")


def _signature(node: fx.Node) -> Hashable:
    """What a node is, apart from its operands."""
    return node.target, plain(node.args), plain(node.kwargs), form(node.meta.get("val")), node.meta.get("source")


def plain(value: object) -> Hashable:
    if isinstance(value, fx.Node):
        return fx.Node
    if isinstance(value, (tuple, list)):
        return tuple(map(plain, value))
    if isinstance(value, dict):
        return tuple((key, plain(item)) for key, item in value.items())
    return type(value), repr(value)  # 1 == 1.0 == True, and 0.0 == -0.0


def form(value: object) -> Hashable:
    if isinstance(value, Tensor):
        return tuple(value.shape), value.stride(), value.dtype
    return tuple(map(form, value)) if isinstance(value, (tuple, list)) else repr(value)


def _longest(prints: Sequence[int]) -> tuple[int, int, int]:
    """Start, period and count of the repetition that covers most. An operation that a layer has once returns after one
    period, so the commonest distances between equal neighbours are the periods to try: the search is linear."""
    seen: dict[int, int] = {}
    distances: Counter[int] = Counter()
    for place, number in enumerate(prints):
        if number in seen:
            distances[place - seen[number]] += 1
        seen[number] = place
    best = (0, 1, 0)
    for period, _ in sorted(distances.items(), key=lambda item: (-item[1] * item[0], item[0]))[:ATTEMPTS]:
        start = 0
        for place in range(len(prints) - period + 1):
            if place + period < len(prints) and prints[place] == prints[place + period]:
                continue
            count = (place - start) // period + 1
            if (count - 1) * period > (best[2] - 1) * best[1]:
                best = (start, period, count)
            start = place + 1
    return best


def _checked(windows: Sequence[Sequence[fx.Node]]) -> Layers | None:
    """The windows with their own weights, if all from the second on are connected alike."""
    place = {node: (number, position) for number, window in enumerate(windows) for position, node in enumerate(window)}
    weights: dict[tuple[fx.Node, ...], None] = {}  # one of each window from the second on
    for column in zip(*(_operands(window) for window in windows[1:]), strict=True):
        if any(node in place for node in column):
            if len({_relative(place.get(node), number) for number, node in enumerate(column, 1)}) != 1:
                return None
        elif any(node is not column[0] for node in column):
            if not all(_same_weight(column[0], node) for node in column):
                return None
            weights[column] = None
    own = [(), *zip(*weights, strict=True)] if weights else [()] * len(windows)
    if len(set().union(*weights)) != len(weights) * (len(windows) - 1):
        return None  # a weight that two windows read, or one window in the place of two
    for number in range(1, len(windows) - 1):
        inside, after = set(windows[number]), set(windows[number + 1])
        if any(not node.users.keys() <= inside | after for node in inside) or any(
            not node.users.keys() <= inside for node in own[number]
        ):
            return None
    return Layers(tuple((*window, *mine) for window, mine in zip(windows, own, strict=True)))


def _operands(window: Sequence[fx.Node]) -> list[fx.Node]:
    found: list[fx.Node] = []
    for node in window:
        fx.map_arg((node.args, node.kwargs), found.append)
    return found


def _relative(place: tuple[int, int] | None, window: int) -> tuple[int, int]:
    """A value as a window sees it: how many windows ago, and where in it. What is in no window, or too far away, is
    like nothing else."""
    return (window - place[0], place[1]) if place is not None and 0 <= window - place[0] <= 1 else (-1, window)


def _same_weight(a: fx.Node, b: fx.Node) -> bool:
    if not (a.op == b.op == "placeholder" and a.meta.get("weight") and b.meta.get("weight")):
        return False
    one, other = a.meta.get("constant"), b.meta.get("constant")
    equal = one is other or (isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other))
    return equal and form(a.meta["val"]) == form(b.meta["val"])
