"""The frozen graph, run by PyTorch one node at a time and no further than asked."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, fx

from compiler.graph.fx_copy import as_written


class LazyReference:
    """Values of a graph by node name. A value is there from `value` until `release`, or as long as the graph needs
    it."""

    def __init__(self, gm: fx.GraphModule, arguments: Sequence[Any]) -> None:
        self._interpreter = fx.Interpreter(gm, garbage_collect_values=True)
        self._interpreter.args_iter = iter(arguments)
        self._pending: Iterator[fx.Node] = iter(gm.graph.nodes)
        self._values: dict[str, Tensor] = {}
        self._wanted: set[str] = set()
        self._result: tuple[Tensor, ...] | None = None

    def want(self, names: set[str]) -> None:
        """Say beforehand which values will be asked for."""
        self._wanted |= names

    def value(self, name: str) -> Tensor:
        while name not in self._values:
            self._step()
        return self._values[name]

    def release(self, name: str) -> None:
        self._values.pop(name, None)

    def outputs(self) -> tuple[Tensor, ...]:
        while self._result is None:
            self._step()
        return self._result

    def _step(self) -> None:
        node = next(self._pending, None)
        assert node is not None, "every wanted value is a node of the graph, and is asked for before it is released"
        interpreter = self._interpreter
        with as_written():
            result = interpreter.run_node(node)
        if node.op == "output":
            self._result = tuple(result)
            return
        interpreter.env[node] = result
        if node.name in self._wanted:
            self._values[node.name] = result
        for used in interpreter.user_to_last_uses.get(node, []):
            del interpreter.env[used]
