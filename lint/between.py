"""Races and memory never written where scalars steer a program: for all launches in a box at once.

What is dispatched in which order, and what each instruction knows of the others (its vector clock, `lint.races`), is
the same in all launches of the box; only the blocks differ that some operands touch. The shadows hold what every launch
touches, and apart from that ("may …") the bytes that some launch may touch. Where these say that all is well, it is.
If not, the operands in question are compared as functions of the scalars (`lint.shapes`):

- two accesses that nothing orders, one of them writing, share no byte;
- a block that is read is made up of blocks written before.

Each question is asked in pieces in which all numbers are affine. A piece for which the answer is open is halved, down
to single launches, in which it is exact. So a finding names a launch in which it shows, and no finding means that there
is none; when too much would have to be looked at, that is a finding of its own (`unproved`).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from isa.architecture import Space
from isa.fields import Access
from isa.image.image import Image
from isa.image.records import TensorSpec
from isa.views import Extents, View
from lint.check import Touch
from lint.piecewise import Box, Point, TooMuch, corners_of, part_of, pieces, shown, shown_box
from lint.shadow_memory import Block, Memory, memory_of, ready
from lint.shapes import Shape, are_apart, block_shape, fixed_shapes, is_covered, meet, steered_shape
from lint.steered_bounds import Trials, refuted
from lint.sweeps import OperandSweep

MOST_TOGETHER = 3  # scalars of which blocks written are looked at together


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a question: `kind` "" if all is well, else the kind of the finding, and of which launches."""

    kind: str = ""
    launch: str = ""


_WELL = Answer()


@dataclass
class _Written:
    """Everything written to one memory so far, each block once."""

    shapes: dict[Shape, tuple[int, int]] = field(default_factory=dict)  # with all bytes that they may have
    seen: set[tuple[View, Extents]] = field(default_factory=set)
    whole: set[Shape] = field(default_factory=set)  # blocks known to be made up of these


@dataclass
class Between:
    """What the launches in `box` have done so far."""

    image: Image
    box: Box
    trials: Trials
    unsure: set[Memory] = field(default_factory=set)  # memories of which some launch is known to be at fault
    recent: dict[tuple[Memory, int], list[tuple[int, Touch]]] = field(default_factory=lambda: defaultdict(list))
    left_out: dict[tuple[Memory, int], list[tuple[int, OperandSweep]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    written: dict[Memory, _Written] = field(default_factory=dict)
    apart: set[tuple[Shape, Shape]] = field(default_factory=set)
    shapes: dict[int, tuple[Touch, list[Shape]]] = field(default_factory=dict)

    def record(self, touch: Touch, queue: int, number: int) -> None:
        """An operand of instruction `number` of a queue; of the dispatcher (-1) nothing is recorded."""
        if queue < 0:
            return
        memory = memory_of(touch.view)
        self.recent[memory, queue].append((number, touch))
        if touch.access is not Access.R:
            written, key = self._written(memory), (touch.view, touch.extents)
            if touch.steered is not None or key not in written.seen:
                written.seen.add(key)
                for shape in self._shapes(touch):
                    written.shapes.setdefault(shape, shape.hull(self.box))

    def leave_out(self, sweeps: Sequence[OperandSweep], issued: Sequence[int]) -> None:
        """Iterations left out, as `lint.sweeps.leave_behind` marks them."""
        for sweep in sweeps:
            if sweep.stride_per_period and sweep.engine >= 0:
                self.left_out[sweep.memory, sweep.engine].append((issued[sweep.engine], sweep))
                for block in sweep.sweeps() if sweep.writes else ():
                    shape = block_shape(block)
                    self._written(sweep.memory).shapes.setdefault(shape, shape.hull(self.box))

    def is_written(self, touch: Touch) -> Answer:
        """Whether all that an operand reads was written before."""
        return self._worst(self._is_defined(shape, memory_of(touch.view)) for shape in self._shapes(touch))

    def is_output_written(self, tensor: TensorSpec) -> Answer:
        """The same of a tensor of the interface."""
        return self._is_defined(block_shape(Block(tensor.offset, (), tensor.nbytes)), (Space.DRAM, tensor.region))

    def meeting(self, touch: Touch, queue: int, done: int) -> Iterator[tuple[int, str, Answer]]:
        """Operands of instructions of a queue beyond number `done` that touch the same bytes, one of them writing:
        number, what they do, and in which launches. Pairs on which no scalar acts are left out."""
        memory, writes = memory_of(touch.view), touch.access is not Access.R
        for number, other in reversed(self.recent[memory, queue]):
            if number <= done:
                break
            if touch.steered is None is other.steered or not (writes or other.access is not Access.R):
                continue
            for shape in self._shapes(other):
                answer = self._worst(self._are_apart(mine, shape) for mine in self._shapes(touch))
                if answer.kind:
                    yield number, "reads" if other.access is Access.R else "writes", answer
        for number, sweep in self.left_out[memory, queue] if touch.steered is not None else ():
            if number > done and (writes or sweep.writes):
                for block in sweep.sweeps():
                    answer = self._worst(self._are_apart(mine, block_shape(block)) for mine in self._shapes(touch))
                    if answer.kind:
                        yield number, "writes" if sweep.writes else "reads", answer

    def _are_apart(self, a: Shape, b: Shape) -> Answer:
        if (a, b) in self.apart:
            return _WELL
        box = part_of(self.box, a.scalars | b.scalars)
        try:
            for part in pieces((*a.numbers, *b.numbers), box, (a.present, b.present)):
                point = refuted(part, lambda points: are_apart(a, b, points), lambda p: meet(a, b, p), self.trials)
                if point is not None:
                    return Answer("race", f" ({shown(point)})" if point else "")
        except (TooMuch, ValueError):
            return Answer("unproved", f" (not proved for all of {shown_box(box)})")
        self.apart.add((a, b))
        return _WELL

    def _is_defined(self, shape: Shape, memory: Memory) -> Answer:
        written = self._written(memory)
        if shape in written.whole or memory in self.unsure:
            return _WELL
        low, high = shape.hull(self.box)
        near = [other for other, (begin, end) in written.shapes.items() if begin < high and low < end]
        others = sorted(frozenset[str]().union(*(other.scalars for other in near)) - shape.scalars)
        try:
            few = (shape.scalars, *(shape.scalars | {name} for name in others))  # first what most likely suffices
            if not any(self._is_made_up(shape, near, scalars) for scalars in few):
                point = self._unwritten(shape, near)
                if point is not None:
                    return Answer("uninitialized", f" ({shown(point)})" if point else "")
        except (TooMuch, ValueError):
            return Answer("unproved", f" (not proved for all of {shown_box(part_of(self.box, shape.scalars))})")
        written.whole.add(shape)
        return _WELL

    def _is_made_up(self, shape: Shape, near: Sequence[Shape], scalars: frozenset[str]) -> bool:
        """Whether those blocks on which no other scalars act certainly cover the shape, as it is seen without halving a
        piece."""
        written = [other for other in near if other.scalars <= scalars]
        return all(is_covered(shape, written, corners_of(part)) for part in self._pieces(shape, written, scalars))

    def _unwritten(self, shape: Shape, near: Sequence[Shape]) -> Point | None:
        """A launch in which the blocks do not cover the shape. Raises TooMuch."""
        scalars = shape.scalars.union(*(other.scalars for other in near))
        if len(scalars) > MOST_TOGETHER:
            scalars = shape.scalars
        usable = [other for other in near if other.scalars <= scalars]
        rest = {name: last for name, (_, last) in self.box.items()}
        for part in self._pieces(shape, usable, scalars):
            point = refuted(
                part,
                lambda points: is_covered(shape, usable, points),
                lambda p: not is_covered(shape, near, [{**rest, **p}]),
                self.trials,
                1 + len(usable),
            )
            if point is not None:
                return point
        return None

    def _pieces(self, shape: Shape, written: Sequence[Shape], scalars: frozenset[str]) -> list[Box]:
        numbers = [number for other in (shape, *written) for number in other.numbers]
        found = pieces(numbers, part_of(self.box, scalars), [other.present for other in (shape, *written)])
        self.trials.take(len(found) * (1 + len(written)))
        return found

    def _written(self, memory: Memory) -> _Written:
        if memory not in self.written:
            self.written[memory] = written = _Written()
            given = ready(self.image, memory)
            if given:
                written.shapes[block_shape(Block(0, (), given))] = 0, given
        return self.written[memory]

    def _shapes(self, touch: Touch) -> list[Shape]:
        if id(touch) not in self.shapes:
            shapes = [steered_shape(touch.steered, touch.field)] if touch.steered else list(fixed_shapes(touch))
            self.shapes[id(touch)] = touch, shapes
        return self.shapes[id(touch)][1]

    def _worst(self, answers: Iterator[Answer]) -> Answer:
        return next((answer for answer in answers if answer.kind), _WELL)
