"""What makes a problem smaller before it is solved: reuse groups become boxes, cut lines split it, units shrink it.

A `Part` is what heuristics and search work on: parallel tuples of small integers, no names, no groups.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from compiler.plan.problem import Block, Problem


@dataclass(frozen=True, slots=True)
class Part:
    """Blocks that are connected in time. Times are section numbers, sizes and offsets are in units of `unit` bytes.

    `span[i]` is how many instructions box i lives; `members[i]` names the blocks of the problem that share box i;
    `fixed[i]` is -1 if the box may go anywhere.
    """

    unit: int
    lower: tuple[int, ...]
    upper: tuple[int, ...]
    size: tuple[int, ...]
    align: tuple[int, ...]
    fixed: tuple[int, ...]
    span: tuple[int, ...]
    members: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.size)

    def height(self, offsets: list[int]) -> int:
        """The bytes that a placement takes."""
        return self.unit * max(offset + size for offset, size in zip(offsets, self.size, strict=True))


@dataclass(frozen=True, slots=True)
class Box:
    """Blocks that get one offset: one block, or members of a reuse group."""

    block: Block
    members: tuple[str, ...]


def variants(problem: Problem) -> Iterator[tuple[Part, ...]]:
    """The problem as parts: with reuse groups as boxes, with boxes of equal sizes only, and without any reuse."""
    choices = (_boxes(problem, equal=False), _boxes(problem, equal=True), [Box(b, (b.name,)) for b in problem.blocks])
    seen: list[list[tuple[str, ...]]] = []
    for boxes in choices:
        shape = sorted(box.members for box in boxes)
        if shape not in seen:
            seen.append(shape)
            yield tuple(_part(problem, piece) for piece in _pieces(sorted(boxes, key=_order)))


def _order(box: Box) -> tuple[int, int]:
    return box.block.lower, box.block.upper


def _boxes(problem: Problem, equal: bool) -> list[Box]:
    """Join members of a group whose live ranges overlap, in order of time."""
    boxes: list[Box] = []
    latest: dict[str, int] = {}
    for block in sorted(problem.blocks, key=lambda b: (b.lower, b.upper)):
        at = latest.get(block.may_alias or "", -1)
        joined = _joined(boxes[at].block, block, equal) if at >= 0 else None
        if joined is not None:
            boxes[at] = Box(joined, (*boxes[at].members, block.name))
            continue
        if block.may_alias:
            latest[block.may_alias] = len(boxes)
        boxes.append(Box(block, (block.name,)))
    return boxes


def _joined(a: Block, b: Block, equal: bool) -> Block | None:
    """The box around `a` and the later `b` at one offset, or None if they cannot or should not share one."""
    fixed = b.fixed if a.fixed is None else a.fixed
    align = math.lcm(a.align, b.align)
    moved = b.fixed not in (None, fixed) or (fixed is not None and fixed % align)
    if b.lower >= a.upper or moved or (equal and a.size != b.size):
        return None
    return replace(a, upper=max(a.upper, b.upper), size=max(a.size, b.size), align=align, fixed=fixed)


def _pieces(boxes: list[Box]) -> Iterator[list[Box]]:
    """Split boxes in order of time at the cut lines, where nothing lives."""
    piece: list[Box] = []
    end = 0
    for box in boxes:
        if piece and box.block.lower >= end:
            yield piece
            piece = []
        piece.append(box)
        end = max(end, box.block.upper)
    if piece:
        yield piece


def _part(problem: Problem, boxes: list[Box]) -> Part:
    blocks = [box.block for box in boxes]
    section = {time: i for i, time in enumerate(sorted({t for b in blocks for t in (b.lower, b.upper)}))}
    sizes = [problem.space(b) for b in blocks]
    unit = _unit(math.gcd(*sizes, *(b.fixed or 0 for b in blocks)), {b.align for b in blocks})
    return Part(
        unit,
        tuple(section[b.lower] for b in blocks),
        tuple(section[b.upper] for b in blocks),
        tuple(size // unit for size in sizes),
        tuple(1 if unit % b.align == 0 else b.align // unit for b in blocks),
        tuple(-1 if b.fixed is None else b.fixed // unit for b in blocks),
        tuple(b.upper - b.lower for b in blocks),
        tuple(box.members for box in boxes),
    )


def _unit(unit: int, aligns: set[int]) -> int:
    """The largest unit that loses no lowest plan: its offsets are sums of sizes, rounded up where an alignment does not
    divide them."""
    while smaller := next((math.gcd(unit, align) for align in aligns if unit % align and align % unit), 0):
        unit = smaller
    return unit
