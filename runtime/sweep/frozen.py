"""A lowered model as bytes, without its weights: what a worker needs to compile it for a chip.

Nothing of lowering depends on the chip, and nothing of a program's time on the values of weights. So a model is
captured and lowered once, here, and its frozen graph goes to all workers.
"""

import hashlib
import pickle
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx._graph_pickler import GraphPickler
from torch.fx._graph_pickler import Options as PicklerOptions
from torch.utils import _pytree as pytree

from compiler.frontend.capture import Captured, TensorInfo
from compiler.graph.fx_copy import as_written, copied
from compiler.lower import Lowered, lower
from compiler.options import Options
from runtime.pytorch import cache
from runtime.pytorch.tensors import weights_sha256

_LEFT_OUT = ("packed_from", "depends")  # what only the passes before have used


@dataclass(frozen=True)
class FrozenModel:
    """`program` is equal for what compiles to the same program on the same chip; `weights` is the hash of the weights,
    which the image cache asks for."""

    program: str
    weights: str
    options: Options
    graph: bytes
    rest: bytes  # the fields of the capture that a graph of its own needs, and the constants

    def lowered(self) -> Lowered:
        """The frozen graph, ready to be tiled."""
        main: Any = GraphPickler.loads(self.graph, FakeTensorMode())
        inputs, outputs, constants = pickle.loads(self.rest)
        empty = fx.GraphModule(torch.nn.Module(), fx.Graph())
        captured = Captured(main, inputs, outputs, (), {}, {}, None)
        return Lowered(main, empty, inputs, outputs, constants, captured, ())


def freeze(captured: Captured, options: Options) -> FrozenModel:
    """Lower a captured model. Raises UnsupportedError for what the chip cannot do."""
    with as_written():
        lowered = lower(captured, options)
    graph = _pickled(lowered.main)
    rest: tuple[tuple[TensorInfo, ...], ...] = (lowered.inputs, lowered.outputs, lowered.constants)
    program = cache.program_key(captured, options) or hashlib.sha256(graph).hexdigest()
    return FrozenModel(program, weights_sha256(captured.tensors), options, graph, pickle.dumps(rest))


def _pickled(gm: fx.GraphModule) -> bytes:
    """PyTorch's own pickler for the graph. Fake tensors, which it does not take from everywhere, become their shapes."""
    twin = copied(gm, "Frozen")
    for node in twin.graph.nodes:
        if "val" in node.meta:
            node.meta["val"] = pytree.tree_map(_shape, node.meta["val"])
    plain = fx.GraphModule(torch.nn.Module(), twin.graph)
    options = PicklerOptions(ops_filter=None, node_metadata_key_filter=lambda key: key not in _LEFT_OUT)
    return bytes(GraphPickler.dumps(plain, options))


def _shape(value: object) -> object:
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(tuple(value.shape), value.stride(), dtype=value.dtype, device="meta")
