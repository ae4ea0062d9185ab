"""Batch tiles: kernels whose values are too large for the chip are executed for a part of the batch at a time.

    for each layer:  for each sample:  query key value attention output up down

A batch tile is a run of kernels that share their first dimension; no value that one of them hands to another mixes
different indices of it. Cut into parts along it, what lives between the kernels is as small as one part, and
parts overlap where memory allows.

One sequence has tokens for its batch (token_tiles.py)."""

import math
from collections.abc import Set
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

from compiler.emit.fit import points_of, products_of
from compiler.emit.token_tiles import MIN_ROWS, find_token_tile
from compiler.tile.access import reads
from compiler.tile.batch_tile import BatchTile
from compiler.tile.kernel_graph import KernelGraph
from compiler.tile.kernel_op import KernelOp
from compiler.tile.kernels import Kernel
from compiler.tile.state import TileState, made
from compiler.tile.storage import size_of, stored_order
from isa.chip import Chip

TOKEN_PARTS = (4, 2)
TIME = 0.8  # of that for which the array is busy at least, the bus may take for weights
PART = 3  # a part's values may take one in so many bytes of the scratchpad: two parts overlap, beside weights


@dataclass(frozen=True)
class SplitBatch:
    """Execute kernels whose values do not fit in the `share` of the scratchpad for a part of the batch at a time."""

    name: ClassVar[str] = "split-batch"
    share: float = 1.0
    tokens: int = 1  # parts of the tokens of one sequence

    def run(self, state: TileState) -> TileState:
        graph = made(state.kernel_graph)
        return replace(state, batch_tiles=tuple(find_batch_tiles(graph, state.chip, self.share, self.tokens)))


def find_batch_tiles(kernel_graph: KernelGraph, chip: Chip, share: float, tokens: int = 1) -> list[BatchTile]:
    """Cover all kernels with batch tiles; those that need no parts have one. The tokens of one sequence are cut into so
    many parts (token_tiles.py)."""
    found: list[BatchTile] = []
    for start, stop in kernel_graph.stretches:
        first = start
        while first < stop:
            run = None if tokens == 1 else find_token_tile(kernel_graph, first, stop, tokens)
            if run is not None:
                found += [BatchTile(first, run.first)] if first < run.first else []
                found.append(run)
                first = run.end
                continue
            end = max(_run_end(kernel_graph, first, stop), first + 1)
            found.append(_parts(kernel_graph, first, end, chip.sram.bytes * share / PART))
            first = end
    return found


def token_parts(kernel_graph: KernelGraph, chip: Chip) -> int:
    """Into how many parts the tokens of one sequence are worth to be cut: 1 where loading the weights for each of them
    would keep the bus busy for most of the time that the array needs."""
    for parts in TOKEN_PARTS:
        tiles = [tile for tile in find_batch_tiles(kernel_graph, chip, math.inf, parts) if tile.axes]
        cut = [kernel for tile in tiles for kernel in kernel_graph.kernels[tile.first : tile.end]]
        busy = [products_of(kernel, chip, points_of(kernel, None)) for kernel in cut]
        array, bus = (sum(cycles[engine] for cycles in busy) for engine in ("mxu", "bus"))
        if cut and bus * parts <= array * TIME:
            return parts
    return 1


def _run_end(kernel_graph: KernelGraph, first: int, stop: int) -> int:
    """The longest run of kernels from `first` on that can be executed part by part."""
    domain, end = kernel_graph.kernels[first].domain, first
    made = (
        {old.maker for old in kernel_graph.repeat.carried} if kernel_graph.repeat else set()
    )  # their layouts are written in the loop
    while (
        domain
        and end < stop
        and kernel_graph.kernels[end].domain[:1] == domain[:1]
        and _separable(kernel_graph.kernels[end], made, domain[0])
    ):
        made |= kernel_graph.kernels[end].members
        end += 1
    return end


def _separable(kernel: Kernel, made: Set[KernelOp], size: int) -> bool:
    """Whether `kernel` reads what the operations `made` make only at its own index of the first dimension."""
    outside = (read for node in kernel.nodes for read in reads(node) if read.operand.maker in made - kernel.members)
    return all(stored_order(read.operand.base)[:1] == (0,) and read.own_block((size,)) for read in outside)


def _parts(kernel_graph: KernelGraph, first: int, end: int, room: float) -> BatchTile:
    """As few parts as make the values between the kernels fit in `room` bytes; one if they do, or if there is nothing
    to cut."""
    live = {
        n: r
        for n, r in kernel_graph.live.items()
        if first <= r[0] and r[1] < end and n not in kernel_graph.storage.layouts
    }
    alive = max((sum(size_of(n) for n, (a, b) in live.items() if a <= i <= b) for i in range(first, end)), default=0)
    kernels = kernel_graph.kernels[first:end]
    if alive <= room or not kernels[0].domain:
        return BatchTile(first, end)
    size, rows = kernels[0].domain[0], min(prod(k.domain) for k in kernels)
    possible = [n for n in range(2, size + 1) if size % n == 0 and rows // n >= MIN_ROWS]
    if not possible:
        return BatchTile(first, end)
    return BatchTile(first, end, next((n for n in possible if alive / n <= room), possible[-1]), dict.fromkeys(live, 0))
