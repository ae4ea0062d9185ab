"""PyTorch's own cost of a capture, paid once: each `run_decompositions` walks all of its operators three times, which takes longer than a
small graph's compilation. The tables that it makes are the same every time, and are kept here. Nothing of the compiler is left out."""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch._subclasses import fake_impls
from torch.export import exported_program

Kernels = dict[Any, Any]


def keep_tables() -> None:
    """Once, before the first capture that should be quick. Operators must not be added to PyTorch afterwards."""
    torch: Any = exported_program
    if not isinstance(torch._collect_all_valid_cia_ops, functools._lru_cache_wrapper):
        torch._collect_all_valid_cia_ops = functools.cache(torch._collect_all_valid_cia_ops)
        torch._override_composite_implicit_decomp = _kept(torch._override_composite_implicit_decomp)


def _kept(override: Callable[[Mapping[Any, Any]], Any]) -> Callable[[Mapping[Any, Any]], Any]:
    """The context manager that tells PyTorch which operators to leave whole; from its second use for the same ones, by what it did."""
    made: dict[frozenset[tuple[Any, Any]], dict[Any, tuple[Kernels, Any]]] = {}

    @contextmanager
    def kept(table: Mapping[Any, Any]) -> Iterator[None]:
        key = frozenset(table.items())
        if key not in made:
            with override(table):
                made[key] = {op: (dict(op.py_kernels), fake_impls.op_implementations_dict.get(op)) for op in table}
                yield
            return
        before = {op: dict(op.py_kernels) for op in table}
        _install(made[key])
        try:
            yield
        finally:
            _install({op: (kernels, None) for op, kernels in before.items()})

    return kept


def _install(state: Mapping[Any, tuple[Kernels, Any]]) -> None:
    for op, (kernels, fake) in state.items():
        op.py_kernels.clear()
        op.py_kernels.update(kernels)
        op._dispatch_cache.clear()
        if fake is None:
            fake_impls.op_implementations_dict.pop(op, None)
        else:
            fake_impls.op_implementations_dict[op] = fake
