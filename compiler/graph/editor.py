"""Editing an FX graph: new nodes get their value's shape, source line, origins and dependence at once."""

from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.node import Argument, Target

from compiler.graph.arguments import Operand, integers, tensor
from compiler.graph.fx_copy import new_node
from compiler.graph.source import UNKNOWN, SourceLine

aten = torch.ops.aten
KNOWN_LIMIT = 1 << 22  # elements; larger constants are not evaluated while compiling


class Depends(IntEnum):
    """What a node's value depends on. Only what depends on inputs is computed by the chip."""

    NOTHING = 0
    WEIGHTS = 1
    INPUTS = 2


@dataclass(frozen=True)
class Provenance:
    """Where new nodes come from: a line of the model, and captured nodes, the one whose work it is first."""

    source: SourceLine
    origins: tuple[str, ...]


def provenance(*nodes: fx.Node) -> Provenance:
    """That of a node which does the work of the first of these, with the others folded in."""
    origins = dict.fromkeys(name for node in nodes for name in node.meta.get("origins", ()))
    return Provenance(nodes[0].meta.get("source", UNKNOWN), tuple(origins))


class Editor:
    """Edits one graph on behalf of one pass."""

    def __init__(self, gm: fx.GraphModule, name: str) -> None:
        self.gm, self.graph, self.name = gm, gm.graph, name
        self.mode = fake_mode(gm.graph)
        self._values: dict[fx.Node, Tensor | None] = {}
        self._behalf: Provenance | None = None
        for node in self.graph.nodes:
            node.meta["depends"] = _depends(node)

    def emit(self, at: fx.Node, target: Target, *args: Argument, **kwargs: Argument) -> fx.Node:
        """A new call before `at`, on behalf of `at` unless `on_behalf_of` says otherwise: same source line and
        origins."""
        with self.graph.inserting_before(at):
            node = new_node(self.graph, "call_function", target, args, kwargs, short_name(target))
        behalf = self._behalf or provenance(at)
        node.meta = {"source": behalf.source, "origins": behalf.origins, "passes": (self.name,)}
        node.meta["val"] = evaluate_fake(self.mode, node)
        node.meta["depends"] = _depends(node)
        return node

    @contextmanager
    def on_behalf_of(self, behalf: Provenance | None) -> Iterator[None]:
        """What is emitted meanwhile comes from there; None: from the node before which it stands."""
        before, self._behalf = self._behalf, behalf
        try:
            yield
        finally:
            self._behalf = before

    def replace(self, old: fx.Node, new: fx.Node) -> None:
        """Let `new` be read wherever `old` was, and forget `old`."""
        if new is old:
            return
        old.replace_all_uses_with(new)
        if new.op == "call_function":
            _inherit(new, old, self.name)
        self.graph.erase_node(old)

    def update(self, node: fx.Node, *args: Argument) -> None:
        """Change the operands of `node` in place."""
        node.args = args
        if self.name not in node.meta["passes"]:
            node.meta["passes"] += (self.name,)
        node.meta["depends"] = _depends(node)

    def cast(self, at: fx.Node, x: fx.Node, dtype: torch.dtype) -> fx.Node:
        """`x` in another type; `x` itself where it has that type."""
        return x if dtype_of(x) is dtype else self.emit(at, aten._to_copy.default, x, dtype=dtype)

    def reshape(self, at: fx.Node, x: fx.Node, shape: Iterable[int]) -> fx.Node:
        """`x` in another shape; reshapes of reshapes become one."""
        shape = list(shape)
        while x.target is aten.reshape.default:
            x = tensor(x, 0)
        return x if list(shape_of(x)) == shape else self.emit(at, aten.reshape.default, x, shape)

    def permute(self, at: fx.Node, x: fx.Node, dims: Iterable[int]) -> fx.Node:
        """`x` with its dimensions in another order; permutes of permutes become one."""
        order = list(dims)
        if x.target is aten.permute.default:
            inner = integers(x, 1)
            order = [inner[d] for d in order]
            x = tensor(x, 0)
        return x if order == sorted(order) else self.emit(at, aten.permute.default, x, order)

    def swap_last(self, at: fx.Node, x: fx.Node) -> fx.Node:
        """`x` with its last two dimensions exchanged."""
        rank = len(shape_of(x))
        return self.permute(at, x, [*range(rank - 2), rank - 1, rank - 2])

    def expand(self, at: fx.Node, x: fx.Node, shape: Iterable[int]) -> fx.Node:
        """`x` broadcast to `shape`; expands of expands become one."""
        shape = list(shape)
        if x.target is aten.expand.default and len(shape_of(x)) == len(shape):
            x = tensor(x, 0)
        return x if list(shape_of(x)) == shape else self.emit(at, aten.expand.default, x, shape)

    def broadcast(self, at: fx.Node, x: fx.Node, shape: tuple[int, ...]) -> fx.Node:
        """`x` broadcast to `shape`, which may have more dimensions."""
        missing = len(shape) - len(shape_of(x))
        return self.expand(at, self.reshape(at, x, (*[1] * missing, *shape_of(x))) if missing else x, shape)

    def known(self, node: Argument) -> Tensor | None:
        """The value of a node that depends on nothing (arange, masks of ones): evaluated while compiling."""
        return evaluate(node, self._values) if isinstance(node, fx.Node) else None

    def finish(self) -> fx.GraphModule:
        """Drop what nobody reads. One sweep from the end; the manager's verifier looks at the order of the nodes."""
        for node in reversed(self.graph.nodes):
            if not node.users and node.op not in ("placeholder", "output"):
                self.graph.erase_node(node)
        return self.gm


def evaluate(node: fx.Node, values: dict[fx.Node, Tensor | None] | None = None) -> Tensor | None:
    """The value of a node that depends on nothing and is not too large; `values` remembers what was evaluated."""
    values = {} if values is None else values
    if node.meta["depends"] is not Depends.NOTHING:
        return None
    if node not in values:
        value = node.meta.get("val")
        small = isinstance(value, Tensor) and value.numel() <= KNOWN_LIMIT
        values[node] = _evaluate(node, values) if small else None
    return values[node]


def _evaluate(node: fx.Node, values: dict[fx.Node, Tensor | None]) -> Tensor | None:
    """None also for what PyTorch refuses to compute: it does so again when the program runs."""
    if node.op == "placeholder":
        constant = node.meta.get("constant")
        return constant if isinstance(constant, Tensor) else None
    operands = {n: evaluate(n, values) for n in node.all_input_nodes}
    if node.op != "call_function" or any(value is None for value in operands.values()):
        return None
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: operands[n])
    assert callable(node.target)
    try:
        result = node.target(*args, **kwargs)
    except (ArithmeticError, RuntimeError, ValueError):
        return None
    return result if isinstance(result, Tensor) else None


def fake_mode(graph: fx.Graph) -> FakeTensorMode:
    """The mode in which this graph's fake values live."""
    for node in graph.nodes:
        mode = getattr(node.meta.get("val"), "fake_mode", None)
        if mode is not None:
            assert isinstance(mode, FakeTensorMode)
            return mode
    return FakeTensorMode()


def evaluate_fake(mode: FakeTensorMode, node: fx.Node) -> object:
    """Shape and type of a node's result, from those of its operands. Raises what PyTorch raised, again for every equal
    node.

    Calls of one operation on operands of equal form have results of equal form, so PyTorch is asked once for each:
    identical layers cost a look-up. What it said is kept with the mode, as are the fake tensors themselves; nothing
    ever writes to those.
    """
    known: dict[Hashable, object] = vars(mode).setdefault("_llmchip_forms", {})
    key = (node.target, _form(node.args), _form(node.kwargs))
    try:
        if key not in known:
            known[key] = _answer(mode, node)
    except TypeError:  # an argument that cannot be hashed
        return _ask(mode, node)
    answer = known[key]
    if isinstance(answer, Exception):
        raise answer
    return answer


def _answer(mode: FakeTensorMode, node: fx.Node) -> object:
    """What PyTorch says; also that it refuses, as it does a view that its operand's strides do not allow."""
    try:
        return _ask(mode, node)
    except (RuntimeError, ValueError) as error:
        return error.with_traceback(None)


def forget_forms(graph: fx.Graph) -> None:
    """Forget what `evaluate_fake` has learnt: the mode may be the user's, and outlive the compiler's graphs."""
    vars(fake_mode(graph)).pop("_llmchip_forms", None)


def _ask(mode: FakeTensorMode, node: fx.Node) -> object:
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
    assert callable(node.target)
    with mode, torch.no_grad():
        return node.target(*args, **kwargs)


def _form(value: object) -> Hashable:
    """All that the form of a result depends on, hashable. Numbers carry their type, because 1 == 1.0 == True."""
    if isinstance(value, fx.Node):
        return _form(value.meta["val"])
    if isinstance(value, Tensor):
        return tuple(value.shape), value.stride(), value.dtype
    if isinstance(value, (tuple, list)):
        return tuple(map(_form, value))
    if isinstance(value, dict):
        return tuple((name, _form(item)) for name, item in value.items())
    return type(value), value


def shape_of(node: Argument) -> tuple[int, ...]:
    """Shape of a node's value; a Python number has none."""
    return tuple(node.meta["val"].shape) if isinstance(node, fx.Node) else ()


def dtype_of(node: fx.Node) -> torch.dtype:
    dtype = node.meta["val"].dtype
    assert isinstance(dtype, torch.dtype)
    return dtype


def common_type(a: Operand, b: Operand) -> torch.dtype:
    """The type in which PyTorch computes with two operands, tensors or numbers."""
    a, b = (value.meta["val"] if isinstance(value, fx.Node) else value for value in (a, b))
    return torch.result_type(a, b)


def is_static(node: Argument) -> bool:
    """Whether the value does not depend on the user's inputs: then it is computed when the image is packed."""
    return not isinstance(node, fx.Node) or node.meta["depends"] is not Depends.INPUTS


def is_half(dtype: torch.dtype) -> bool:
    return dtype in (torch.bfloat16, torch.float16)


def _depends(node: fx.Node) -> Depends:
    if node.op == "placeholder":
        if "constant" in node.meta:
            return Depends.NOTHING
        return Depends.WEIGHTS if node.meta.get("weight") else Depends.INPUTS
    return strongest(node)


def strongest(node: fx.Node, default: Depends = Depends.NOTHING) -> Depends:
    """The most that an operand depends on; `default` without operands."""
    found = [operand.meta["depends"] for operand in node.all_input_nodes]
    return max(found) if found else default


def _inherit(new: fx.Node, old: fx.Node, name: str) -> None:
    merged = dict.fromkeys((*new.meta.get("origins", ()), *old.meta.get("origins", ())))
    new.meta["origins"] = tuple(merged)
    if name not in new.meta.get("passes", ()):
        new.meta["passes"] = (*new.meta.get("passes", ()), name)


def short_name(target: Target) -> str:
    """`add` for torch.ops.aten.add.Tensor; views of any kind are called what they become."""
    name = str(getattr(target, "_opname", getattr(target, "__name__", "node")))
    return {"reshape": "view", "getitem": "part", "_to_copy": "cast"}.get(name, name)
