"""Packing: a model's weights become the constants of an image, several weights at a time, each straight into its place.

The pack graph falls into jobs that share nothing: mostly one weight each (permute, quantize). Threads work through
them, one PyTorch thread each: threads that meet after every operation cost more on a busy machine than they gain.
Quantizing goes by blocks of rows that stay in a processor's cache; no row depends on another, so the bits are those of
the whole.
"""

import hashlib
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from compiler.frontend.capture import Weight
from compiler.frontend.checks import check_finite
from compiler.graph.arguments import tensors
from compiler.graph.fx_copy import as_written
from compiler.ops import library as ops

BLOCK = 1 << 17  # elements: half a megabyte, long enough for another thread to run meanwhile
MOST = 8  # threads

T = TypeVar("T")
Bytes = NDArray[np.uint8]
Result = Tensor | tuple[Tensor, ...]  # of one operation
Store = Callable[[int, Tensor | Bytes], None]  # bytes are as the chip stores them


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one constant is made: of which weights, by number, and what is computed of them (equal text, equal
    computation)."""

    text: str
    weights: tuple[int, ...]


@dataclass
class _Job:
    """Nodes in order, and which results (number and node) they give."""

    nodes: list[fx.Node] = field(default_factory=list)
    results: list[tuple[int, fx.Node]] = field(default_factory=list)


class Packing:
    """The pack graph, ready to run, as a whole or in parts. `weights` are those of the captured model."""

    def __init__(self, graph: fx.Graph, weights: Sequence[Weight]) -> None:
        self._holders, self._weights, self._jobs = graph.find_nodes(op="placeholder"), weights, _jobs(graph)
        self._quantized = _quantized(graph)
        numbers = {node: number for number, node in enumerate(self._holders)}
        order = {node: number for number, node in enumerate(graph.nodes)}
        self.recipes = tuple(_recipe(node, numbers, order) for node in tensors(graph.output_node(), 0))

    def run(self, tensors: Mapping[str, Tensor], store: Store, only: Collection[int] | None = None) -> None:
        """Compute the constants (`only` those with these numbers) and give each, with its number, to `store`, from any
        thread."""
        jobs = [job for job in self._jobs if only is None or any(number in only for number, _ in job.results)]
        taken = (
            self._holders
            if only is None
            else {self._holders[at] for number in only for at in self.recipes[number].weights}
        )
        items = [
            (w.name, at in self._quantized)
            for at, w in enumerate(self._weights)
            if w.kind == "param" and self._holders[at] in taken
        ]
        in_parallel(lambda item: check_finite(item[0], tensors[item[0]], item[1]), items)
        given = {node: tensors[weight.name] for node, weight in zip(self._holders, self._weights, strict=True)}

        def keep(number: int, value: Tensor | Bytes) -> None:
            if only is None or number in only:
                store(number, value)

        in_parallel(lambda job: _run(job, given, keep), jobs)


def _quantized(graph: fx.Graph) -> set[int]:
    """Which weights, by number, are quantized when they are packed."""
    reaching: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node.target in (ops.quantize_rows, ops.quantize_weights) or any(user in reaching for user in node.users):
            reaching.add(node)
    return {number for number, node in enumerate(graph.find_nodes(op="placeholder")) if node in reaching}


_WRITABLE = (int, float, str, torch.dtype, torch.layout, torch.device, torch.memory_format, type(None))


def _recipe(result: fx.Node, numbers: Mapping[fx.Node, int], order: Mapping[fx.Node, int]) -> Recipe:
    """The nodes that a result needs, written down with numbers for names. What cannot be written down is like nothing
    else."""
    cone, waiting = {result}, [result]
    while waiting:
        new = [operand for operand in waiting.pop().all_input_nodes if operand not in cone]
        cone.update(new)
        waiting += new
    ordered = sorted(cone, key=order.__getitem__)
    weights, computed = ([node for node in ordered if (node in numbers) == given] for given in (True, False))
    names = {node: f"%{number}" for number, node in enumerate([*weights, *computed])}
    lines = [f"{_name(node)} {fx.map_arg((node.args, node.kwargs), names.__getitem__)}" for node in computed]
    text = hashlib.sha256("\n".join([*lines, names[result]]).encode()).hexdigest()
    return Recipe(text, tuple(numbers[node] for node in weights))


def _name(node: fx.Node) -> str:
    leaves = pytree.tree_leaves((node.args, node.kwargs))
    if node.op != "call_function" or not all(isinstance(leaf, (fx.Node, *_WRITABLE)) for leaf in leaves):
        return f"{node.target} {uuid4()}"
    target = node.target
    assert callable(target)
    return (
        f"{target.__module__}.{target}"
        if isinstance(target, torch._ops.OpOverload)
        else f"{target.__module__}.{target.__qualname__}"
    )


def in_parallel(work: Callable[[T], None], items: Sequence[T]) -> None:
    """Do `work` on all items, in as many threads as PyTorch may use. The first item that fails, in order, raises its
    error."""
    before = torch.get_num_threads()
    threads = min(before, len(items), MOST)
    if threads < 2:
        for item in items:
            work(item)
        return
    begun = threading.Barrier(threads + 1)

    def begin() -> None:
        torch.get_num_threads()  # PyTorch sets a thread up when it first asks; then the next line is for this thread
        torch.set_num_threads(1)
        begun.wait()

    with ThreadPoolExecutor(threads, initializer=begin) as pool:
        done = pool.map(work, items)  # as many threads as there are items, up to the limit, begin at once
        begun.wait()
        torch.set_num_threads(before)  # for threads that others start
        for _ in done:
            pass


def _jobs(graph: fx.Graph) -> list[_Job]:
    """Groups of nodes that no edge connects. Weights themselves connect nothing: they are there from the start."""
    group: dict[fx.Node, fx.Node] = {}

    def find(node: fx.Node) -> fx.Node:
        while group[node] is not node:
            group[node] = group[group[node]]
            node = group[node]
        return node

    for node in graph.nodes:
        if node.op == "call_function":
            group[node] = node
            for operand in node.all_input_nodes:
                if operand in group:
                    group[find(operand)] = node
    jobs: dict[fx.Node, _Job] = {}
    for node in group:
        jobs.setdefault(find(node), _Job()).nodes.append(node)
    for number, node in enumerate(tensors(graph.output_node(), 0)):
        jobs.setdefault(find(node) if node in group else node, _Job()).results.append((number, node))
    return list(jobs.values())


def _run(job: _Job, given: Mapping[fx.Node, Tensor], store: Store) -> None:
    values: dict[fx.Node, Result] = {}

    def value(node: fx.Node) -> Result:
        return values[node] if node in values else given[node]

    with as_written():  # in this thread
        for node in job.nodes:
            args, kwargs = fx.map_arg((node.args, node.kwargs), value)
            assert callable(node.target)
            function: Callable[..., Result] = _quantize_rows if node.target is ops.quantize_rows else node.target
            values[node] = function(*args, **kwargs)
        for number, node in job.results:
            result = value(node)
            assert isinstance(result, Tensor)
            store(number, result)


def _quantize_rows(x: Tensor, col: Tensor | None = None, absmax: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`llmchip.quantize_rows`, block by block."""
    if col is not None or absmax is not None or x.dim() != 2 or x.numel() <= BLOCK:
        q, s = ops.quantize_rows(x, col, absmax)
        return q, s
    q, s = torch.empty(x.shape, dtype=torch.int8), torch.empty(x.shape[:1], dtype=x.dtype)
    rows = max(1, BLOCK // x.shape[1])
    for first in range(0, x.shape[0], rows):
        block = slice(first, first + rows)
        q[block], s[block] = ops.quantize_rows(x[block])
    return q, s
