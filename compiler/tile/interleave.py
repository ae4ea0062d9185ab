"""Interleave: projections cut by heads, and the attention that reads them, take turns.

    q0 k0 v0 attention(heads of 0) q1 k1 v1 attention(heads of 1) …

Attention keeps VEC and ACT busy while the array waits, projections the other way round; in turns they overlap.
"""

from collections.abc import Sequence
from fractions import Fraction

from compiler.tile.emitter import Emitter
from compiler.tile.ir import Op
from compiler.tile.schedule import predecessors


def interleave(emitters: Sequence[Emitter]) -> list[list[Op]]:
    """The ops of every kernel; those of a run of head-cut projections and the kernel behind them merged into the run's last part."""
    parts = [e.ops for e in emitters]
    index = 0
    while index < len(emitters):
        end = index
        while end < len(emitters) and emitters[end].cut.groups > 1:
            end += 1
        if end > index and end < len(emitters):
            merged = _merge(emitters[index:end], emitters[end])
            if merged is not None:
                parts[index : end + 1] = [[] for _ in range(end - index)] + [merged]
        index = max(end, index + 1)
    return parts


def _merge(producers: Sequence[Emitter], consumer: Emitter) -> list[Op] | None:
    """Blocks in turns: a block of the consumer behind the groups that cover as much of the heads. None if that breaks an order."""
    ops: list[Op] = []
    keys: list[tuple[Fraction, int, int]] = []
    for rank, e in enumerate((*producers, consumer)):
        blocks, bounds = len(e.marks), [*e.marks, len(e.ops)]
        for block in range(blocks):
            at = Fraction(block + 1, blocks) if e is consumer else Fraction(block, blocks)
            order = 0 if e is consumer else rank + 1  # at one point, finished heads are used before new ones begin
            keys += [(at, order, len(ops) + i) for i in range(bounds[block + 1] - bounds[block])]
            ops += e.ops[bounds[block] : bounds[block + 1]]
    merged = sorted(range(len(ops)), key=lambda i: keys[i])
    place = {index: at for at, index in enumerate(merged)}
    in_order = all(place[j] < place[i] for i, earlier in enumerate(predecessors(ops)) for j in earlier)
    return [ops[i] for i in merged] if in_order else None
