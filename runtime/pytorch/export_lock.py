"""torch.export changes globals of PyTorch while it traces, which breaks modules that other threads are running
meanwhile.

`alone` keeps these changes to the thread that traces: the patches on nn.Module (`__call__`, `__getattr__`) and the flag
"is exporting". It also holds Dynamo's own lock, so that no other thread traces at the same time.
"""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._dynamo.convert_frame import compile_lock
from torch.fx import _symbolic_trace

from emulator.threads import Lock

_lock = Lock()  # re-entrant: compiling runs PyTorch code, which may be compiled in turn


@contextmanager
def alone() -> Iterator[None]:
    """Trace and compile in here; other threads wait if they want to compile, and are left alone if not."""
    with _lock, compile_lock:
        patcher, exporting = _symbolic_trace._Patcher, torch.compiler.is_exporting
        owner = threading.get_ident()
        _symbolic_trace._Patcher = _OwnThreadPatcher  # type: ignore[misc]
        torch.compiler.is_exporting = lambda: exporting() and threading.get_ident() == owner
        try:
            yield
        finally:
            _symbolic_trace._Patcher, torch.compiler.is_exporting = patcher, exporting  # type: ignore[misc]


class _OwnThreadPatcher(_symbolic_trace._Patcher):
    """Makes every patched method do as before in threads other than the one that patches."""

    def patch_method(self, cls: type, name: str, new_fn: Callable[..., Any], deduplicate: bool = True) -> None:
        original, owner = getattr(cls, name), threading.get_ident()

        @functools.wraps(original)
        def chosen(*args: Any, **kwargs: Any) -> Any:
            return (new_fn if threading.get_ident() == owner else original)(*args, **kwargs)

        super().patch_method(cls, name, chosen, deduplicate)
