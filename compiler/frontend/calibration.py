"""What calibration has found out, and the marks that it leaves in a captured graph.

    before   %y = linear(%x, %w, %b)
    after    %z = llmchip.calibrated(%x, %col, %absmax); %v = div(%w, %col); %y = linear(%z, %v, %b)

`col` are SmoothQuant's multipliers of columns (arXiv 2211.10438): 1 / s with s = max|x|^alpha / max|w|^(1 - alpha) for
each column, so that y stays what it was and rows of x are easier to quantize. `absmax` is the range of a static
quantization, of x * col. Both are weights of the captured model like any others: hashes, caches and images know them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, fx
from torch.fx.node import Argument, Target

from compiler.frontend.capture import Captured, Weight
from compiler.graph.arguments import tensor
from compiler.graph.editor import Editor, aten, forget_forms
from compiler.graph.fx_copy import copied, new_node
from compiler.graph.source import UNKNOWN
from compiler.ops import library as ops
from compiler.quantization import QUANTIZED_ROWS, STATIC, QuantConfig
from isa.errors import CompileError

_OPERANDS: Mapping[
    Target, tuple[str, str, int]
] = {  # of products with weights: what is multiplied, the weights, and their dimension k
    aten.linear.default: ("input", "weight", -1),
    aten.addmm.default: ("mat1", "mat2", 0),
    aten.mm.default: ("self", "mat2", 0),
}


@dataclass(frozen=True)
class Range:
    """Largest magnitudes of a layer, float32 [K] for each column: of its inputs, and of the weights of all layers that
    take the same input. `group` names the first of these."""

    group: str
    inputs: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Calibration:
    """What the float model's layers have seen, by the paths of their modules, and in how many calls of the model."""

    ranges: Mapping[str, Range]
    calls: int

    def find(self, module: str) -> Range | None:
        """That of a module as a captured graph names it, which may begin further out or further in than the model."""
        if module in self.ranges:
            return self.ranges[module]
        near = [name for name in self.ranges if module.endswith(f".{name}") or (module and name.endswith(f".{module}"))]
        return self.ranges[near[0]] if len(near) == 1 else None

    @cached_property
    def digest(self) -> str:
        """Equal for equal calibrations."""
        found = hashlib.sha256()
        for name, known in self.ranges.items():
            found.update(f"{name} {known.group} {len(known.inputs)}\n".encode())
            for values in (known.inputs, known.weights):
                found.update(values.numpy().tobytes())
        return found.hexdigest()

    def __repr__(self) -> str:
        return f"Calibration({len(self.ranges)} layers, {self.calls} calls)"


def module_of(node: fx.Node) -> str:
    """The path of the module that called a captured operation; Dynamo begins it with the name of a variable."""
    path = str(node.meta.get("module") or "")
    return path.rpartition("]")[2].lstrip(".") if path.startswith("L[") else path


def schemes_of(graph: fx.Graph, config: QuantConfig) -> dict[str, str]:
    """The schemes of captured operations that have another than the model, by the names that passes know them by."""
    if not config.pairs:
        return {}
    return {
        name: scheme
        for node in graph.nodes
        if node.op == "call_function" and (scheme := config.of(module_of(node))) != config.scheme
        for name in node.meta.get("origins", (node.name,))
    }


def smoothing(found: Range, alpha: float) -> Tensor:
    """The multipliers of columns, float32 [K]; 1 where inputs or weights are all zero."""
    x, w = found.inputs.to(torch.float64), found.weights.to(torch.float64)
    usable = (x > 0) & (w > 0) & torch.isfinite(x) & torch.isfinite(w)
    ones = torch.ones_like(x)
    x, w = torch.where(usable, x, ones), torch.where(usable, w, ones)
    return (w.pow(1 - alpha) / x.pow(alpha)).to(torch.float32)


def marked(captured: Captured, config: QuantConfig, calibration: Calibration | None) -> Captured:
    """The captured model with what its quantization takes from a calibration. Raises CompileError where there is none,
    and for a layer with a static range that it does not know."""
    if not config.calibrated:
        return captured
    if calibration is None:
        raise CompileError(
            f"quantization '{config}' takes a calibration",
            hint="calibration=INPUTS (llmchip.compile), calibration=llmchip.calibrate(model, INPUTS) or --calibration FILE",
        )
    marker = _Marker(captured, config, calibration)
    for node in list(marker.gm.graph.nodes):
        if node.target in _OPERANDS:
            marker.mark(node)
    return marker.result()


class _Marker:
    """A copy of a captured model that gets its marks."""

    def __init__(self, captured: Captured, config: QuantConfig, calibration: Calibration) -> None:
        self.gm = copied(captured.gm, "Calibrated")
        self._captured, self._config, self._calibration = captured, config, calibration
        self._editor = Editor(self.gm, "calibrated")
        self._tensors: dict[str, Tensor] = {}
        self._weights: dict[str, tuple[Weight, fx.Node]] = {}

    def mark(self, node: fx.Node) -> None:
        """A product with weights."""
        module = module_of(node)
        scheme = self._config.of(module)
        name, weights, dim = _OPERANDS[node.target]
        x, w = tensor(node, name), tensor(node, weights)
        if scheme not in QUANTIZED_ROWS or not w.meta.get("weight"):
            return
        found = self._calibration.find(module)
        k = w.meta["val"].shape[dim]
        if found is not None and len(found.inputs) != k:
            found = None
        if scheme == STATIC and found is None:
            raise CompileError(
                f"the calibration has seen nothing of the layer '{module}'", node.name,
                f"give it another scheme: overrides={{'{module}': 'w8a8-dynamic'}}",
            )  # fmt: skip
        if found is None:
            return
        alpha, col, absmax = self._config.smoothing, None, None
        largest = found.inputs
        if alpha is not None:
            multipliers = smoothing(found, alpha)
            largest = largest * multipliers
            col = self._weight(f"{found.group}.smoothing", multipliers)
        if scheme == STATIC:
            absmax = self._weight(f"{found.group}.range", largest.amax().reshape(1))
        if col is None and absmax is None:
            return
        marked = self._emit(node, ops.calibrated, x, col, absmax)
        changes = {x: marked}
        if col is not None:
            changes[w] = self._divided(
                node, w, col if dim == -1 else self._emit(node, aten.reshape.default, col, [k, 1])
            )
        node.args = tuple(changes.get(given, given) if isinstance(given, fx.Node) else given for given in node.args)

    def _divided(self, node: fx.Node, w: fx.Node, col: fx.Node) -> fx.Node:
        kind = w.meta["val"].dtype
        wide = w if kind is torch.float32 else self._emit(node, aten._to_copy.default, w, dtype=torch.float32)
        divided = self._emit(node, aten.div.Tensor, wide, col)
        return divided if kind is torch.float32 else self._emit(node, aten._to_copy.default, divided, dtype=kind)

    def _emit(self, node: fx.Node, target: Target, *args: Argument, **kwargs: Argument) -> fx.Node:
        made = self._editor.emit(node, target, *args, **kwargs)
        if "module" in node.meta:
            made.meta["module"] = node.meta["module"]
        return made

    def _weight(self, name: str, value: Tensor) -> fx.Node:
        """A placeholder for a tensor of the calibration, behind all others; layers of the same input share it."""
        if name not in self._weights:
            holder = f"calibrated_{len(self._weights)}"
            last = self.gm.graph.find_nodes(op="placeholder")[-1]
            with self.gm.graph.inserting_after(last):
                node = new_node(self.gm.graph, "placeholder", holder, (), {}, holder)
            with self._editor.mode:
                fake = torch.empty(value.shape, dtype=value.dtype)
            node.meta = {
                "val": fake, "weight": True, "depends": 1, "source": UNKNOWN,
                "origins": (holder,), "passes": (),
            }  # fmt: skip
            self._weights[name] = Weight(name, holder, "buffer"), node
            self._tensors[name] = value
        return self._weights[name][1]

    def result(self) -> Captured:
        more = tuple(weight for weight, _ in self._weights.values())
        self.gm.recompile()
        forget_forms(self.gm.graph)
        return replace(
            self._captured,
            gm=self.gm,
            weights=(*self._captured.weights, *more),
            tensors={**self._captured.tensors, **self._tensors},
        )
