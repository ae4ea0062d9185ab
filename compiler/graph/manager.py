"""What a graph pass is, the loop that runs, verifies, times and prints a pipeline of them, and what tile passes share
with it."""

import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar, Protocol, TextIO

from torch import Tensor, fx
from torch.fx.node import Target

from compiler.graph.editor import is_static
from compiler.graph.source import UNKNOWN
from isa.architecture import USER_TYPES
from isa.errors import Error, InternalError, UnsupportedError

Legal = Callable[[fx.Node], str | None]  # why a node is not legal, or None


class Pass(Protocol):
    """A named function from graph to graph. Options are dataclass fields.

    `changes_bits` says whether the pass may change what the graph computes; `gone` is what no node that the
    chip will compute may be after it, until the end.
    """

    name: ClassVar[str]
    changes_bits: ClassVar[bool]
    gone: ClassVar[frozenset[Target]]

    def run(self, gm: fx.GraphModule) -> fx.GraphModule: ...


@dataclass(frozen=True, slots=True)
class Timing:
    """One line of `--time-passes`."""

    name: str
    seconds: float
    nodes: int


@dataclass
class Watch:
    """What of the work of passes is shown and where, and behind which one to stop."""

    print_after: Collection[str] = ()
    stop_after: str | None = None
    dump_dir: Path | None = None
    stream: TextIO = field(default_factory=lambda: sys.stderr)


class _Watching(Protocol):
    print_after: Collection[str]
    dump_dir: Path | None
    stream: TextIO


def show(watch: _Watching, index: int, name: str, text: Callable[[], str]) -> None:
    """Print and dump what pass number `index` has left behind, if somebody wants to see it."""
    if name in watch.print_after or "all" in watch.print_after:
        print(f"# after {index:02} {name}\n{text()}", file=watch.stream)
    if watch.dump_dir is not None:
        watch.dump_dir.mkdir(exist_ok=True)
        (watch.dump_dir / f"{index:02}-{name}.txt").write_text(text(), encoding="utf-8")


@contextmanager
def named(name: str, what: str, errors: bool = False) -> Iterator[None]:
    """Raises InternalError for what goes wrong inside: a fault of ours, told with the pass. Errors that are meant for
    the user pass, unless `errors`."""
    try:
        yield
    except Exception as error:
        if isinstance(error, InternalError if errors else Error):
            raise
        said = error if isinstance(error, (ValueError, Error)) else f"{type(error).__name__}: {error}"
        raise InternalError(f"pass {name} {what}: {said}") from error


@dataclass
class PassManager:
    """Runs passes in order; after each one the graph is whole, legal and runnable."""

    passes: Sequence[Pass]
    print_after: Collection[str] = ()
    stop_after: str | None = None
    dump_dir: Path | None = None
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    timings: list[Timing] = field(default_factory=list)

    def run(self, gm: fx.GraphModule) -> fx.GraphModule:
        gone: frozenset[Target] = frozenset()
        for index, step in enumerate(self.passes):
            start = time.perf_counter()
            with named(f"{index} '{step.name}'", "failed"):
                gm = step.run(gm)
                gone |= step.gone
                verify(gm, partial(_gone, gone))
            gm.recompile()  # marks the code as outdated; it is written when somebody calls the graph
            self.timings.append(Timing(step.name, time.perf_counter() - start, len(gm.graph.nodes)))
            show(self, index, step.name, partial(text, gm.graph))
            if step.name == self.stop_after:
                break
        return gm


def _gone(gone: frozenset[Target], node: fx.Node) -> str | None:
    """Legality after a pass."""
    return "should be gone by now" if node.target in gone else None


_ANNOTATIONS = frozenset(("val", "source", "origins", "passes"))


def verify(gm: fx.GraphModule, legal: Legal | None = None) -> None:
    """Raises InternalError unless the graph is well formed and every node annotated, UnsupportedError for what is not
    legal."""
    gm.graph.lint()
    for node in gm.graph.nodes:
        if node.op == "output":
            continue
        if not node.meta.keys() >= _ANNOTATIONS:
            missing = min(_ANNOTATIONS - node.meta.keys())
            raise InternalError(f"node {node.name} has no '{missing}'")
        if (
            legal is not None
            and node.op in ("call_function", "placeholder")
            and "depends" in node.meta
            and not is_static(node)
        ):
            reason = legal(node)
            if reason:
                raise unsupported(node, reason)


def unsupported(node: fx.Node, reason: str) -> UnsupportedError:
    """The error for an operation that the chip cannot do."""
    source = node.meta.get("source", UNKNOWN)
    return UnsupportedError(f"{operation(node)} {reason}", str(source) if source is not UNKNOWN else node.name)


def operation(node: fx.Node) -> str:
    """`aten.topk` for a node that calls torch.ops.aten.topk.default."""
    return str(node.target).removesuffix(".default")


def text(graph: fx.Graph) -> str:
    """The graph, one node per line: name: type[shape] = operation(operands)."""
    lines = [_line(node) for node in graph.nodes]
    return "\n".join(lines) + "\n"


def _line(node: fx.Node) -> str:
    if node.op == "output":
        return f"return {_value(node.args[0])}"
    head = f"{node.name}: {_type(node.meta.get('val'))}"
    if node.op == "placeholder":
        return f"{head} = {'weight' if node.meta.get('weight') else 'input'}"
    operands = [_value(arg) for arg in node.args] + [f"{key}={_value(value)}" for key, value in node.kwargs.items()]
    name = getattr(node.target, "__name__", str(node.target))
    name = str(node.target).removesuffix(".default") if "torch._ops" in str(type(node.target)) else name
    return f"{head} = {name}({', '.join(operands)})"


def _type(value: object) -> str:
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{USER_TYPES[dtype].short if dtype in USER_TYPES else dtype}[{','.join(map(str, value.shape))}]"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_type, value))})"
    return type(value).__name__


def _value(value: object) -> str:
    if isinstance(value, fx.Node):
        return f"%{value.name}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    return str(value).removeprefix("torch.")


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the time spent inside to `seconds`."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
