"""The calls: every sample of PyTorch's `op_db` and `module_db` (torch.testing._internal), and the same with odder
arguments."""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """One call: a function of (args, kwargs), made anew for each side.

    `undefined`: its elements are memory as it was. `gradients`: autograd follows, and its answers are compared, too.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    undefined: bool = False
    gradients: bool = False


@functools.cache
def _operators() -> dict[str, Any]:
    from torch.testing._internal.common_methods_invocations import op_db

    return {op.formatted_name: op for op in op_db}


@functools.cache
def _modules() -> dict[str, Any]:
    from torch.testing._internal.common_modules import module_db

    return {module.name: module for module in module_db}


def names() -> list[str]:
    """`op add`, `eval nn.Linear`, `train nn.Linear`."""
    return [f"{kind} {name}" for kind in KINDS for name in (_modules() if kind in MODES else _operators())]


def cases(name: str, dtype: torch.dtype) -> Iterator[Case]:
    """The samples of one name and type."""
    kind, _, own = name.partition(" ")
    return _of_module(own, dtype, *MODES[kind]) if kind in MODES else _of_operator(own, dtype, VARIANTS[kind])


def _of_operator(name: str, dtype: torch.dtype, variant: "Variant") -> Iterator[Case]:
    op = _operators()[name]
    odd, gradients = (variant is VARIANTS[kind] for kind in ("odd", "gradients"))
    if dtype not in (op.supported_backward_dtypes("cpu") if gradients else op.supported_dtypes("cpu")) or (
        odd and dtype not in ODD
    ):
        return
    for sample in op.sample_inputs("cpu", dtype, requires_grad=gradients):
        function, sample = variant(op, sample)
        if function is not None:
            yield Case(
                function, (sample.input, *sample.args), sample.kwargs, "empty" in name or "resize" in name, gradients
            )


def _of_module(name: str, dtype: torch.dtype, training: bool, gradients: bool) -> Iterator[Case]:
    info = _modules()[name]
    if dtype not in info.supported_dtypes("cpu"):
        return
    for given in info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=gradients, training=training):
        if given.forward_input is not None:
            module = (
                info.module_cls(*given.constructor_input.args, **given.constructor_input.kwargs)
                .to(dtype)
                .train(training)
            )
            yield Case(module, tuple(given.forward_input.args), dict(given.forward_input.kwargs), False, gradients)


def _strided(x: Any) -> Any:
    """The same tensor, its first dimension innermost in memory, with gaps between the elements."""
    from torch.testing._internal.common_utils import noncontiguous_like

    if not isinstance(x, Tensor) or x.layout is not torch.strided:
        return x
    found: Tensor = noncontiguous_like(x.transpose(0, -1).contiguous()).transpose(0, -1) if x.dim() else x  # type: ignore[no-untyped-call]
    return found


def _odd(x: Any) -> Any:
    """Every third element is one that arithmetic treats differently: infinite, NaN, a zero of either sign, the least or
    largest number."""
    if not isinstance(x, Tensor) or x.dtype not in ODD or x.is_sparse or not x.numel():
        return x
    values = torch.tensor(ODD[x.dtype], dtype=x.dtype)
    flat = x.detach().clone(memory_format=torch.contiguous_format).view(-1)
    flat[::3] = values[torch.arange(len(flat[::3])) % len(values)]
    return flat.view(x.shape)


def _floats(dtype: torch.dtype) -> list[float]:
    info = torch.finfo(dtype)
    return [
        float("nan"),
        -0.0,
        float("inf"),
        info.max,
        -0.5,
        info.smallest_normal / 2,
        float("-inf"),
        0.0,
        info.min,
        2.5,
        -1.0,
    ]


def _integers() -> list[int]:
    info = torch.iinfo(torch.int32)
    return [info.max, 0, -1, info.min + 1, 1 << 24 | 1, info.max >> 1]


ODD: Mapping[torch.dtype, list[Any]] = {
    **{dtype: _floats(dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)},
    **dict.fromkeys((torch.int32, torch.int64), _integers()),  # of 64 bits, too: more falls back at once
}
Variant = Callable[[Any, Any], tuple[Callable[..., Any] | None, Any]]
VARIANTS: Mapping[str, Variant] = {
    "op": lambda op, sample: (op.op, sample),
    "strided": lambda op, sample: (op.op, sample.transform(_strided)),
    "odd": lambda op, sample: (op.op, sample.transform(_odd)),
    "in-place": lambda op, sample: (op.inplace_variant, sample),
    "gradients": lambda op, sample: (op.op, sample),
}
MODES = {
    "eval": (False, False),
    "train": (True, False),
    "eval+gradients": (False, True),
    "train+gradients": (True, True),
}  # training, gradients
KINDS: Mapping[str, str] = {
    "op": "operators",
    "strided": "with arguments that are not contiguous",
    "odd": "with NaN, infinities and extreme numbers",
    "in-place": "in place",
    "gradients": "with gradients",
    "eval": "modules in eval mode",
    "train": "modules in train mode",
    "eval+gradients": "modules in eval mode with gradients",
    "train+gradients": "modules in train mode with gradients",
}
