"""Editing an FX graph: new nodes get their value's shape, source line, origins and dependence at once."""

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode

from compiler.source import UNKNOWN

aten = torch.ops.aten
KNOWN_LIMIT = 1 << 22  # elements; larger constants are not evaluated while compiling


class Depends(IntEnum):
    """What a node's value depends on. Only what depends on inputs is computed by the chip."""

    NOTHING = 0
    WEIGHTS = 1
    INPUTS = 2


class Editor:
    """Edits one graph on behalf of one pass."""

    def __init__(self, gm: fx.GraphModule, name: str) -> None:
        self.gm, self.graph, self.name = gm, gm.graph, name
        self.mode = fake_mode(gm.graph)
        self._values: dict[fx.Node, Tensor | None] = {}
        for node in self.graph.nodes:
            node.meta["depends"] = _depends(node)

    def emit(self, at: fx.Node, target: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """A new call before `at`, on behalf of `at`: same source line and origins."""
        with self.graph.inserting_before(at):
            node = self.graph.create_node("call_function", target, args, kwargs, name=short_name(target))
        node.meta = {"source": at.meta.get("source", UNKNOWN), "origins": at.meta.get("origins", ()), "passes": (self.name,)}
        node.meta["val"] = evaluate_fake(self.mode, node)
        node.meta["depends"] = _depends(node)
        return node

    def replace(self, old: fx.Node, new: fx.Node) -> None:
        """Let `new` be read wherever `old` was, and forget `old`."""
        if new is old:
            return
        old.replace_all_uses_with(new)
        if new.op == "call_function":
            _inherit(new, old, self.name)
        self.graph.erase_node(old)

    def update(self, node: fx.Node, *args: Any) -> None:
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
            x = x.args[0]  # type: ignore[assignment]
        return x if list(shape_of(x)) == shape else self.emit(at, aten.reshape.default, x, shape)

    def permute(self, at: fx.Node, x: fx.Node, dims: Iterable[int]) -> fx.Node:
        """`x` with its dimensions in another order; permutes of permutes become one."""
        order = list(dims)
        if x.target is aten.permute.default:
            inner: Any = x.args[1]
            order = [inner[d] for d in order]
            x = x.args[0]  # type: ignore[assignment]
        return x if order == sorted(order) else self.emit(at, aten.permute.default, x, order)

    def swap_last(self, at: fx.Node, x: fx.Node) -> fx.Node:
        """`x` with its last two dimensions exchanged."""
        rank = len(shape_of(x))
        return self.permute(at, x, [*range(rank - 2), rank - 1, rank - 2])

    def expand(self, at: fx.Node, x: fx.Node, shape: Iterable[int]) -> fx.Node:
        """`x` broadcast to `shape`; expands of expands become one."""
        shape = list(shape)
        if x.target is aten.expand.default and len(shape_of(x)) == len(shape):
            x = x.args[0]  # type: ignore[assignment]
        return x if list(shape_of(x)) == shape else self.emit(at, aten.expand.default, x, shape)

    def broadcast(self, at: fx.Node, x: fx.Node, shape: tuple[int, ...]) -> fx.Node:
        """`x` broadcast to `shape`, which may have more dimensions."""
        missing = len(shape) - len(shape_of(x))
        return self.expand(at, self.reshape(at, x, (*[1] * missing, *shape_of(x))) if missing else x, shape)

    def known(self, node: Any) -> Tensor | None:
        """The value of a node that depends on nothing (arange, masks of ones): evaluated while compiling."""
        if not isinstance(node, fx.Node) or node.meta["depends"] is not Depends.NOTHING:
            return None
        if node not in self._values:
            value = node.meta.get("val")
            small = isinstance(value, Tensor) and value.numel() <= KNOWN_LIMIT
            self._values[node] = self._evaluate(node) if small else None
        return self._values[node]

    def _evaluate(self, node: fx.Node) -> Tensor | None:
        if node.op == "placeholder":
            constant = node.meta.get("constant")
            return constant if isinstance(constant, Tensor) else None
        operands = {n: self.known(n) for n in node.all_input_nodes}
        if node.op != "call_function" or any(value is None for value in operands.values()):
            return None
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: operands[n])
        assert callable(node.target)
        result = node.target(*args, **kwargs)
        return result if isinstance(result, Tensor) else None

    def finish(self) -> fx.GraphModule:
        """Drop what nobody reads."""
        self.graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
        return self.gm


def fake_mode(graph: fx.Graph) -> FakeTensorMode:
    """The mode in which this graph's fake values live."""
    for node in graph.nodes:
        mode = getattr(node.meta.get("val"), "fake_mode", None)
        if mode is not None:
            assert isinstance(mode, FakeTensorMode)
            return mode
    return FakeTensorMode()


def evaluate_fake(mode: FakeTensorMode, node: fx.Node) -> Any:
    """Shape and type of a node's result, from those of its operands."""
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
    assert callable(node.target)
    with mode, torch.no_grad():
        return node.target(*args, **kwargs)


def shape_of(node: Any) -> tuple[int, ...]:
    """Shape of a node's value; a Python number has none."""
    return tuple(node.meta["val"].shape) if isinstance(node, fx.Node) else ()


def dtype_of(node: fx.Node) -> torch.dtype:
    dtype = node.meta["val"].dtype
    assert isinstance(dtype, torch.dtype)
    return dtype


def is_static(node: Any) -> bool:
    """Whether the value does not depend on the user's inputs: then it is computed when the image is packed."""
    return not isinstance(node, fx.Node) or node.meta["depends"] is not Depends.INPUTS


def is_half(dtype: torch.dtype) -> bool:
    return dtype in (torch.bfloat16, torch.float16)


def _depends(node: fx.Node) -> Depends:
    if node.op == "placeholder":
        if "constant" in node.meta:
            return Depends.NOTHING
        return Depends.WEIGHTS if node.meta.get("weight") else Depends.INPUTS
    return max((n.meta["depends"] for n in node.all_input_nodes), default=Depends.NOTHING)


def _inherit(new: fx.Node, old: fx.Node, name: str) -> None:
    merged = dict.fromkeys((*new.meta.get("origins", ()), *old.meta.get("origins", ())))
    new.meta["origins"] = tuple(merged)
    if name not in new.meta.get("passes", ()):
        new.meta["passes"] = (*new.meta.get("passes", ()), name)


def short_name(target: Any) -> str:
    """`add` for torch.ops.aten.add.Tensor; views of any kind are called what they become."""
    name = str(getattr(target, "_opname", getattr(target, "__name__", "node")))
    return {"reshape": "view", "getitem": "part", "_to_copy": "cast"}.get(name, name)
