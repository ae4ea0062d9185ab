"""What the chip cannot do runs in PyTorch: the captured graph is split at the finest sensible border.

    x → linear → gelu → topk → linear → y     becomes     x → [chip] → topk → [chip] → y

Whether the chip can do an operation is not a list kept here: each distinct use (operation, shapes, types, options) is
compiled on its own once, and what the compiler says is the answer, reason included. A piece that fails later, while its
weights are packed or while it runs, gives way to smaller ones or to PyTorch in the same manner.
"""

import operator
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import OperatorSupportBase
from torch.fx.passes.split_module import split_module

from compiler.frontend.calibration import Calibration
from compiler.frontend.capture import Captured, TensorInfo, Weight
from compiler.graph.legal import moves, random
from compiler.options import Options
from isa.chip import Chip
from isa.errors import InputError, Trap, UnsupportedError
from runtime.pytorch.fallback import Policy, Teller
from runtime.pytorch.strides import laying
from runtime.pytorch.subgraph import Part

Runs = Callable[..., Any]


@dataclass(frozen=True)
class Setting:
    """What all pieces of a graph are compiled with, and whom they tell of what falls back."""

    options: Options
    chip: Chip
    policy: Policy
    teller: Teller = field(default_factory=Teller)
    calibration: Calibration | None = None

    def part(self, captured: Captured) -> Any:
        """What runs a piece: it takes inputs, then weights. Raises why the chip cannot do it."""
        return Part(captured, self.options, self.chip)


def whole(captured: Captured, setting: Setting) -> Runs:
    """The whole graph as one piece, or, where that cannot be and may fall back, split. Takes inputs, then weights;
    gives a tuple."""
    try:
        if symbolic(captured):
            raise UnsupportedError("a size in this graph depends on data")
        part = setting.part(captured)
    except Exception as error:
        setting.policy.accept(error)
        pieces = split(captured.gm, setting)
        setting.teller.tell_cut(error, captured.gm.graph)
        return pieces
    piece = Piece(captured.gm, part, None, False, setting, lambda: split(captured.gm, setting, finer=True))
    return piece.forward


def split(gm: fx.GraphModule, setting: Setting, finer: bool = False) -> fx.GraphModule:
    """A graph like this one with its pieces on the chip. Tells of every operation that stays in PyTorch.

    `finer`: the graph as one piece has failed, though the compiler took it; if it would be one piece again, it is
    halved.
    """
    gm = _copy(gm)
    static = of_weights(gm.graph)
    support = _Support(setting, static)
    for node in gm.graph.nodes:
        if _told(node) and node not in static and (error := support.refusal(node)):
            setting.teller.tell(error, node, gm.graph)
    partitioner = CapabilityBasedPartitioner(gm, support, allows_single_node_partition=True)
    parts = [part for part in partitioner.propose_partitions() if any(_computes(node, static) for node in part.nodes)]
    fused = partitioner.fuse_partitions(parts, prefix="chip_")
    for node in fused.graph.find_nodes(op="call_module"):
        _place(fused, node.target, setting, finer and len(parts) == 1)
    fused.recompile()
    return fused


def _told(node: fx.Node) -> bool:
    """Whether the user should know that a node runs in PyTorch: not of results picked from several."""
    return node.op == "call_function" and node.target is not operator.getitem


def _place(outer: torch.nn.Module, target: str, setting: Setting, halve: bool = False) -> None:
    """Replace a piece of the graph by its program. One that fails as a whole, though its operations do not, is
    halved."""
    piece = getattr(outer, target)
    assert isinstance(piece, fx.GraphModule)
    if halve and (smaller := _halved(piece, setting)) is not None:
        setattr(outer, target, smaller)
        return
    captured, order, single = _captured(piece)
    try:
        part = setting.part(captured)
    except Exception as error:
        setattr(outer, target, _smaller(piece, error, setting))
        return
    setattr(outer, target, Piece(piece, part, order, single, setting, lambda: _halved(piece, setting)))


def _smaller(piece: fx.GraphModule, error: Exception, setting: Setting) -> fx.GraphModule:
    """What takes the place of a piece that the chip cannot do: its halves, or a single operation in PyTorch."""
    setting.policy.accept(error)
    halves = _halved(piece, setting)
    if halves is None:
        setting.teller.tell(error, _first(piece), piece.graph)
        return piece
    setting.teller.tell_cut(error, piece.graph)
    return halves


def _halved(piece: fx.GraphModule, setting: Setting) -> fx.GraphModule | None:
    """The piece as a graph of two pieces, one after the other; None if it has one operation only."""
    nodes = [node for node in piece.graph.nodes if node.op == "call_function" and node.target is not operator.getitem]
    if len(nodes) < 2:
        return None
    first = set(nodes[: len(nodes) // 2])

    def half(node: fx.Node) -> int:
        while node.target is operator.getitem:  # results stay with the operation that gives them
            node = node.args[0]  # type: ignore[assignment]
        return 0 if node in first else 1

    halves = split_module(piece, piece, half)
    for node in halves.graph.find_nodes(op="call_module"):
        _place(halves, node.target, setting)
    return halves


def _first(piece: fx.GraphModule) -> fx.Node:
    found: fx.Node = next(node for node in piece.graph.nodes if _told(node))
    return found


class Piece(torch.nn.Module):
    """A part inside a graph, and how it goes on where the chip fails at it.

    `order` puts the inputs before the weights. `smaller` makes what takes its place when its weights cannot be packed,
    or None.
    """

    def __init__(
        self,
        gm: fx.GraphModule,
        part: Any,
        order: Sequence[int] | None,
        single: bool,
        setting: Setting,
        smaller: Callable[[], Runs | None],
    ) -> None:
        super().__init__()
        self._gm, self.part, self._order, self._single = gm, part, order, single
        self._setting, self._smaller = setting, smaller
        self._instead: Runs | None = None
        results = (gm.graph.output_node().args[0],) if single else gm.graph.output_node().args[0]
        lays = (
            [laying(node.meta["val"].shape, node.meta["val"].stride()) for node in results] if order is not None else []  # type: ignore[union-attr]
        )
        self._lays = lays if any(lays) else None  # the whole graph's are its frame's business

    def forward(self, *tensors: Tensor) -> Any:
        if self._instead is not None:
            return self._instead(*tensors)
        try:
            results = (
                self.part(*tensors) if self._order is None else self.part(*(tensors[index] for index in self._order))
            )
        except Exception as error:
            return self._recover(error, tensors)
        if self._lays is not None:
            results = tuple(lay(result) if lay else result for lay, result in zip(self._lays, results, strict=True))
        return results[0] if self._single else results

    def _recover(self, error: Exception, tensors: Sequence[Tensor]) -> Any:
        """This call's results without the chip. Values that do not fit cost one call, anything else the piece."""
        self._setting.policy.accept(error)
        if isinstance(error, Trap):
            results = self._in_pytorch(
                *tensors
            )  # raises what PyTorch says, if the inputs are what is wrong: an index outside a table
            self._instead = self._in_pytorch
            self._tell(error)
            return results
        if isinstance(error, InputError):
            self._tell(error)
            return self._in_pytorch(*tensors)
        self._instead = self._smaller()
        if self._instead is None:
            self._instead = self._in_pytorch
            self._tell(error)
        else:
            self._setting.teller.tell_cut(error, self._gm.graph)
        return self._instead(*tensors)

    def _in_pytorch(self, *tensors: Tensor) -> Any:
        return self._gm(*tensors)

    def _tell(self, error: Exception) -> None:
        self._setting.teller.tell(error, _first(self._gm), self._gm.graph)


class _Support(OperatorSupportBase):
    """Answers for each node, trying each distinct use once."""

    def __init__(self, setting: Setting, static: set[fx.Node]) -> None:
        self._setting, self._static = setting, static
        self._known: dict[Hashable, Exception | None] = {}

    def is_node_supported(self, submodules: Mapping[str, torch.nn.Module], node: fx.Node) -> bool:
        return node.op == "call_function" and (node in self._static or self.refusal(node) is None)

    def refusal(self, node: fx.Node) -> Exception | None:
        """Why the chip cannot do it, or None. A result picked from several is where they are."""
        if node.target is operator.getitem:
            assert isinstance(node.args[0], fx.Node)
            return self.refusal(node.args[0])
        use = _use(node)
        if use not in self._known:
            self._known[use] = self._try(node)
        return self._known[use]

    def _try(self, node: fx.Node) -> Exception | None:
        try:
            _check_single(node)
            self._setting.part(_captured(_alone(node))[0])
        except Exception as error:
            self._setting.policy.accept(error)
            return error
        return None


def _check_single(node: fx.Node) -> None:
    """Refuse what cannot even be asked about on its own."""
    if any(operand.op == "get_attr" for operand in node.all_input_nodes):
        raise UnsupportedError("it holds graphs of its own")
    if "val" not in node.meta:
        raise UnsupportedError("it checks a value while the program runs")
    if any(_symbolic(value) for value in _values(node)):
        raise UnsupportedError("the size of its result depends on data")
    if any(isinstance(value, (tuple, list)) for value in _values(node)):
        raise UnsupportedError("a result of it is a list of tensors")
    if not all(isinstance(value, Tensor) for operand in node.all_input_nodes for value in _values(operand)):
        raise UnsupportedError("an operand of it is no tensor")


def symbolic(captured: Captured) -> bool:
    """Whether a size in the graph depends on data, which the compiler must not even see."""
    return any(
        _symbolic(value) for node in captured.gm.graph.nodes if node.op == "call_function" for value in _values(node)
    )


def _values(node: fx.Node) -> tuple[Any, ...]:
    value = node.meta.get("val")
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _symbolic(value: Any) -> bool:
    if isinstance(value, Tensor):
        return any(not isinstance(size, int) for size in value.shape)
    return isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool))


def _use(node: fx.Node) -> Hashable:
    """What the answer depends on: the operation, its options, and the types, shapes and strides of its operands."""

    def describe(operand: fx.Node) -> str:
        values = [
            f"{v.dtype}{list(v.shape)}{v.stride()}" if isinstance(v, Tensor) else str(v) for v in _values(operand)
        ]
        return f"{operand.op} {'weight' if operand.meta.get('weight') else 'input'} {values}"

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


def _captured(piece: fx.GraphModule) -> tuple[Captured, list[int], bool]:
    """A piece as the compiler takes it, inputs before weights; where these are among its own; whether it returns one
    tensor, no tuple."""
    piece = _copy(piece)
    holders = piece.graph.find_nodes(op="placeholder")
    inputs = [node for node in holders if not node.meta.get("weight")]
    weights = [node for node in holders if node.meta.get("weight")]
    order = [holders.index(node) for node in (*inputs, *weights)]
    for node in reversed((*inputs, *weights)):
        first = next(iter(piece.graph.nodes))
        if node is not first:
            first.prepend(node)
    output = piece.graph.output_node()
    single = isinstance(output.args[0], fx.Node)
    results: tuple[Any, ...] = (output.args[0],) if single else tuple(output.args[0])  # type: ignore[arg-type]
    output.args = (results,)
    piece.recompile()
    infos = tuple(
        TensorInfo(f"output{n}", tuple(node.meta["val"].shape), node.meta["val"].dtype)
        for n, node in enumerate(results)
    )
    named = tuple(TensorInfo(node.name, tuple(node.meta["val"].shape), node.meta["val"].dtype) for node in inputs)
    return (
        Captured(piece, named, infos, tuple(Weight(n.name, n.name, "param") for n in weights), {}, {}, None),
        order,
        single,
    )


def _copy(gm: fx.GraphModule) -> fx.GraphModule:
    graph = fx.Graph()
    remap: dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(gm.graph, remap))
    for old, new in remap.items():
        new.meta = dict(old.meta)
    return fx.GraphModule(gm, graph, "Split")


def of_weights(graph: fx.Graph) -> set[fx.Node]:
    """Nodes that depend on weights alone: packing computes them, with PyTorch, whatever they are."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        known = all(n in found or n.meta.get("weight") for n in node.all_input_nodes)
        if node.op == "call_function" and known and "val" in node.meta and not random(node):
            found.add(node)
    return found


def _computes(node: fx.Node, static: set[fx.Node]) -> bool:
    """Whether a node is worth a trip to the chip: not a view, and not something that only weights decide."""
    return node not in static and not moves(node.target)
