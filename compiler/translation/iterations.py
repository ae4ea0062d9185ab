"""The loop of a program and the layers of the graph that it stands for.

The loop is checked twice: the first iteration, and the last one as if it followed the first. That shows all of
them:

- State: every instruction of the body writes the same places in every iteration (what an instruction writes never moves), so after any
  iteration those places hold values of that iteration, and all other places what they held before the loop.
- The second time starts from such a state. It reads, of what the body writes, values of the iteration before it (here
  the first), at the same places as any later iteration does. What is proved of it holds for iterations 1 to N-1 if
  these are alike.
- Alike in the graph: `Iterations` verifies that node by node the iterations 1 to N-1 have the same operators and
  arguments, and operands that are the counterparts of each other: own values, values of the iteration before, values
  from before the loop, constants of their own.
- Alike in memory: constants move by a fixed number of bytes per iteration. Their places form an arithmetic progression
  (verified here), and the replay finds the right ones in the first and in the last iteration; two equal lines through
  two points.
- What stands behind the loop sees the state after the second time, which is the last iteration's; `Iterations` verifies
  that nothing outside reads a value of an earlier one.

The pairing of nodes is the compiler's claim, but nothing depends on its truth: any pairing for which the above holds is
a proof.
"""

from collections.abc import Hashable, Iterable, Mapping

from torch import Tensor, fx

from compiler.translation.memory import Placed, Wrong
from compiler.translation.views import is_view


class Iterations:
    """Which node belongs to which iteration. Raises Wrong when the iterations are not alike."""

    def __init__(
        self, graph: fx.Graph, count: int, instances: Mapping[str, tuple[str, ...]], constants: Iterable[Placed]
    ) -> None:
        self.count = count
        self.instances = instances if count else {}
        by_name = {node.name: node for node in graph.nodes}
        self.groups: dict[str, list[fx.Node]] = {
            name: [by_name[other] for other in names] for name, names in self.instances.items()
        }
        self.place = {node: (name, i) for name, nodes in self.groups.items() for i, node in enumerate(nodes)}
        if self.place:
            self._verify(graph, {tensor.node: tensor for tensor in constants})

    def name(self, node: str, iteration: int) -> str:
        """The counterpart of a node of the body in an iteration."""
        names = self.instances.get(node)
        return names[iteration] if names else node

    def left_out(self, node: fx.Node) -> bool:
        """Whether the node belongs to an iteration that is not replayed."""
        return 0 < self.place.get(node, ("", 0))[1] < self.count - 1

    def standing(self, node: fx.Node) -> fx.Node:
        """The node whose value is there in the replay: for the iteration before the last that is the first."""
        if node.op != "placeholder" and self.left_out(node):
            return self.groups[self.place[node][0]][0]
        return node

    def _verify(self, graph: fx.Graph, constants: Mapping[str, Placed]) -> None:
        for name, nodes in self.groups.items():
            if len(nodes) != self.count or len(set(nodes)) != self.count:
                raise Wrong(f"the loop has {self.count} iterations, and {name} {len(set(nodes))} counterparts")
            if nodes[0].op == "placeholder":
                _progression([constants[node.name] for node in nodes])
            elif nodes[0].op == "call_function":
                self._alike(nodes)
        for node in graph.nodes:
            if node.op == "output" or (node.op == "call_function" and node not in self.place and not is_view(node)):
                self._reads_the_last(node)

    def _alike(self, nodes: list[fx.Node]) -> None:
        if self.count < 2:
            return
        first = self._form(nodes[1], 1)
        for iteration in range(2, self.count):
            if self._form(nodes[iteration], iteration) != first:
                raise Wrong(
                    f"{nodes[iteration].name} is not to iteration {iteration} what {nodes[1].name} is to iteration 1"
                )

    def _form(self, node: fx.Node, iteration: int) -> Hashable:
        """What a node does, with every operand named by its relation to the iteration."""
        value = node.meta["val"]
        results = value if isinstance(value, tuple | list) else (value,)
        types = tuple((tuple(v.shape), v.dtype) if isinstance(v, Tensor) else v for v in results)
        return node.target, types, self._relation(node.args, iteration), self._relation(node.kwargs, iteration)

    def _relation(self, x: object, iteration: int) -> Hashable:
        if isinstance(x, fx.Node):
            if x in self.place:
                name, i = self.place[x]
                return name, i - iteration
            if x.op == "call_function" and is_view(x):
                return self._form(x, iteration)
            return x
        if isinstance(x, tuple | list):
            return tuple(self._relation(item, iteration) for item in x)
        if isinstance(x, dict):
            return tuple((key, self._relation(item, iteration)) for key, item in x.items())
        return type(x), repr(x)

    def _reads_the_last(self, node: fx.Node) -> None:
        waiting = list(node.all_input_nodes)
        while waiting:
            operand = waiting.pop()
            if operand in self.place:
                if operand.op != "placeholder" and self.place[operand][1] != self.count - 1:
                    raise Wrong(
                        f"{node.name}, outside the loop, reads {operand.name} of iteration {self.place[operand][1]}"
                    )
            elif operand.op == "call_function" and is_view(operand):
                waiting += operand.all_input_nodes


def _progression(places: list[Placed]) -> None:
    """Constants of one kind, one for each iteration, at a constant distance."""
    first, step = places[0], places[1].offset - places[0].offset
    for i, place in enumerate(places):
        if place.offset != first.offset + i * step or (place.region, place.storage, place.shape) != (
            first.region,
            first.storage,
            first.shape,
        ):
            raise Wrong(f"{place.node} is not where iteration {i} looks for it")
