"""What a tensor, and a captured graph, must be before the compiler looks at it."""

import torch
from torch import Tensor, fx

from compiler.graph.manager import unsupported
from compiler.types import ACCEPTED
from isa.errors import CompileError, UnsupportedError

_ADVICE = {
    torch.float64: "convert it to float32 (model.float())",
    torch.complex64: "the chip has no complex arithmetic",
    torch.complex128: "the chip has no complex arithmetic",
}

_BLOCK = 1 << 17  # elements


def check_layout(what: str, tensor: Tensor) -> None:
    """Raises UnsupportedError for a tensor that is not plain memory of the host; `what` names the tensor."""
    if tensor.device.type != "cpu":
        raise UnsupportedError(f"{what} is on {tensor.device}", hint="the emulated chip takes CPU tensors: call .cpu()")
    if tensor.layout is not torch.strided:
        raise UnsupportedError(f"{what} is sparse ({tensor.layout})", hint="call .to_dense()")
    if tensor.is_quantized:
        raise UnsupportedError(f"{what} is a quantized tensor of PyTorch", hint="use a float or integer type")


def check_tensor(what: str, tensor: Tensor) -> None:
    """Raises UnsupportedError for a layout or type that the chip does not have; `what` names the tensor."""
    check_layout(what, tensor)
    if tensor.dtype not in ACCEPTED:
        name = str(tensor.dtype).removeprefix("torch.")
        raise UnsupportedError(
            f"{what} is {name}, which the chip does not have",
            hint=_ADVICE.get(tensor.dtype, "use a float or integer type"),
        )


def check_graph(graph: fx.Graph) -> None:
    """Raises UnsupportedError for what no pass must see in a captured graph."""
    for node in graph.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder" and isinstance(value, Tensor):
            check_tensor(f"{'weight' if node.meta.get('weight') else 'input'} '{node.name}'", value)
        if isinstance(value, Tensor) and any(not isinstance(size, int) for size in value.shape):
            raise unsupported(
                node, f"has a size that is not fixed: {list(value.shape)} (export the model without dynamic_shapes)"
            )
        if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            raise unsupported(node, "gives a number that depends on data")
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            raise unsupported(node, "holds graphs of its own, which the compiler cannot look into")
        if node.op == "call_function" and "val" not in node.meta:
            raise unsupported(node, "checks a value while the model runs, which the chip cannot")


def check_finite(name: str, tensor: Tensor, quantized: bool) -> None:
    """Raises CompileError for a weight that holds NaN, which only a broken checkpoint does, or, if it is to be
    quantized, Inf: its row would have no scale.

    An infinite weight that is not quantized (a mask) is as good as any other number.
    """
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return
    flat = tensor.detach().reshape(-1)
    parts = (flat[first : first + _BLOCK] for first in range(0, flat.numel(), _BLOCK))  # see compiler.packing
    extremes = [extreme for part in parts for extreme in torch.aminmax(part)]  # one pass, and NaN comes through both
    found = torch.stack(extremes)
    if bool(found.isnan().any()) or (quantized and not bool(torch.isfinite(found).all())):
        bad = int((~torch.isfinite(tensor)).sum()) if quantized else int(tensor.isnan().sum())
        raise CompileError(f"weight '{name}' holds {bad} values that are NaN or infinite", hint="repair the checkpoint")
