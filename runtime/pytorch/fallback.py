"""What falls back to PyTorch: what may, what the user is told of it, and the record that can be asked afterwards.

    for found in llmchip.fallbacks():
        print(found.line, found.operator, found.reason, found.count)

A *refusal* is the compiler's considered answer: the chip has no such operator, type or size. A *fault* is ours: an
error inside the compiler, a trap. Both cost a piece of the graph, which runs in PyTorch. `options={"fallback": False}`
makes both errors. With LLMCHIP_STRICT=1 (our own tests) faults are errors always, and refusals unless the caller asks
for `fallback` in so many words.
"""

import inspect
import linecache
import os
import tempfile
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import fx

from compiler.graph.manager import operation, text
from compiler.graph.source import GENERATED, UNKNOWN, SourceLine
from compiler.options import Options
from emulator.threads import Lock
from isa.errors import Error, InternalError, Trap, interrupted
from runtime.version import __version__

STRICT = "LLMCHIP_STRICT"
WHOLE = "the whole graph"
PIECES = "the graph in smaller pieces"
CACHE = "the cache of a language model"
_FOREIGN = tuple(
    str(folder) + os.sep for folder in (Path(__file__).resolve().parents[1], Path(torch.__file__).resolve().parent)
)


@dataclass(frozen=True, slots=True)
class Fallback:
    """Something that runs in PyTorch: `operator` at `line` of the model (file:line: code), and why.

    `count` is how many pieces of compiled graphs it has cost. Where the graph was only cut into smaller pieces, which
    may all run on the chip, `operator` says so. `fault` says that the reason is a fault of llmchip, and `report` names
    a file with the graph and the traceback to send with it.
    """

    line: str
    operator: str
    reason: str
    count: int = 1
    fault: bool = False
    report: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """Whether refusals and faults may fall back."""

    refusals: bool
    faults: bool

    @classmethod
    def of(cls, options: Options, given: Mapping[str, Any]) -> "Policy":
        """`given` are the options as the caller wrote them."""
        strict = os.environ.get(STRICT, "") not in ("", "0")
        return cls(options.fallback and (not strict or "fallback" in given), options.fallback and not strict)

    def accept(self, error: Exception) -> None:
        """Raises the error, ours or made ours, unless it may fall back; and KeyboardInterrupt for Ctrl-C in any
        case."""
        if interrupted(error):
            raise KeyboardInterrupt from error
        if is_fault(error):
            if not self.faults:
                raise as_error(error)
        elif not self.refusals:
            raise error


def is_fault(error: Exception) -> bool:
    """Whether an error says that llmchip, and not the model, is wrong."""
    return not isinstance(error, Error) or isinstance(error, (InternalError, Trap))


def as_error(error: Exception) -> Error:
    """The error itself if it is ours, else one that says so, and is caused by it."""
    if isinstance(error, Error):
        return error
    found = InternalError(f"llmchip failed with {type(error).__name__}: {first_line(error)}")
    found.__cause__ = error
    return found


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


_records: dict[tuple[str, str, str], Fallback] = {}
_lock = Lock()


def fallbacks() -> list[Fallback]:
    """Everything that this process runs in PyTorch instead of on the chip, in the order in which it was found."""
    with _lock:
        return list(_records.values())


def forget() -> None:
    """Empty the record."""
    with _lock:
        _records.clear()


class Teller:
    """Tells of what falls back in one compiled graph: each line, operator and reason once, however often it is met."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str, str]] = set()

    def tell(self, error: Exception, node: fx.Node | None = None, graph: fx.Graph | None = None) -> None:
        """`node` is what runs in PyTorch because of `error` (None: the whole graph); `graph` goes into the report of a
        fault."""
        operator = WHOLE if node is None else operation(node)
        where = error.where if isinstance(error, Error) and not isinstance(error, Trap) else ""
        source = UNKNOWN if node is None else node.meta.get("source", UNKNOWN)
        if node is not None and source is UNKNOWN:  # a module of torch's own that is compiled as it is
            source = _users_line()
        self._record(error, where if source is UNKNOWN else str(source), operator, graph)

    def tell_cut(self, error: Exception, graph: fx.Graph) -> None:
        """A graph has been cut because of `error`. Only of a fault that was not met again: what a refusal costs is told
        operation by operation."""
        if is_fault(error) and not any(reason == as_error(error).what for _, _, reason in self._told):
            self._record(error, "", PIECES, graph)

    def tell_cache(self, error: Exception) -> None:
        """A step of a language model is a graph like any other because of `error`."""
        self._record(error, "", CACHE, None)

    def _record(self, error: Exception, line: str, operator: str, graph: fx.Graph | None) -> None:
        fault, reason = is_fault(error), as_error(error).what
        key = (line, operator, reason)
        with _lock:
            old = _records.get(key)
            found = (
                replace(old, count=old.count + 1)
                if old
                else Fallback(line, operator, reason, 1, fault, _report(error, graph) if fault else "")
            )
            _records[key] = found
        if key not in self._told:
            self._told.add(key)
            warnings.warn(_message(found), UserWarning, stacklevel=_user()[0])


def _message(found: Fallback) -> str:
    place = f"{found.line}: " if found.line else ""
    fault = f"; this is a fault of llmchip, please report it with {found.report or 'the graph'}" if found.fault else ""
    how = found.operator if found.operator == PIECES else f"{found.operator} in PyTorch"
    return f"{place}llmchip runs {how}: {found.reason}{fault} (options={{'fallback': False}} makes this an error)"


def _user() -> tuple[int, FrameType | None]:
    """The first frame up from here that is neither ours nor torch's, and how far up it is: 1 is our caller."""
    level, frame = 0, inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith((*_FOREIGN, *GENERATED)):
        level, frame = level + 1, frame.f_back
    return level, frame


def _users_line() -> SourceLine:
    """Where the user calls what is compiled."""
    _, frame = _user()
    if frame is None:
        return UNKNOWN
    file, line = frame.f_code.co_filename, frame.f_lineno
    return SourceLine(file, line, linecache.getline(file, line).strip())


def _report(error: Exception, graph: fx.Graph | None) -> str:
    """A file that says all that there is to say about a fault; an empty string where no file can be written."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="llmchip-fault-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write(f"llmchip {__version__}, torch {torch.__version__}\n\n")
            file.write(f"{_printed(graph)}\n")
            file.write("".join(traceback.format_exception(error)))
            return file.name
    except OSError:
        return ""


def _printed(graph: fx.Graph | None) -> str:
    try:
        return text(graph) if graph is not None else ""
    except Exception as error:  # a graph so broken that it cannot be printed must not hide the fault itself
        return f"(the graph cannot be printed: {error})\n"
