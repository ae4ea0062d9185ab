"""Sorts a captured model into what the chip computes, what is folded and what falls back, by asking who decides: the
graph passes, and under torch.compile the splitting into pieces. No program is made.

    explanation = explain_captured(captured, Options(), load_chip())      explanation.document.on_chip[0].share
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from operator import getitem
from os import PathLike
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.utils.flop_counter import FlopCounterMode

from compiler.frontend.capture import Captured
from compiler.graph.fx_copy import as_written
from compiler.graph.legal import moves
from compiler.graph.manager import operation
from compiler.lower import Lowered, lower
from compiler.options import Options
from compiler.tile.kernel_op import INPUT, OUTPUT, KernelOp, kernel_ops
from isa.chip import Chip
from isa.errors import UnsupportedError
from runtime.explain.document import ExplainDocument, Folded, InPytorch, OnChip
from runtime.explain.explanation import Explanation
from runtime.profile.roofline import RESULT, Operation, limit, operations
from runtime.program import captured_model, chosen, one_line
from runtime.pytorch.fallback import Policy, Teller, as_error, is_fault
from runtime.pytorch.pieces import Piece, Setting, of_weights, split, symbolic

MOVED = "copies and joins"  # of the lowered graph: they cost no more than their bytes


def explain(
    model: Any,
    example_inputs: Sequence[Any] | Mapping[str, Any] | None = None,
    *,
    chip: str | PathLike[str] | Chip = "edge",
    **options: Any,
) -> Explanation:
    """What of a model would run on the chip, what is folded while weights are packed, and what would fall back to
    PyTorch under torch.compile, with reasons; before anything is compiled. Takes what `llmchip.compile` takes.

    Raises InputError for a model, an example or an option that cannot be used, and CompileError for a model that
    torch.export cannot capture.
    """
    selected, settings = chosen(chip, options)
    with one_line():
        return explain_captured(captured_model(model, example_inputs), settings, selected)


def explain_captured(captured: Captured, options: Options, chip: Chip) -> Explanation:
    """The same of a model that is captured already."""
    refusal, told = "", _Listener()
    with as_written():
        try:
            lowered = [_lowered(captured, options)]
        except Exception as error:
            refusal = as_error(error).what
            lowered = _pieces(captured, _Looking(options, chip, Policy(True, True), told))
    graphs = [part.main.graph for part in lowered]
    nodes = [node for node in captured.gm.graph.nodes if node.op == "call_function"]
    folded = of_weights(captured.gm.graph) & set(nodes)
    fallen = {node for node in nodes if node.name in told.names}
    moved = {node for node in nodes if _moves(node.target)} - folded - fallen
    counts = {
        "chip": len(nodes) - len(folded) - len(fallen) - len(moved),
        "moves": len(moved), "folded": len(folded - fallen), "pytorch": len(fallen),
    }  # fmt: skip
    return Explanation(
        ExplainDocument(
            chip=chip.name,
            ahead_of_time=not refusal,
            refusal=refusal,
            pieces=len(lowered),
            operations=counts,
            inputs_bytes=sum(_size(info.shape, info.dtype) for info in captured.inputs),
            weights_bytes=sum(tensor.numel() * tensor.itemsize for tensor in captured.tensors.values()),
            constants_bytes=sum(_size(info.shape, info.dtype) for part in lowered for info in part.constants),
            limit=dict(limit([op for graph in graphs for op in operations(graph)], chip).by_resource),
            clock_hz=chip.clock_hz,
            on_chip=_on_chip(graphs, chip),
            folded=_folded(folded - fallen),
            in_pytorch=tuple(told.rows()),
        )
    )


def _moves(target: Any) -> bool:
    """Whether an operation only says where elements are, by the compiler's table or, in forms that it does not have
    yet, by PyTorch's."""
    return moves(target) or target is getitem or (isinstance(target, OpOverload) and target.is_view)


def _lowered(captured: Captured, options: Options) -> Lowered:
    """The graph as the chip computes it. Raises UnsupportedError, also for types that only the tile passes meet."""
    if symbolic(captured):
        raise UnsupportedError("a size in this graph depends on data")
    found = lower(captured, options)
    for node in kernel_ops(found.main.graph):
        if node.is_operation:
            _ = [result.shape for result in node.results], node.dtype
    return found


@dataclass(frozen=True)
class _Looking(Setting):
    """Pieces are lowered, and not compiled."""

    def part(self, captured: Captured) -> Any:
        return _lowered(captured, self.options)


def _pieces(captured: Captured, setting: Setting) -> list[Lowered]:
    """The pieces that would be on the chip."""
    modules = split(captured.gm, setting).modules()
    return [module.part for module in modules if isinstance(module, Piece) and isinstance(module.part, Lowered)]


class _Listener(Teller):
    """Keeps what is told, and warns of nothing. The same operation may be met again in a smaller piece."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self._found: dict[tuple[str, str, str, bool], list[fx.Node]] = defaultdict(list)

    def tell(self, error: Exception, node: fx.Node | None = None, graph: fx.Graph | None = None) -> None:
        if node is None or node.name in self.names:
            return
        self.names.add(node.name)
        source = node.meta.get("source")
        key = (str(source) if source else "", operation(node), as_error(error).what, is_fault(error))
        self._found[key].append(node)

    def tell_cut(self, error: Exception, graph: fx.Graph) -> None:
        """Smaller pieces that all run on the chip are no fallback."""

    def rows(self) -> Iterable[InPytorch]:
        """The most costly first."""
        rows = [
            InPytorch(line, name, reason, len(nodes), sum(map(_macs, nodes)), sum(map(_bytes, nodes)), fault)
            for (line, name, reason, fault), nodes in self._found.items()
        ]
        return sorted(rows, key=lambda row: (-row.macs, -row.bytes))


def _on_chip(graphs: Sequence[fx.Graph], chip: Chip) -> tuple[OnChip, ...]:
    """A row for each kind, the one that takes longest first."""
    groups: dict[str, list[Operation]] = defaultdict(list)
    counts: Counter[str] = Counter()
    for graph in graphs:
        nodes = kernel_ops(graph)
        kinds = {node.name: _kind(node) for node in nodes}
        counts.update(kinds[node.name] for node in nodes if node.is_operation and not node.is_view)
        for op in operations(graph):
            groups[kinds[op.name.removeprefix(RESULT)]].append(op)
    least = {kind: limit(ops, chip) for kind, ops in groups.items()}
    total = sum(found.cycles for found in least.values()) or 1
    rows = [
        OnChip(
            kind,
            counts[kind],
            sum(op.gemm.macs for op in ops if op.gemm is not None),
            sum(op.dram_bytes for op in ops),
            least[kind].cycles,
            least[kind].resource if least[kind].cycles else "",
            least[kind].cycles / total,
        )
        for kind, ops in groups.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.cycles, -row.macs, -row.count)))


def _kind(node: KernelOp) -> str:
    """What an operation is counted with: inputs and constants with who reads them first, views with what they show."""
    if node.kind == INPUT:
        reader = next((user for user in node.users if user.kind != OUTPUT), None)
        return MOVED if reader is None else _reader(reader)
    maker = node.maker
    if not maker.is_operation or maker.is_view or maker.copies:
        return MOVED
    return maker.kind


def _reader(node: KernelOp) -> str:
    """The kind of the operation that reads a value, behind views of it."""
    while node.is_view or node.kind == OUTPUT:
        following = next((user for user in node.users if user.kind != OUTPUT), None)
        if following is None:
            return MOVED
        node = following
    return MOVED if node.copies else node.kind


def _folded(nodes: Iterable[fx.Node]) -> tuple[Folded, ...]:
    groups: dict[str, list[fx.Node]] = defaultdict(list)
    for node in nodes:
        groups[operation(node)].append(node)
    rows = [Folded(name, len(found), sum(map(_bytes, found))) for name, found in groups.items()]
    return tuple(sorted(rows, key=lambda row: (-row.count, row.operator)))


def _macs(node: fx.Node) -> int:
    """By PyTorch's own count, which takes two for each."""
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda operand: operand.meta.get("val"))
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            node.target(*args, **kwargs)  # type: ignore[operator]  # on fake tensors
    except Exception:  # an operand that is no tensor, a graph of its own
        return 0
    return counter.get_total_flops() // 2


def _bytes(node: fx.Node) -> int:
    value = node.meta.get("val")
    values = value if isinstance(value, (tuple, list)) else (value,)
    return sum(_size(v.shape, v.dtype) for v in values if isinstance(v, Tensor))


def _size(shape: Sequence[Any], dtype: torch.dtype) -> int:
    """Bytes; 0 where a size depends on data."""
    return prod(shape) * dtype.itemsize if all(isinstance(size, int) for size in shape) else 0
