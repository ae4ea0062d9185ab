"""The operands of a long loop, followed through the turns that a proof leaves out.

One period of the loop later each operand touches the same block, moved by `drift` bytes. So the blocks of all turns are one array with
an axis more, and what must hold for each turn is one question about it:

- no two turns touch the same byte if one of them writes it (`conflict`), so that turns meet only words from before the loop, and themselves;
- nothing from before the loop that may still be running has touched it, and what is read was written (`obstacle`).

The cost is that of the bytes touched, not of the turns. `leave_behind` gives the shadows what the turns would have left there.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product, zip_longest

import numpy as np

from isa.replay import Dispatch
from isa.spec import IMAGE_REGIONS, Access, Space
from lint.check import Touch
from lint.loop_skipping import SkippedLoop
from lint.shadow_memory import Block, Dims, Memory, Shadow, memory_of, runs

_PAIRS, _CELLS = 1 << 20, 1 << 28  # pairs of operands and cells looked at before a loop counts as too complicated
__all__ = ["Course", "conflict", "cost", "courses_of", "is_lazy", "leave_behind", "obstacle"]


def is_lazy(touch: Touch) -> bool:
    """Read-only memory ends where its data end, so there a whole table must be in it."""
    read_only = touch.view.space is Space.DRAM and touch.view.region in IMAGE_REGIONS
    return not read_only and touch.field.partial


@dataclass(frozen=True, slots=True)
class Course:
    """An operand as it stands in the last period before the cut, and where it goes from there.

    Of a nested loop of which turns were left out it is all the blocks of those: `start` bytes from the operand, repeated.
    """

    touch: Touch
    drift: int  # bytes from one period to the next
    turns: int  # periods left out
    before: int  # periods before this one
    behind: int  # periods behind this one
    engine: int
    known: Sequence[int]  # words known to be complete, per engine
    start: int = 0
    repeat: Dims = ()

    @property
    def memory(self) -> Memory:
        return memory_of(self.touch.view)

    @property
    def writes(self) -> bool:
        return self.touch.access is not Access.R

    def span(self) -> tuple[int, int]:
        """First byte and one past the last byte in the last period before the cut."""
        low, high = self.touch.view.span(self.touch.extents)
        return low + self.start, high + self.start + sum((count - 1) * stride for count, stride in self.repeat)

    def reach(self) -> tuple[int, int]:
        """The same over all turns of the loop."""
        low, high = self.span()
        return low - self.before * self.drift, high + self.behind * self.drift

    def left_out(self) -> tuple[int, int]:
        """The same over the turns left out."""
        low, high = self.span()
        return low + self.drift, high + self.turns * self.drift

    def blocks(self) -> Iterator[Block]:
        """The bytes of the last period before the cut."""
        for first, planes, plane_stride, rows, row_stride, width in runs(self.touch):
            yield Block(first + self.start, (*self.repeat, (planes, plane_stride), (rows, row_stride)), width)

    def sweeps(self) -> Iterator[Block]:
        """The bytes of the turns left out. Reads that overlap become one stretch."""
        low, high = self.left_out()
        moved = [Block(block.first + self.drift, ((self.turns, self.drift), *block.dims), block.width) for block in self.blocks()]
        if not self.writes and sum(block.size for block in moved) > 2 * (high - low):
            moved = [Block(low, (), high - low)]
        yield from moved

    def nested(self) -> "Course":
        """The turns left out as they stand in a period of the loop around."""
        return replace(self, start=self.start + self.drift, repeat=((self.turns, self.drift), *self.repeat))


def courses_of(
    cut: SkippedLoop, words: Sequence[Dispatch], by_word: Mapping[int, Sequence[Touch]], numbers: Mapping[int, tuple[int, Sequence[int]]],
    inner: Mapping[int, Sequence[Course]],
) -> list[Course] | None:  # fmt: skip
    """The operands of the last period before the cut, those that nested loops left out too; None if it does not repeat the one before.

    `numbers`: engine and known vector of each word. `inner`: what nested loops left out, by the word before which it would stand.
    """
    length = cut.at - cut.before
    if cut.before - cut.earlier != length:
        return None
    found = list[Course]()
    turns, before, behind = cut.leave_out // cut.period, cut.first // cut.period - 1, -(-(cut.count - cut.first) // cut.period)

    def here(index: int) -> list[Course]:
        nested = [course.nested() for course in inner.get(index, ()) if course.drift]
        return nested + [Course(touch, 0, 0, 0, 0, *numbers[index]) for touch in by_word.get(index, ())]

    for index in range(cut.before, cut.at):
        old, new = here(index - length), here(index)
        if words[index].pc != words[index - length].pc or len(old) != len(new):
            return None
        for a, b in zip(old, new, strict=True):
            drift = b.touch.view.base - a.touch.view.base
            if drift < 0 or not _alike(a, b):
                return None
            found.append(replace(b, drift=drift, turns=turns, before=before, behind=behind))
    return found


def _alike(a: Course, b: Course) -> bool:
    """Whether two operands differ in nothing but their place."""
    one, two = a.touch, b.touch
    shapes = ((t.view.rs, t.view.ps, t.view.cs, t.view.dtype, t.extents, t.access, memory_of(t.view)) for t in (one, two))
    return one.field is two.field and len(set(shapes)) == 1 and (a.start, a.repeat, a.engine) == (b.start, b.repeat, b.engine)


def conflict(courses: Sequence[Course]) -> str:
    """Why two turns may touch the same byte, one of them writing, other than at one fixed place; "" if they cannot."""
    by_memory: dict[Memory, list[Course]] = defaultdict(list)
    for course in courses:
        by_memory[course.memory].append(course)
    for found in by_memory.values():
        moving = [course for course in found if course.drift]
        if not moving or not any(course.writes for course in found):
            continue
        if len(moving) * len(found) > _PAIRS:
            return "its operands are too many to be compared"
        for a in moving:
            for b in found:
                if a.drift != b.drift and (a.writes or b.writes) and _meet(a.reach(), b.reach()):
                    return f"{_name(a)} and {_name(b)} move differently through the same bytes"
        for drift in {course.drift for course in moving}:
            problem = _self_conflict([course for course in moving if course.drift == drift], drift)
            if problem:
                return problem
    return ""


def _self_conflict(group: Sequence[Course], drift: int) -> str:
    """Operands that move together: whether a block that one writes is touched by another, or by itself, some turns earlier or later."""
    spans = [course.span() for course in group]
    if max(high for _, high in spans) - min(low for low, _ in spans) <= drift:
        return ""
    most = group[0].before + group[0].behind
    for a in (course for course in group if course.writes):
        for b in group:
            for block, other in product(a.blocks(), b.blocks()):
                problem = meet_later(block, other, drift, most)
                if problem is not False:
                    return f"{_name(a)} writes bytes that another turn touches" if problem else f"{_name(a)} has too many rows to be compared"
    return ""


def meet_later(a: Block, b: Block, drift: int, most: int) -> bool | None:
    """Whether block `a`, some turns away (not 0, at most `most`), touches a byte of block `b`. None: too much work."""
    distance = np.array([b.first - a.first], np.int64)  # from a run of `a` to one of `b`
    for (count, stride), (other, other_stride) in zip_longest(reversed(a.dims), reversed(b.dims), fillvalue=(1, 0)):
        apart = stride != other_stride and count > 1 and other > 1
        if distance.size * (count * other if apart else count + other) > _PAIRS:
            return None
        mine, theirs = np.arange(count) * stride, np.arange(other) * other_stride
        steps = np.subtract.outer(theirs, mine).ravel() if apart else np.concatenate([-mine[:0:-1], theirs])
        distance = np.add.outer(distance, steps).ravel()
    first = np.maximum((distance - a.width) // drift + 1, -most)  # turns in which they overlap
    last = np.minimum(-(-(distance + b.width) // drift) - 1, most)
    return bool(((first <= last) & ((first != 0) | (last != 0))).any())


def cost(courses: Sequence[Course], shadows: Mapping[Memory, Shadow]) -> int:
    """Cells that the turns left out touch."""
    moving = [(course, shadows[course.memory]) for course in courses if course.drift and course.memory in shadows]
    return sum(block.size // shadow.grain for course, shadow in moving for block in course.sweeps())


def obstacle(courses: Sequence[Course], shadows: Mapping[Memory, Shadow], cells: int = 0) -> str:
    """Why the turns left out may not do what the turns replayed do, because of what was there before the loop; "" if they do.

    `cells` have been looked at so far: a proof that costs too much is none.
    """
    moving = [(course, shadows[course.memory]) for course in courses if course.drift and course.memory in shadows]
    if cells > _CELLS:
        return "its operands touch too much memory"
    for course, shadow in moving:
        if course.left_out()[1] > shadow.cells * shadow.grain:
            return f"{_name(course)} leaves its memory"
        for what in ("writes", "reads") if course.writes else ("writes",):
            for queue, done in enumerate(course.known):
                array = shadow.last.get((what, queue))
                if array is not None and any(int(shadow.cut(array, sweep).max()) > done for sweep in course.sweeps()):
                    return f"{_name(course)} meets, in some turn, a word from before the loop that may be running"
    for course, shadow in moving:
        for sweep in course.sweeps():
            block = shadow.cut(shadow.defined, sweep)
            if course.touch.access is not Access.W and not is_lazy(course.touch) and not block.all():
                return f"{_name(course)} reads, in some turn, bytes that were never written"
            if course.writes:
                block[...] = True
    return ""


def leave_behind(courses: Sequence[Course], shadows: Mapping[Memory, Shadow], issued: Sequence[int]) -> None:
    """Mark what the turns left out touch as touched by the last words of the next period: complete no later than these, so on the safe side."""
    for course in courses:
        shadow = shadows.get(course.memory)
        if not course.drift or shadow is None or course.engine < 0:
            continue
        for what, concerned in (("writes", course.writes), ("reads", course.touch.access is not Access.W)):
            if concerned:
                array = shadow.array(what, course.engine)
                for sweep in course.sweeps():
                    shadow.cut(array, sweep)[...] = issued[course.engine]


def _meet(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def _name(course: Course) -> str:
    return f"operand {course.touch.field.name} at pc {course.touch.word.pc:#06x}"
