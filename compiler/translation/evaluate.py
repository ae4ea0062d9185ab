"""The graph side: the symbols of every node, computed when they are first asked for and dropped when nobody will ask
again."""

from collections import Counter
from collections.abc import Iterable
from operator import getitem

import numpy as np
import torch
from torch import fx
from torch._ops import OpOverload

from compiler.translation.iterations import Iterations
from compiler.translation.operators import RULES, Call, Given, Results
from compiler.translation.symbols import Symbols
from compiler.translation.views import is_view, view_given, view_symbols


class Graph:
    """Values of a frozen graph, of which iterations may be left out. `readers` are nodes that will be asked for, once
    for each time. `steered` is what the elements of inputs that steer the program are in this launch; `changes` is what
    the values that were computed make of state."""

    def __init__(self, graph: fx.Graph, iterations: Iterations, readers: Iterable[str], steered: int = 0) -> None:
        self.steered = steered
        self.changes: dict[str, Symbols] = {}
        self.nodes = {node.name: node for node in graph.nodes}
        self.iterations = iterations
        self._values: dict[fx.Node, Results] = {}
        self._flat: dict[fx.Node, dict[str, Symbols]] = {}  # by the node behind views, what readers asked for
        self._behind: dict[fx.Node, tuple[fx.Node, list[fx.Node]]] = {}
        self._uses = self._count(graph, readers)

    def _count(self, graph: fx.Graph, readers: Iterable[str]) -> Counter[fx.Node]:
        """How often each computed value is looked at."""
        uses: Counter[fx.Node] = Counter()
        for node in graph.nodes:
            if node.op == "call_function" and not is_view(node) and not self.iterations.left_out(node):
                uses.update(self._sources(node))
        for name, times in Counter(readers).items():
            if name in self.nodes:
                uses[self._base(self.nodes[name])] += times
        return uses

    def _sources(self, node: fx.Node) -> list[fx.Node]:
        return [self._base(operand) for operand in node.all_input_nodes]

    def _base(self, node: fx.Node) -> fx.Node:
        """The placeholder or the computing node behind views."""
        return self.iterations.standing(self._views(node)[0])

    def take(self, name: str) -> Symbols | None:
        """The symbols of a node, flat, for one of the readers; None if there is no such node."""
        node = self.nodes.get(name)
        if node is None:
            return None
        base = self._base(node)
        flat = self._flat.get(base, {}).get(name)
        if flat is None:
            flat = np.ascontiguousarray(self.value(node)).reshape(-1)
            self._flat.setdefault(base, {})[name] = flat
        self._used(base)
        return flat

    def value(self, node: fx.Node) -> Symbols:
        """The symbols of a node, its shape the node's; repeated elements may be held once."""
        given = self.given(node)
        if given is not None:
            return given.symbols()
        self._ensure(self._base(node))
        found = self._of(node)
        assert not isinstance(found, tuple), f"{node.name} has several results"
        return found

    def given(self, node: fx.Node) -> Given | None:
        """The node as a view of a constant or an input, if it is one."""
        source, chain = self._views(node)
        found = _whole(source) if source.op == "placeholder" else None
        for view in reversed(chain):
            found = None if found is None else view_given(found, view)
        return found

    def computed(self) -> Iterable[tuple[str, Symbols]]:
        """What is at hand, by name: for messages."""
        for node, value in self._values.items():
            for number, part in enumerate(value if isinstance(value, tuple) else (value,)):
                yield (node.name if not isinstance(value, tuple) else f"{node.name}[{number}]"), part

    def _views(self, node: fx.Node) -> tuple[fx.Node, list[fx.Node]]:
        """The node behind views, and the views, the last first."""
        found = self._behind.get(node)
        if found is None:
            source, chain = node, []
            while source.op == "call_function" and is_view(source):
                chain.append(source)
                source = source.all_input_nodes[0]
            found = self._behind[node] = source, chain
        return found

    def _of(self, node: fx.Node) -> Results:
        source, chain = self._views(node)
        source = self.iterations.standing(source)
        value = _whole(source).symbols() if source.op == "placeholder" else self._values[source]
        for view in reversed(chain):
            value = _viewed(value, view)
        return value

    def _ensure(self, node: fx.Node) -> None:
        """Compute a value, and first all that it needs, without recursion: chains may be thousands of nodes long."""
        waiting = [node]
        while waiting:
            current = waiting[-1]
            if current in self._values or current.op != "call_function":
                waiting.pop()
                continue
            missing = [
                source
                for source in self._sources(current)
                if source.op == "call_function" and source not in self._values
            ]
            if missing:
                waiting += missing
                continue
            waiting.pop()
            self._values[current] = self._compute(current)
            for source in self._sources(current):
                self._used(source)

    def _used(self, node: fx.Node) -> None:
        self._uses[node] -= 1
        if self._uses[node] <= 0:
            self._values.pop(node, None)
            self._flat.pop(node, None)

    def _compute(self, node: fx.Node) -> Results:
        assert isinstance(node.target, OpOverload), f"{node.name} calls {node.target}, which has no schema"
        rule = RULES[node.target._schema.name.split("::")[1]]
        result = rule(Call(node, self.value, self.given, self.steered, self.changes))
        return result if isinstance(result, tuple) else np.asarray(result)


def _viewed(value: Results, view: fx.Node) -> Results:
    """One of several results, or the view of the only one."""
    if view.target is getitem:
        number = view.args[1]
        assert isinstance(value, tuple) and isinstance(number, int), f"{view.name} takes one of a single result"
        return value[number]
    assert not isinstance(value, tuple), f"{view.name} views several results"
    return view_symbols(value, view)


def _whole(node: fx.Node) -> Given:
    """A placeholder, all of it."""
    return Given(node.name, torch.empty(tuple(node.meta["val"].shape), dtype=torch.int8, device="meta"))
