"""Interleave: projections cut by heads, and the attention that reads them, take turns.

    q0 k0 v0 attention(heads of 0) q1 k1 v1 attention(heads of 1) …

Attention keeps VEC and ACT busy while the array waits, projections the other way round; in turns they overlap.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import accumulate

from compiler.emit.emitter import Emitter
from compiler.tile.conflicts import predecessors
from compiler.tile.ir import Op


def interleave(emitters: Sequence[Emitter]) -> list[list[Op]]:
    """The ops of every kernel; those of a run of head-cut projections and the kernel behind them merged into the run's
    last part."""
    parts = [e.ops for e in emitters]
    index = 0
    while index < len(emitters):
        end = index
        while end < len(emitters) and emitters[end].tiling.groups > 1:
            end += 1
        if end > index and end < len(emitters):
            merged = _merge(emitters[index:end], emitters[end])
            if merged is not None:
                parts[index : end + 1] = [[] for _ in range(end - index)] + [merged]
        index = max(end, index + 1)
    return parts


def _merge(producers: Sequence[Emitter], consumer: Emitter) -> list[Op] | None:
    """Blocks in turns: a block of the consumer behind the groups that cover as much of the heads. None if that breaks
    an order."""
    ops: list[Op] = []
    keys: list[tuple[Fraction, int, int]] = []
    for rank, e in enumerate((*producers, consumer)):
        blocks, bounds = len(e.block_starts), [*e.block_starts, len(e.ops)]
        for block in range(blocks):
            at = Fraction(block + 1, blocks) if e is consumer else Fraction(block, blocks)
            order = 0 if e is consumer else rank + 1  # at one point, finished heads are used before new ones begin
            keys += [(at, order, len(ops) + i) for i in range(bounds[block + 1] - bounds[block])]
            ops += e.ops[bounds[block] : bounds[block + 1]]
    merged = sorted(range(len(ops)), key=lambda i: keys[i])
    return [ops[i] for i in merged] if _in_order(ops, merged) else None


def overlapped(parts: Sequence[Sequence[Op]], overlap: float, cycles: Callable[[Op], int]) -> list[Op]:
    """The parts of a batch tile, each of which begins when the share `overlap` of the work of the one before is still
    to come."""
    plain = [op for part in parts for op in part]
    if not overlap or len(parts) == 1:
        return plain
    keys: list[float] = []
    for number, part in enumerate(parts):
        done = list(accumulate((cycles(op) for op in part), initial=0))
        keys += [number * (1 - overlap) + at / done[-1] for at in done[:-1]]
    merged = sorted(range(len(plain)), key=lambda i: keys[i])
    return [plain[i] for i in merged] if _in_order(plain, merged) else plain


def pipelined(parts: Sequence[Sequence[Sequence[Op]]], cycles: Callable[[Op], int]) -> list[Op]:
    """Parts whose stages follow each other, in a pipeline: stage s of part p beside stage s - 1 of part p + 1.

    Where all engines had the same to do in each stage, this order would let none wait for another part.
    """
    plain = [op for part in parts for stage in part for op in stage]
    keys: list[float] = []
    for number, part in enumerate(parts):
        for place, stage in enumerate(part):
            done = list(accumulate((cycles(op) for op in stage), initial=0))
            keys += [number + place + at / (done[-1] + 1) for at in done[:-1]]
    merged = sorted(range(len(plain)), key=lambda i: keys[i])
    return [plain[i] for i in merged] if _in_order(plain, merged) else plain


def _in_order(ops: Sequence[Op], merged: Sequence[int]) -> bool:
    """Whether every op still follows those that it depends on."""
    place = {index: at for at, index in enumerate(merged)}
    return all(place[j] < place[i] for i, earlier in enumerate(predecessors(ops)) for j in earlier)
