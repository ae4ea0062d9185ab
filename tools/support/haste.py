"""What PyTorch does at every compilation though it changes nothing: most of the time that a small graph takes.

`run_decompositions` looks for all composite operators (some 600) and gives each kernels of its own, which it takes away afterwards:
here the search is remembered, and so are the kernels. Dynamo flushes the caches of the processor to measure its guards.
"""

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch._dynamo import guards
from torch._export import utils
from torch._subclasses.fake_impls import op_implementations_dict
from torch.export import exported_program


def hasten() -> None:
    """For the rest of this process."""
    guards.profile_guard_manager = lambda *_: 0.0  # type: ignore[assignment]
    exported_program._collect_all_valid_cia_ops = functools.cache(utils._collect_all_valid_cia_ops)  # type: ignore[attr-defined]
    plain = exported_program._override_composite_implicit_decomp
    kernels: dict[Any, Mapping[Any, Any]] = {}
    fakes: dict[Any, Any] = {}
    made_for: dict[Any, Any] = {}

    @contextmanager
    def remembered(table: Mapping[Any, Any]) -> Iterator[None]:
        if table != made_for:
            before = dict(op_implementations_dict)
            with plain(table):  # type: ignore[no-untyped-call]
                made_for.clear(), kernels.clear(), fakes.clear()
                made_for.update(table)
                kernels.update((op, dict(op.py_kernels)) for op in table)
                fakes.update((op, rule) for op, rule in op_implementations_dict.items() if op not in before)
                yield
            return
        saved = {op: dict(op.py_kernels) for op in kernels}
        _put(kernels)
        op_implementations_dict.update(fakes)
        try:
            yield
        finally:
            _put(saved)
            for op in fakes:
                op_implementations_dict.pop(op, None)

    exported_program._override_composite_implicit_decomp = remembered  # type: ignore[assignment]


def _put(kernels: Mapping[torch._ops.OpOverload, Mapping[Any, Any]]) -> None:
    for op, own in kernels.items():
        op.py_kernels.clear()
        op.py_kernels.update(own)
        op._dispatch_cache.clear()
