"""Matrix products on several cores without BLAS threads.

OpenBLAS workers spin while they wait: on a machine where anything else runs, a 2 ms product then takes 36 ms (measured
on 2 busy cores). So BLAS is held to one thread while a program runs, and big products are split between our own
threads, which sleep. Products of integers are exact, so splitting never changes a bit.
"""

import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

LIMIT: Final = 8


def _workers() -> int:
    """LLMCHIP_THREADS, or OMP_NUM_THREADS as for PyTorch, or the processors that this process may use."""
    given = os.environ.get("LLMCHIP_THREADS") or os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(int(given), LIMIT)) if given.strip().isdigit() else min(LIMIT, available)


WORKERS: Final = _workers()


class Lock:
    """A re-entrant lock that a forked child finds open: whoever held it in the parent is not there to open it."""

    def __init__(self) -> None:
        self.open_again()
        _locks.add(self)

    def open_again(self) -> None:
        self._lock = threading.RLock()
        self.depth = 0  # how often its holder has taken it

    def acquire(self, blocking: bool = True) -> bool:
        taken = self._lock.acquire(blocking)
        self.depth += taken
        return taken

    def release(self) -> None:
        self.depth -= 1
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


_locks: "weakref.WeakSet[Lock]" = weakref.WeakSet()


def _in_child() -> None:
    for lock in list(_locks):
        lock.open_again()
    _pool.cache_clear()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, WORKERS - 1), "llmchip-mm")


if hasattr(os, "register_at_fork"):  # a child has pool and locks, but not the threads
    os.register_at_fork(after_in_child=_in_child)


def run_all(jobs: Sequence[Callable[[], None]]) -> None:
    """Run the jobs side by side, the first on this thread; the first error of any is raised."""
    others = [_pool().submit(job) for job in jobs[1:]]
    jobs[0]()
    for other in others:
        other.result()


def shares(extent: int, step: int = 1) -> list[slice]:
    """Split range(extent) among the workers in multiples of `step`."""
    size = -(-extent // (WORKERS * step)) * step
    return [slice(start, min(start + size, extent)) for start in range(0, extent, size)]


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Hold numpy's OpenBLAS to one thread; without effect where numpy has another BLAS."""
    control = _openblas()
    before = control[0]() if control else 1
    if control and before != 1:
        control[1](1)
    try:
        yield
    finally:
        if control and before != 1:
            control[1](before)


@cache
def _openblas() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """Its functions to read and set the number of threads. numpy's wheels carry the library in a folder beside the
    package."""
    for path in sorted((Path(np.__file__).parents[1] / "numpy.libs").glob("*openblas*")):
        try:
            library = ctypes.CDLL(str(path))
            read, write = library.scipy_openblas_get_num_threads64_, library.scipy_openblas_set_num_threads64_
        except (OSError, AttributeError):
            continue
        read.restype, write.argtypes, write.restype = ctypes.c_int, [ctypes.c_int], None
        return read, write
    return None
