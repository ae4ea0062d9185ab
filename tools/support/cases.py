"""The calls: every sample of PyTorch's `op_db` and `module_db` (torch.testing._internal)."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

KINDS = ("op", "eval", "train")  # operators; modules in either mode


@dataclass(frozen=True)
class Case:
    """One call: a function of (args, kwargs), made anew for each side. `undefined`: its elements are memory as it was."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    undefined: bool = False


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
    return [f"op {name}" for name in _operators()] + [f"{kind} {name}" for name in _modules() for kind in KINDS[1:]]


def cases(name: str, dtype: Any) -> Iterator[Case]:
    """The samples of one name and type."""
    kind, _, own = name.partition(" ")
    return _of_operator(own, dtype) if kind == "op" else _of_module(own, dtype, kind == "train")


def _of_operator(name: str, dtype: Any) -> Iterator[Case]:
    op = _operators()[name]
    if dtype in op.supported_dtypes("cpu"):
        for sample in op.sample_inputs("cpu", dtype):
            yield Case(op.op, (sample.input, *sample.args), sample.kwargs, "empty" in name or "resize" in name)


def _of_module(name: str, dtype: Any, training: bool) -> Iterator[Case]:
    info = _modules()[name]
    if dtype not in info.supported_dtypes("cpu"):
        return
    for given in info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=False, training=training):
        if given.forward_input is not None:
            module = info.module_cls(*given.constructor_input.args, **given.constructor_input.kwargs).to(dtype).train(training)
            yield Case(module, tuple(given.forward_input.args), dict(given.forward_input.kwargs))
