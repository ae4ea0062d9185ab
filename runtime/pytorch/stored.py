"""A captured model as something that pickles: PyTorch's own graph pickler for the graph, whose values are fake
tensors."""

from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx._graph_pickler import GraphPickler, Options

from compiler.frontend.capture import Captured


@dataclass(frozen=True)
class Stored:
    """`graph` is the pickled graph, `numbers` the single numbers that its nodes know, `rest` all other fields of the
    capture."""

    graph: bytes
    numbers: dict[str, Tensor]
    rest: dict[str, Any]

    @classmethod
    def of(cls, captured: Captured) -> "Stored":
        rest = {field.name: getattr(captured, field.name) for field in fields(captured) if field.name != "gm"}
        numbers = {node.name: node.meta["constant"] for node in captured.gm.graph.nodes if "constant" in node.meta}
        options = Options(ops_filter=None, node_metadata_key_filter=lambda key: key != "constant")
        graph = GraphPickler.dumps(fx.GraphModule(captured.gm, captured.gm.graph), options)
        return cls(graph, numbers, {**rest, "tensors": dict(captured.tensors)})

    def captured(self) -> Captured:
        mode = FakeTensorMode()
        gm: Any = GraphPickler.loads(self.graph, mode)
        for node in gm.graph.nodes:
            if node.name in self.numbers:
                node.meta["constant"] = self.numbers[node.name]
        return Captured(gm, **self.rest)
