"""What an export leaves in the process that nobody needs any more.

PyTorch keeps in tables that last as long as the process, for its own error messages, the graph that was traced first,
and the Python text of every graph on the way to the last one. And the C library keeps what was freed: once a process has
freed one large tensor, glibc hands nothing back that is smaller than twice of that. Of a language model both are tens of
megabytes, or hundreds.
"""

import ctypes
import linecache
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.fx.experimental.proxy_tensor as traces
import torch.fx.graph_module as texts


@contextmanager
def forgotten() -> Iterator[None]:
    """Whatever is exported in here leaves nothing in PyTorch's tables. Graphs that are kept can be called and printed as
    before; only a traceback through one does not show its line."""
    known: dict[str, str] = _table(getattr(texts, "_loader", None), "eval_cache")
    before = set(known)
    try:
        yield
    finally:
        for name in known.keys() - before:
            known.pop(name, None)
            linecache.cache.pop(name, None)
        _table(traces, "_FAKE_TENSOR_ID_TO_PROXY_MAP_FOR_EXPORT").clear()


def give_back() -> None:
    """Let the system have the memory that was freed, where the C library can be asked to. It takes milliseconds: for
    moments before something large is made."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _table(owner: object, name: str) -> dict[Any, Any]:
    """A table of PyTorch's by its name; an empty one where this version has none."""
    found = getattr(owner, name, None)
    return found if isinstance(found, dict) else {}
