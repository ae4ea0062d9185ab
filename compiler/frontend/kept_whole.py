"""Operators of which PyTorch traces something else than they compute: while a capture of ours runs they stay whole, so
that they are refused by name, and run in PyTorch.

    multilabel_margin_loss of 5 numbers with the labels (2, -1, …)     eager 2.6893     any graph of it 3.5113
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch._C import DispatchKey
from torch._ops import OpOverload

# torch 2.13: the decomposition adds the terms of the places behind the last label, too, and without a reduction gives
# one number as a vector.
WRONGLY_TRACED: frozenset[OpOverload] = frozenset({torch.ops.aten.multilabel_margin_loss_forward.default})
_lock = threading.RLock()


@contextmanager
def kept_whole() -> Iterator[None]:
    """In here PyTorch traces these operators as they are. One thread at a time: the operators are everybody's."""
    with _lock:
        before = {op: op.py_kernels.pop(DispatchKey.Autograd, None) for op in WRONGLY_TRACED}
        _forget()
        try:
            yield
        finally:
            for op, kernel in before.items():
                if kernel is not None:
                    op.py_kernels[DispatchKey.Autograd] = kernel
            _forget()


def _forget() -> None:
    """What was looked up before."""
    for op in WRONGLY_TRACED:
        op._dispatch_cache.clear()
