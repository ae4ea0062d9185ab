"""Compiled code on disk, valid for exactly these sources and one kernel: numba's own cache would miss a change in a module that is
called."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from numba import njit
from numba.core import caching

from emulator.replay.blocks import KERNEL

_IMPORT = re.compile(r"^from ((?:isa|emulator)[\w.]*) import (\([^)]*\)|[^\n]*)", re.MULTILINE)


def folder() -> Path:
    """Where compiled code is kept; the same folder as the compile cache's (runtime/pytorch/cache.py)."""
    given = os.environ.get("LLMCHIP_CACHE", "")
    base = (
        Path(given)
        if given.lower() not in ("", "0", "off")
        else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmchip"
    )
    return base / "kernels"


@cache
def _sources() -> str:
    digest = hashlib.sha256()
    for path in sources():
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def sources() -> list[Path]:
    """The modules of this room, and what those with kernels import, or these import: kernels are compiled with the
    values of their constants."""
    here = Path(__file__).parent
    room = sorted(here.glob("*.py"))
    todo = [path for path in room if f"from {__name__} import" in path.read_text()]
    read: dict[Path, None] = {}
    while todo:
        path = todo.pop()
        if path not in read:
            read[path] = None
            todo += _imports(path, here.parents[1])
    return list(dict.fromkeys((*room, *read)))


def _imports(path: Path, root: Path) -> Iterator[Path]:
    """Modules of isa/ and emulator/ that a module imports."""
    for package, names in _IMPORT.findall(path.read_text()):
        for name in (package, *(f"{package}.{name}" for name in re.findall(r"\w+", names))):
            if (file := root / f"{name.replace('.', '/')}.py").is_file():
                yield file


class _Locator(caching._CacheLocator):  # type: ignore[misc]
    """A folder per state of the sources and kernel."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def ensure_cache_path(self) -> None:
        os.makedirs(self.get_cache_path(), exist_ok=True)

    def get_cache_path(self) -> str:
        return str(folder() / f"{_sources()}-{KERNEL.name if KERNEL else 'none'}")

    def get_source_stamp(self) -> str:
        return _sources()

    def get_disambiguator(self) -> str:
        return ""

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> "_Locator":
        return cls(function)


class _Implementation(caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes: ClassVar[list[type]] = [_Locator]


class _Cache(caching.FunctionCache):  # type: ignore[misc]
    _impl_class = _Implementation


def compiled(function: Callable[..., Any], signature: str) -> Any:
    """`function` in machine code, from disk if it is there. No fast-math: nothing is contracted or reordered."""
    try:
        made = _fresh(function)
        made._cache = _Cache(function)
        made.compile(signature)
    except (OSError, RuntimeError):  # no place to read or write: compiled anew in each process
        made = _fresh(function)
        made.compile(signature)
    made.disable_compile()
    return made


def _fresh(function: Callable[..., Any]) -> Any:
    return njit(nogil=True, error_model="numpy", boundscheck=False)(function)
