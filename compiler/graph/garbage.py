"""Python's collector of cycles, which looks through the objects of a compilation again and again though hardly any are
in cycles: with its usual threshold of 700 new objects it takes a quarter of the time."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

OBJECTS = 100_000  # new ones between two looks: about 10 MB


@dataclass
class _Compilations:
    """How many are under way, in whatever threads, and what the thresholds were before the first."""

    count: int = 0
    before: tuple[int, int, int] = (0, 0, 0)


_lock, _now = threading.Lock(), _Compilations()


@contextmanager
def collected_seldom() -> Iterator[None]:
    """Cycles are looked for in here after so many objects at the earliest; not at all where the process does not."""
    with _lock:
        if not _now.count:
            _now.before = gc.get_threshold()
            gc.set_threshold(_now.before[0] and max(_now.before[0], OBJECTS), *_now.before[1:])
        _now.count += 1
    try:
        yield
    finally:
        with _lock:
            _now.count -= 1
            if not _now.count:
                gc.set_threshold(*_now.before)
