"""Packing: a model's weights become the constants of an image, several weights at a time, each straight into its place.

The pack graph falls into jobs that share nothing: mostly one weight each (permute, quantize). Threads work through them, one
PyTorch thread each: threads that meet after every operation cost more on a busy machine than they gain. Quantizing goes by blocks
of rows that stay in a processor's cache; no row depends on another, so the bits are those of the whole.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from compiler import ops
from compiler.module import as_written

BLOCK = 1 << 17  # elements: half a megabyte, long enough for another thread to run meanwhile
MOST = 8  # threads

Store = Callable[[int, Tensor], None]


@dataclass
class _Job:
    """Nodes in order, and which results (number and node) they give."""

    nodes: list[fx.Node] = field(default_factory=list)
    results: list[tuple[int, fx.Node]] = field(default_factory=list)


def pack(graph: fx.Graph, weights: Sequence[Tensor], store: Store) -> None:
    """Compute the results of `graph` and give each, with its number, to `store` as soon as it is known, from any thread."""
    given = dict(zip(graph.find_nodes(op="placeholder"), weights, strict=True))
    in_parallel(lambda job: _run(job, given, store), _jobs(graph))


def in_parallel(work: Callable[[Any], None], items: Sequence[Any]) -> None:
    """Do `work` on all items, in as many threads as PyTorch may use. The first item that fails, in order, raises its error."""
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
    results: Any = graph.output_node().args[0]
    for number, node in enumerate(results):
        jobs.setdefault(find(node) if node in group else node, _Job()).results.append((number, node))
    return list(jobs.values())


def _run(job: _Job, given: Mapping[fx.Node, Tensor], store: Store) -> None:
    values: dict[fx.Node, Any] = {}

    def value(node: fx.Node) -> Any:
        return values[node] if node in values else given[node]

    with as_written():  # in this thread
        for node in job.nodes:
            args, kwargs = fx.map_arg((node.args, node.kwargs), value)
            function: Any = _quantize_rows if node.target is ops.quantize_rows else node.target
            values[node] = function(*args, **kwargs)
        for number, node in job.results:
            store(number, value(node))


def _quantize_rows(x: Tensor, col: Tensor | None = None) -> Any:
    """`llmchip.quantize_rows`, block by block."""
    if col is not None or x.dim() != 2 or x.numel() <= BLOCK:
        return ops.quantize_rows(x, col)
    q, s = torch.empty(x.shape, dtype=torch.int8), torch.empty(x.shape[:1], dtype=x.dtype)
    rows = max(1, BLOCK // x.shape[1])
    for first in range(0, x.shape[0], rows):
        block = slice(first, first + rows)
        q[block], s[block] = ops.quantize_rows(x[block])
    return q, s
