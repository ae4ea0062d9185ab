"""What the chip cannot do runs in PyTorch: the captured graph is split at the finest sensible border.

    x → linear → gelu → topk → linear → y     becomes     x → [chip] → topk → [chip] → y

Whether the chip can do an operation is not a list kept here: each distinct use (operation, shapes, types, options) is
compiled on its own once, and what the compiler says is the answer, reason included.
"""

import operator
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import OperatorSupportBase
from torch.fx.passes.split_module import split_module

from compiler.frontend.capture import Captured, TensorInfo, Weight
from compiler.options import Options
from compiler.passes.legal import VIEWS
from compiler.passes.manager import operation
from isa.chip import Chip
from isa.errors import Error, UnsupportedError
from runtime.part import Part

_warned: set[str] = set()


def warn_once(name: str, reason: str) -> None:
    """Tell the user once per operation that it does not run on the chip."""
    if name not in _warned:
        _warned.add(name)
        message = f"llmchip runs {name} in PyTorch: {reason} (options={{'fallback': False}} makes this an error)"
        warnings.warn(message, UserWarning, stacklevel=1)


def split(captured: Captured, options: Options, chip: Chip) -> Callable[..., tuple[Tensor, ...]]:
    """A callable like `Part`, with PyTorch between its pieces. Warns of every operation that stays in PyTorch."""
    gm = _copy(captured.gm)
    static = _static(gm.graph)
    support = _Support(options, chip, static)
    for node in gm.graph.nodes:
        computes = "val" in node.meta and node.target is not operator.getitem  # not one of PyTorch's own checks
        if node.op == "call_function" and computes and node not in static and (reason := support.reason(node)):
            warn_once(operation(node), reason)
    partitioner = CapabilityBasedPartitioner(gm, support, allows_single_node_partition=True)
    parts = [part for part in partitioner.propose_partitions() if any(_computes(node, static) for node in part.nodes)]
    fused = partitioner.fuse_partitions(parts, prefix="chip_")
    for node in fused.graph.find_nodes(op="call_module"):
        _place(fused, node.target, options, chip)
    fused.recompile()
    return fused


def _place(outer: torch.nn.Module, target: str, options: Options, chip: Chip) -> None:
    """Replace a piece of the graph by its program. One that fails as a whole, though its operations do not, is halved."""
    piece = getattr(outer, target)
    assert isinstance(piece, fx.GraphModule)
    captured, single = _captured(piece)
    try:
        part = Part(captured, options, chip)
    except UnsupportedError as error:
        halves = _halves(piece)
        if halves is None:
            warn_once(next(operation(n) for n in piece.graph.nodes if n.op == "call_function"), str(error))
        else:
            for node in halves.graph.find_nodes(op="call_module"):
                _place(halves, node.target, options, chip)
            setattr(outer, target, halves)
        return
    holders = piece.graph.find_nodes(op="placeholder")
    order = sorted(range(len(holders)), key=lambda index: bool(holders[index].meta.get("weight")))
    setattr(outer, target, _Piece(part, order, single))


def _halves(piece: fx.GraphModule) -> fx.GraphModule | None:
    """The piece as a graph of two pieces, one after the other; None if it has one operation only."""
    nodes = [node for node in piece.graph.nodes if node.op == "call_function" and node.target is not operator.getitem]
    if len(nodes) < 2:
        return None
    first = set(nodes[: len(nodes) // 2])

    def half(node: fx.Node) -> int:
        while node.target is operator.getitem:  # results stay with the operation that gives them
            node = node.args[0]  # type: ignore[assignment]
        return 0 if node in first else 1

    return split_module(piece, piece, half)


class _Piece(torch.nn.Module):
    """A part inside a graph module; `order` puts the inputs before the weights."""

    def __init__(self, part: Part, order: Sequence[int], single: bool) -> None:
        super().__init__()
        self.part, self.order, self.single = part, order, single

    def forward(self, *tensors: Tensor) -> Any:
        results = self.part(*(tensors[index] for index in self.order))
        return results[0] if self.single else results


class _Support(OperatorSupportBase):
    """Answers for each node, trying each distinct use once."""

    def __init__(self, options: Options, chip: Chip, static: set[fx.Node]) -> None:
        self._options, self._chip, self._static = options, chip, static
        self._known: dict[Hashable, str] = {}

    def is_node_supported(self, submodules: Mapping[str, torch.nn.Module], node: fx.Node) -> bool:
        return node.op == "call_function" and (node in self._static or not self.reason(node))

    def reason(self, node: fx.Node) -> str:
        """Why the chip cannot do it, or an empty string. A result picked from several is where they are."""
        if node.target is operator.getitem:
            assert isinstance(node.args[0], fx.Node)
            return self.reason(node.args[0])
        if "val" not in node.meta:
            return "it has no result"
        use = _use(node)
        if use not in self._known:
            self._known[use] = self._try(node)
        return self._known[use]

    def _try(self, node: fx.Node) -> str:
        if any(_symbolic(value) for value in _values(node)):
            return "the size of its result depends on data"
        try:
            Part(_captured(_alone(node))[0], self._options, self._chip)
        except Error as error:
            return error.what
        return ""


def symbolic(captured: Captured) -> bool:
    """Whether a size in the graph depends on data, which the compiler must not even see."""
    return any(_symbolic(value) for node in captured.gm.graph.nodes if node.op == "call_function" for value in _values(node))


def _values(node: fx.Node) -> tuple[Any, ...]:
    value = node.meta.get("val")
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _symbolic(value: Any) -> bool:
    if isinstance(value, Tensor):
        return any(not isinstance(size, int) for size in value.shape)
    return isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool))


def _use(node: fx.Node) -> Hashable:
    """What the answer depends on: the operation, its options, and the types and shapes of its operands."""

    def describe(operand: fx.Node) -> str:
        values = [f"{v.dtype}{list(v.shape)}" if isinstance(v, Tensor) else str(v) for v in _values(operand)]
        return f"{'weight' if operand.meta.get('weight') else 'input'} {values}"

    masked = fx.node.map_arg((node.args, node.kwargs), lambda operand: "tensor")
    return node.target, str(masked), tuple(map(describe, node.all_input_nodes))


def _alone(node: fx.Node) -> fx.GraphModule:
    """A graph of this one operation."""
    graph, remap = fx.Graph(), {}
    for number, operand in enumerate(node.all_input_nodes):
        remap[operand] = graph.placeholder(f"x{number}")
        remap[operand].meta = dict(operand.meta)
    copy = graph.node_copy(node, lambda old: remap[old])
    results = [copy]
    if isinstance(node.meta["val"], (tuple, list)):
        results = [graph.node_copy(user, lambda old: copy) for user in node.users if user.target is operator.getitem]
    graph.output(tuple(results))
    return fx.GraphModule(torch.nn.Module(), graph)


def _captured(piece: fx.GraphModule) -> tuple[Captured, bool]:
    """A piece as the compiler takes it, inputs before weights; and whether it returns one tensor, not a tuple."""
    piece = _copy(piece)
    holders = piece.graph.find_nodes(op="placeholder")
    inputs = [node for node in holders if not node.meta.get("weight")]
    weights = [node for node in holders if node.meta.get("weight")]
    for node in reversed((*inputs, *weights)):
        first = next(iter(piece.graph.nodes))
        if node is not first:
            first.prepend(node)
    output = piece.graph.output_node()
    single = isinstance(output.args[0], fx.Node)
    results: tuple[Any, ...] = (output.args[0],) if single else tuple(output.args[0])  # type: ignore[arg-type]
    output.args = (results,)
    piece.recompile()
    infos = tuple(TensorInfo(f"output{n}", tuple(node.meta["val"].shape), node.meta["val"].dtype) for n, node in enumerate(results))
    named = tuple(TensorInfo(node.name, tuple(node.meta["val"].shape), node.meta["val"].dtype) for node in inputs)
    return Captured(piece, named, infos, tuple(Weight(n.name, n.name, "param") for n in weights), {}, {}, None), single


def _copy(gm: fx.GraphModule) -> fx.GraphModule:
    graph = fx.Graph()
    remap: dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(gm.graph, remap))
    for old, new in remap.items():
        new.meta = dict(old.meta)
    return fx.GraphModule(torch.nn.Module(), graph, "Split")


def _static(graph: fx.Graph) -> set[fx.Node]:
    """Nodes that depend on weights alone: packing computes them, with PyTorch, whatever they are."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "call_function" and all(n in found or n.meta.get("weight") for n in node.all_input_nodes):
            found.add(node)
    return found


def _computes(node: fx.Node, static: set[fx.Node]) -> bool:
    """Whether a node is worth a trip to the chip: not a view, and not something that only weights decide."""
    return node not in static and node.target not in VIEWS
