"""The operands of a long loop, followed through the turns that a proof leaves out.

One period of the loop later each operand touches the same block, moved by `drift` bytes. So the blocks of all turns are one array with
an axis more, and what must hold for each turn is one question about it:

- no two turns touch the same byte if one of them writes it (`conflict`), so that turns meet only words from before the loop, and themselves;
- nothing from before the loop that may still be running has touched it, and what is read was written (`obstacle`).

The cost is that of the bytes touched, not of the turns. `leave_behind` gives the shadows what the turns would have left there.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from isa.check import Touch
from isa.cuts import Cut
from isa.shadow import Memory, Run, Shadow, memory_of, runs
from isa.spec import Access
from isa.trace import Dispatch

_LAZY = frozenset({("gather", "a")})  # operands of which only the rows fetched need to be defined; no more is known here
_PAIRS, _CELLS = 1 << 20, 1 << 28  # pairs of operands and cells looked at before a loop counts as too complicated
__all__ = ["Course", "conflict", "cost", "courses_of", "is_lazy", "leave_behind", "obstacle"]


def is_lazy(touch: Touch) -> bool:
    return (touch.word.inst.mnemonic, touch.field.name) in _LAZY


@dataclass(frozen=True, slots=True)
class Course:
    """An operand as it stands in the last period before the cut, and where it goes from there."""

    touch: Touch
    drift: int  # bytes from one period to the next
    turns: int  # periods left out
    before: int  # periods before this one
    behind: int  # periods behind this one
    engine: int
    known: Sequence[int]  # words known to be complete, per engine

    @property
    def memory(self) -> Memory:
        return memory_of(self.touch.view)

    @property
    def writes(self) -> bool:
        return self.touch.access is not Access.R

    def reach(self) -> tuple[int, int]:
        """First byte and one past the last byte over all turns of the loop."""
        low, high = self.touch.view.span(self.touch.extents)
        return low - self.before * self.drift, high + self.behind * self.drift

    def left_out(self) -> tuple[int, int]:
        """The same over the turns left out."""
        low, high = self.touch.view.span(self.touch.extents)
        return low + self.drift, high + self.turns * self.drift

    def sweeps(self) -> Iterator[tuple[Run, int, int]]:
        """The bytes of the turns left out: runs of the first of them, bytes to the next turn, turns. Reads that overlap become one run."""
        low, high = self.left_out()
        if not self.writes and self.turns * sum(run[1] * run[3] * run[5] for run in runs(self.touch)) > 2 * (high - low):
            yield (low, 1, 0, 1, 0, high - low), 0, 1
            return
        for run in runs(self.touch):
            yield (run[0] + self.drift, *run[1:]), self.drift, self.turns


def courses_of(
    cut: Cut, words: Sequence[Dispatch], by_word: Mapping[int, Sequence[Touch]], numbers: Mapping[int, tuple[int, Sequence[int]]]
) -> list[Course] | None:
    """The operands of the last period before the cut; None if it does not repeat the one before. `numbers`: engine and known vector of a word."""
    length = cut.at - cut.before
    if cut.before - cut.earlier != length:
        return None
    found = []
    turns, before, behind = cut.leave_out // cut.period, cut.first // cut.period - 1, -(-(cut.count - cut.first) // cut.period)
    for index in range(cut.before, cut.at):
        old, new = by_word.get(index - length, ()), by_word.get(index, ())
        if words[index].pc != words[index - length].pc or len(old) != len(new):
            return None
        for a, b in zip(old, new, strict=True):
            drift = b.view.base - a.view.base
            same = a.field is b.field and a.extents == b.extents and (a.view.rs, a.view.ps, a.view.cs) == (b.view.rs, b.view.ps, b.view.cs)
            if not same or drift < 0 or memory_of(a.view) != memory_of(b.view) or index not in numbers:
                return None
            found.append(Course(b, drift, turns, before, behind, *numbers[index]))
    return found


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
    spans = [course.touch.view.span(course.touch.extents) for course in group]
    if max(high for _, high in spans) - min(low for low, _ in spans) <= drift:
        return ""
    most = group[0].before + group[0].behind
    for a in (course for course in group if course.writes):
        for b in group:
            for run, other in product(runs(a.touch), runs(b.touch)):
                problem = _meet_later(run, other, drift, most)
                if problem is not False:
                    return f"{_name(a)} writes bytes that another turn touches" if problem else f"{_name(a)} has too many rows to be compared"
    return ""


def _meet_later(a: Run, b: Run, drift: int, most: int) -> bool | None:
    """Whether run `a`, some turns away (not 0, at most `most`), touches a byte of run `b`. None: too much work."""
    planes, rows = _differences(b[1], b[2], a[1], a[2]), _differences(b[3], b[4], a[3], a[4])
    if planes.size * rows.size > _PAIRS:
        return None
    distance = b[0] - a[0] + (planes[:, None] + rows).ravel()  # from a row of `a` to one of `b`
    first = np.maximum((distance - a[5]) // drift + 1, -most)  # turns in which they overlap
    last = np.minimum(-(-(distance + b[5]) // drift) - 1, most)
    return bool(((first <= last) & ((first != 0) | (last != 0))).any())


def _differences(count: int, stride: int, other_count: int, other_stride: int) -> NDArray[np.int64]:
    """All i*stride - j*other_stride."""
    if stride == other_stride:
        return np.arange(1 - other_count, count, dtype=np.int64) * stride
    if count * other_count > _PAIRS:
        return np.zeros(_PAIRS + 1, np.int64)
    return np.subtract.outer(np.arange(count, dtype=np.int64) * stride, np.arange(other_count, dtype=np.int64) * other_stride).ravel()


def cost(courses: Sequence[Course], shadows: Mapping[Memory, Shadow]) -> int:
    """Cells that the turns left out touch."""
    moving = [(course, shadows[course.memory]) for course in courses if course.drift and course.memory in shadows]
    return sum(turns * run[1] * run[3] * run[5] // shadow.grain for course, shadow in moving for run, _, turns in course.sweeps())


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
                if array is not None and any(int(shadow.sweep(array, *sweep).max()) > done for sweep in course.sweeps()):
                    return f"{_name(course)} meets, in some turn, a word from before the loop that may be running"
    for course, shadow in moving:
        for sweep in course.sweeps():
            block = shadow.sweep(shadow.defined, *sweep)
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
                    shadow.sweep(array, *sweep)[...] = issued[course.engine]


def _meet(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def _name(course: Course) -> str:
    return f"operand {course.touch.field.name} at pc {course.touch.word.pc:#06x}"
