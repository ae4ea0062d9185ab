"""PyTorch's value of any node, and the comparison. The only part of the debugger that needs torch; imported when
asked."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, fx

from compiler.lower import Lowered
from isa.errors import InputError
from isa.image.records import DebugNode
from runtime.debug.nodes import Comparison, Value
from runtime.device.arrays import Array, comparable, host_dtype
from runtime.pytorch.tensors import name_of, to_array, to_tensor
from runtime.verify.compare import _FLOATS, _shown, converted
from runtime.verify.reference import LazyReference

KEPT_BYTES = 512 << 20


class NodeReference:
    """Values by node name, in any order. Recent ones are kept; for one that has passed the graph runs again."""

    def __init__(self, graph: fx.GraphModule, arguments: Sequence[Any]) -> None:
        self._graph, self._arguments = graph, arguments
        self._known = {node.name for node in graph.graph.nodes}
        self._kept: OrderedDict[str, Array] = OrderedDict()
        self._running = LazyReference(graph, arguments)

    def __call__(self, name: str) -> Array:
        if name not in self._known:
            raise InputError(
                f"the model has no node '{name}'", hint="is it the model that the image was compiled from?"
            )
        if name not in self._kept:
            self._kept[name] = to_array(self._value(name))
            self._running.release(name)
            while len(self._kept) > 1 and sum(a.nbytes for a in self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)
        return self._kept[name]

    def compare(self, node: DebugNode, value: Value) -> Comparison:
        """What the chip has written of a node beside PyTorch's value of it."""
        return compare(node, value, self(node.name))

    def _value(self, name: str) -> Tensor:
        self._running.want({name})
        try:
            return self._running.value(name)
        except AssertionError:  # the graph ran past it when nobody wanted it
            self._running = LazyReference(self._graph, self._arguments)
            self._running.want({name})
            return self._running.value(name)


def compare(node: DebugNode, value: Value, reference: Array) -> Comparison:
    """The written elements of a node and the reference's, as integers."""
    expected = comparable(converted(reference, _FLOATS.get(node.dtype), value.dtype).reshape(-1), value.dtype)
    actual = comparable(value.flat, value.dtype)
    if expected.size != actual.size:
        raise InputError(
            f"node {node.name} has {actual.size} elements, the model's has {expected.size}",
            hint="is it the image's model?",
        )
    unequal = value.seen & (actual != expected)
    first = None
    if unequal.any():
        flat = int(np.argmax(unequal))
        index = [int(i) for i in np.unravel_index(flat, node.shape)]
        first = {
            "index": index,
            "expected": _shown(expected[flat], value.dtype),
            "actual": _shown(actual[flat], value.dtype),
        }
    return Comparison(node.name, value.written, value.seen.size, int(np.count_nonzero(unequal)), first)


def of_lowered(lowered: Lowered) -> Callable[[Mapping[str, Array]], NodeReference]:
    """The reference of a lowered model, once the inputs are known."""

    def start(inputs: Mapping[str, Array]) -> NodeReference:
        tensors = []
        for info in lowered.inputs:
            dtype = name_of(info.dtype)
            tensors.append(
                to_tensor(np.asarray(inputs[info.name].astype(host_dtype(dtype), copy=False), order="C"), dtype)
            )
        return NodeReference(lowered.main, (*tensors, *lowered.pack_weights()))

    return start
