"""The operands of a long loop, followed through the iterations that a proof leaves out.

One period of the loop later each operand touches the same block, moved by `stride_per_period` bytes. So the blocks of
all iterations are one array with an axis more, and what must hold for each iteration is one question about it:

- no two iterations touch the same byte if one of them writes it (`conflict`), so that iterations meet only instructions
  from before the loop, and themselves;
- nothing from before the loop that may still be running has touched it, and what is read was written
  (`conflict_with_prefix`).

The cost is that of the bytes touched, not of the iterations. `leave_behind` gives the shadows what the iterations would
have left there.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product, zip_longest

import numpy as np

from isa.architecture import IMAGE_REGIONS, Space
from isa.fields import Access
from isa.replay import Dispatch
from lint.check import Touch
from lint.loop_skipping import SkippedLoop
from lint.shadow_memory import Block, Dims, Memory, Shadow, memory_of, runs

_PAIRS, _CELLS = 1 << 20, 1 << 28  # pairs of operands and cells looked at before a loop counts as too complicated
__all__ = ["OperandSweep", "conflict", "conflict_with_prefix", "cost", "is_lazy", "leave_behind", "sweeps_of"]


def is_lazy(touch: Touch) -> bool:
    """Read-only memory ends where its data end, so there a whole table must be in it."""
    read_only = touch.view.space is Space.DRAM and touch.view.region in IMAGE_REGIONS
    return not read_only and touch.field.partial


@dataclass(frozen=True, slots=True)
class OperandSweep:
    """An operand as it stands in the last period before the skip, and where it goes from there.

    Of a nested loop of which iterations were left out it is all the blocks of those: `start` bytes from the operand,
    repeated.
    """

    touch: Touch
    stride_per_period: int  # bytes from one period to the next
    iterations: int  # periods left out
    before: int  # periods before this one
    behind: int  # periods behind this one
    engine: int
    clock: Sequence[int]  # instructions known to be complete, per engine
    start: int = 0
    repeat: Dims = ()

    @property
    def memory(self) -> Memory:
        return memory_of(self.touch.view)

    @property
    def writes(self) -> bool:
        return self.touch.access is not Access.R

    def span(self) -> tuple[int, int]:
        """First byte and one past the last byte in the last period before the skip."""
        low, high = self.touch.view.span(self.touch.extents)
        return low + self.start, high + self.start + sum((count - 1) * stride for count, stride in self.repeat)

    def reach(self) -> tuple[int, int]:
        """The same over all iterations of the loop."""
        low, high = self.span()
        return low - self.before * self.stride_per_period, high + self.behind * self.stride_per_period

    def left_out(self) -> tuple[int, int]:
        """The same over the iterations left out."""
        low, high = self.span()
        return low + self.stride_per_period, high + self.iterations * self.stride_per_period

    def blocks(self) -> Iterator[Block]:
        """The bytes of the last period before the skip."""
        for first, planes, plane_stride, rows, row_stride, width in runs(self.touch):
            yield Block(first + self.start, (*self.repeat, (planes, plane_stride), (rows, row_stride)), width)

    def sweeps(self) -> Iterator[Block]:
        """The bytes of the iterations left out. Reads that overlap become one stretch."""
        low, high = self.left_out()
        moved = [
            Block(
                block.first + self.stride_per_period,
                ((self.iterations, self.stride_per_period), *block.dims),
                block.width,
            )
            for block in self.blocks()
        ]
        if not self.writes and sum(block.size for block in moved) > 2 * (high - low):
            moved = [Block(low, (), high - low)]
        yield from moved

    def nested(self) -> "OperandSweep":
        """The iterations left out as they stand in a period of the loop around."""
        return replace(
            self,
            start=self.start + self.stride_per_period,
            repeat=((self.iterations, self.stride_per_period), *self.repeat),
        )


def sweeps_of(
    loop: SkippedLoop,
    instructions: Sequence[Dispatch],
    by_instruction: Mapping[int, Sequence[Touch]],
    numbers: Mapping[int, tuple[int, Sequence[int]]],
    inner: Mapping[int, Sequence[OperandSweep]],
) -> list[OperandSweep] | None:
    """The operands of the last period before the skip, those that nested loops left out too; None if it does not repeat
    the one before.

    `numbers`: engine and clock vector of each instruction. `inner`: what nested loops left out, by the instruction
    before which it would stand.
    """
    length = loop.at - loop.before
    if loop.before - loop.earlier != length:
        return None
    found = list[OperandSweep]()
    iterations, before, behind = (
        loop.leave_out // loop.period,
        loop.first // loop.period - 1,
        -(-(loop.count - loop.first) // loop.period),
    )

    def here(index: int) -> list[OperandSweep]:
        nested = [sweep.nested() for sweep in inner.get(index, ()) if sweep.stride_per_period]
        return nested + [OperandSweep(touch, 0, 0, 0, 0, *numbers[index]) for touch in by_instruction.get(index, ())]

    for index in range(loop.before, loop.at):
        old, new = here(index - length), here(index)
        if instructions[index].pc != instructions[index - length].pc or len(old) != len(new):
            return None
        for a, b in zip(old, new, strict=True):
            stride_per_period = b.touch.view.base - a.touch.view.base
            if stride_per_period < 0 or not _alike(a, b):
                return None
            found.append(
                replace(b, stride_per_period=stride_per_period, iterations=iterations, before=before, behind=behind)
            )
    return found


def _alike(a: OperandSweep, b: OperandSweep) -> bool:
    """Whether two operands differ in nothing but their place, on which no scalar acts."""
    one, two = a.touch, b.touch
    shapes = (
        (t.view.rs, t.view.ps, t.view.cs, t.view.dtype, t.extents, t.access, memory_of(t.view)) for t in (one, two)
    )
    return (
        one.steered is None is two.steered
        and one.field is two.field
        and len(set(shapes)) == 1
        and (a.start, a.repeat, a.engine) == (b.start, b.repeat, b.engine)
    )


def conflict(sweeps: Sequence[OperandSweep]) -> str:
    """Why two iterations may touch the same byte, one of them writing, other than at one fixed place; "" if they
    cannot."""
    by_memory: dict[Memory, list[OperandSweep]] = defaultdict(list)
    for sweep in sweeps:
        by_memory[sweep.memory].append(sweep)
    for found in by_memory.values():
        moving = [sweep for sweep in found if sweep.stride_per_period]
        if not moving or not any(sweep.writes for sweep in found):
            continue
        if len(moving) * len(found) > _PAIRS:
            return "its operands are too many to be compared"
        for a in moving:
            for b in found:
                if (
                    a.stride_per_period != b.stride_per_period
                    and (a.writes or b.writes)
                    and _meet(a.reach(), b.reach())
                ):
                    return f"{_name(a)} and {_name(b)} move differently through the same bytes"
        for stride_per_period in {sweep.stride_per_period for sweep in moving}:
            problem = _self_conflict(
                [sweep for sweep in moving if sweep.stride_per_period == stride_per_period], stride_per_period
            )
            if problem:
                return problem
    return ""


def _self_conflict(group: Sequence[OperandSweep], stride_per_period: int) -> str:
    """Operands that move together: whether a block that one writes is touched by another, or by itself, some iterations
    earlier or later."""
    spans = [sweep.span() for sweep in group]
    if max(high for _, high in spans) - min(low for low, _ in spans) <= stride_per_period:
        return ""
    most = group[0].before + group[0].behind
    for a in (sweep for sweep in group if sweep.writes):
        for b in group:
            for block, other in product(a.blocks(), b.blocks()):
                problem = meet_later(block, other, stride_per_period, most)
                if problem is not False:
                    return (
                        f"{_name(a)} writes bytes that another iteration touches"
                        if problem
                        else f"{_name(a)} has too many rows to be compared"
                    )
    return ""


def meet_later(a: Block, b: Block, stride_per_period: int, most: int) -> bool | None:
    """Whether block `a`, some iterations away (not 0, at most `most`), touches a byte of block `b`. None: too much
    work."""
    distance = np.array([b.first - a.first], np.int64)  # from a run of `a` to one of `b`
    for (count, stride), (other, other_stride) in zip_longest(reversed(a.dims), reversed(b.dims), fillvalue=(1, 0)):
        apart = stride != other_stride and count > 1 and other > 1
        if distance.size * (count * other if apart else count + other) > _PAIRS:
            return None
        mine, theirs = np.arange(count) * stride, np.arange(other) * other_stride
        steps = np.subtract.outer(theirs, mine).ravel() if apart else np.concatenate([-mine[:0:-1], theirs])
        distance = np.add.outer(distance, steps).ravel()
    first = np.maximum((distance - a.width) // stride_per_period + 1, -most)  # iterations in which they overlap
    last = np.minimum(-(-(distance + b.width) // stride_per_period) - 1, most)
    return bool(((first <= last) & ((first != 0) | (last != 0))).any())


def cost(sweeps: Sequence[OperandSweep], shadows: Mapping[Memory, Shadow]) -> int:
    """Cells that the iterations left out touch."""
    moving = [(sweep, shadows[sweep.memory]) for sweep in sweeps if sweep.stride_per_period and sweep.memory in shadows]
    return sum(block.size // shadow.grain for sweep, shadow in moving for block in sweep.sweeps())


def conflict_with_prefix(sweeps: Sequence[OperandSweep], shadows: Mapping[Memory, Shadow], cells: int = 0) -> str:
    """Why the iterations left out may not do what the iterations replayed do, because of what was there before the
    loop; "" if they do.

    `cells` have been looked at so far: a proof that costs too much is none.
    """
    moving = [(sweep, shadows[sweep.memory]) for sweep in sweeps if sweep.stride_per_period and sweep.memory in shadows]
    if cells > _CELLS:
        return "its operands touch too much memory"
    for sweep, shadow in moving:
        if sweep.left_out()[1] > shadow.cells * shadow.grain:
            return f"{_name(sweep)} leaves its memory"
        for what in ("writes", "reads", "may writes", "may reads") if sweep.writes else ("writes", "may writes"):
            for queue, done in enumerate(sweep.clock):
                array = shadow.last.get((what, queue))
                if array is not None and any(int(shadow.part(array, part).max()) > done for part in sweep.sweeps()):
                    return f"{_name(sweep)} meets, in some iteration, an instruction from before the loop that may be running"
    for sweep, shadow in moving:
        for part in sweep.sweeps():
            block = shadow.part(shadow.defined, part)
            if sweep.touch.access is not Access.W and not is_lazy(sweep.touch) and not block.all():
                return f"{_name(sweep)} reads, in some iteration, bytes that were never written"
            if sweep.writes:
                block[...] = True
    return ""


def leave_behind(sweeps: Sequence[OperandSweep], shadows: Mapping[Memory, Shadow], issued: Sequence[int]) -> None:
    """Mark what the iterations left out touch as touched by the last instructions of the next period: complete no later
    than these, so on the safe side."""
    for sweep in sweeps:
        shadow = shadows.get(sweep.memory)
        if not sweep.stride_per_period or shadow is None or sweep.engine < 0:
            continue
        for what, concerned in (("writes", sweep.writes), ("reads", sweep.touch.access is not Access.W)):
            if concerned:
                array = shadow.array(what, sweep.engine)
                for part in sweep.sweeps():
                    shadow.part(array, part)[...] = issued[sweep.engine]


def _meet(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def _name(sweep: OperandSweep) -> str:
    return f"operand {sweep.touch.field.name} at pc {sweep.touch.instruction.pc:#06x}"
