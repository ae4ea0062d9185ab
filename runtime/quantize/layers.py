"""The linear layers of a model, each alone in each scheme: by the compiler's own graph, run by PyTorch."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compiler.frontend.calibration import Calibration, marked
from compiler.frontend.capture import Captured, capture
from compiler.graph.fx_copy import as_written
from compiler.lower import lower
from compiler.options import Options
from compiler.pipeline import finish
from compiler.quantization import QuantConfig
from emulator.timing.simulate import simulate
from isa.chip import Chip


@dataclass(frozen=True)
class Samples:
    """One batch of inputs, of which the first `count` samples count; `mask` [batch, length] says which positions do."""

    inputs: Mapping[str, Tensor]
    count: int
    mask: Tensor | None

    def cosines(self, ours: Tensor, theirs: Tensor) -> list[float]:
        """Of each sample."""
        found = []
        for number in range(self.count):
            a, b = (x[number].detach().to(torch.float64) for x in (ours, theirs))
            if self.mask is not None and a.dim() > 1 and a.shape[0] == self.mask.shape[1]:
                a, b = (x[self.mask[number].bool()] for x in (a, b))
            norms = float(a.norm() * b.norm())
            found.append(float((a * b).sum()) / norms if norms else float(torch.equal(a, b)))
        return found


@dataclass
class Layers:
    """The float model on its samples, and its linear layers with what they see there. `number` is that of the model's
    output that counts."""

    model: nn.Module
    samples: Samples
    number: int
    calibration: Calibration
    inputs: dict[str, Tensor] = field(default_factory=dict)
    expected: Tensor = field(default_factory=lambda: torch.empty(0))
    _captured: dict[object, Captured] = field(default_factory=dict)

    def __post_init__(self) -> None:
        linear = {
            name: module
            for name, module in self.model.named_modules()
            if type(module) is nn.Linear and name in self.calibration.ranges
        }
        with _hooked({module: self._keep(name) for name, module in linear.items()}):
            self.expected = self.output()

    def _keep(self, name: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], _result: Tensor) -> None:
            self.inputs.setdefault(name, args[0].detach())

        return hook

    def output(self) -> Tensor:
        """The output that counts, in float but for what hooks replace."""
        with as_written():
            leaves = pytree.tree_leaves(self.model(**self.samples.inputs))
        found: Tensor = [leaf for leaf in leaves if isinstance(leaf, Tensor)][self.number]
        return found

    def cosines(self, name: str, config: QuantConfig) -> list[float]:
        """Of the model with this layer alone quantized."""
        layer, x = self.model.get_submodule(name), self.inputs[name]
        y = self._quantized(name, config)

        def hook(_module: nn.Module, args: tuple[Any, ...], result: Tensor) -> Tensor | None:
            same = args[0].shape == x.shape and torch.equal(args[0], x)
            return y.reshape(result.shape) if same else None  # a layer that is called again sees other inputs

        with _hooked({layer: hook}):
            return self.samples.cosines(self.output(), self.expected)

    def _quantized(self, name: str, config: QuantConfig) -> Tensor:
        rows = self.inputs[name].reshape(-1, self.inputs[name].shape[-1])
        captured = self._marked(name, rows, config)
        lowered = lower(captured, Options(quantization=str(config)))
        (result,) = lowered.run((rows,), lowered.pack_weights(captured.tensors))
        return result

    def _marked(self, name: str, rows: Tensor, config: QuantConfig) -> Captured:
        """The layer as a model of its own, called `layer`."""
        layer = self.model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        key = rows.shape, rows.dtype, tuple(layer.weight.shape), layer.bias is None
        if key not in self._captured:
            self._captured[key] = capture(Alone(layer).eval(), (rows,))
        own = {"layer.weight": layer.weight.detach()}
        own |= {} if layer.bias is None else {"layer.bias": layer.bias.detach()}
        captured = self._captured[key]
        captured = replace(captured, tensors={**captured.tensors, **own})
        return marked(captured, config, Calibration({"layer": self.calibration.ranges[name]}, self.calibration.calls))

    def cycles(self, name: str, config: QuantConfig, count: int, chip: Chip) -> int:
        """Predicted for this layer alone on the chip, with `count` rows."""
        rows = torch.zeros(count, self.inputs[name].shape[-1], dtype=self.inputs[name].dtype)
        options = Options(quantization=str(config))
        return simulate(finish(lower(self._marked(name, rows, config), options), options, chip).image()).cycles


class Alone(nn.Module):
    """One layer as a model."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y


@contextmanager
def _hooked(hooks: Mapping[nn.Module, Any]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def rows_of(captured: Captured, names: Sequence[str]) -> dict[str, int]:
    """How many rows each of these layers has in the captured model."""
    found: dict[str, int] = {}
    for node in captured.gm.graph.nodes:
        module = str(node.meta.get("module") or "")
        if module in names and node.target is torch.ops.aten.linear.default:
            found.setdefault(module, node.meta["val"].numel() // max(node.meta["val"].shape[-1], 1))
    return found


_aten = torch.ops.aten
_ACTIVATIONS = (_aten.scaled_dot_product_attention.default, _aten.matmul.default, _aten.bmm.default)
_CONVOLUTIONS = (
    *(getattr(_aten, f"conv{n}d").default for n in (1, 2, 3)),
    _aten.conv_transpose1d.default,
    _aten.conv_transpose2d.input,
    _aten.conv_transpose3d.input,
    _aten.convolution.default,
)


def others_of(captured: Captured, names: Sequence[str]) -> list[str]:
    """Modules of other products than linear layers of these `names`: attention, of two activations, and convolutions."""
    found = (
        str(node.meta.get("module") or "")
        for node in captured.gm.graph.nodes
        if node.target in _CONVOLUTIONS
        or (node.target in _ACTIVATIONS and not any(n.op == "placeholder" for n in node.all_input_nodes[:2]))
    )
    return [module for module in dict.fromkeys(found) if module and module not in names]
