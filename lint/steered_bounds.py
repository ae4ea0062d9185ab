"""Operands whose place or size the scalars decide: kinds, bounds, alignment and buffers, for all values.

Where its numbers are affine an operand reaches furthest at the ends of the piece, and its alignment is that of the
first two values. So the checks of a single launch are made there; what a block must have round it in all launches, a
buffer, is asked of all its places at once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

from isa.architecture import WORD_BYTES, Dtype
from isa.fields import Access, Field
from isa.image.image import Image
from isa.replay import Dispatch, ReplayError
from isa.views import View, access_of
from lint.check import Buffers, Findings, Touch, touches_of
from lint.piecewise import Box, Point, TooMuch, corners_of, halves, is_point, part_of, pieces, shown, shown_box
from lint.shadow_memory import Memory, memory_of
from lint.shapes import ends_at, is_absent, steered_shape
from lint.steering import Steered, Steering

Reach = Mapping[str, tuple[int, int]]  # first byte and end of each operand, in any launch
TRIALS = 1 << 16  # parts of boxes that are looked at in a replay


class Trials:
    """Counts what is looked at. Raises TooMuch."""

    def __init__(self) -> None:
        self.left = TRIALS

    def take(self, count: int = 1) -> None:
        """Raises TooMuch."""
        self.left -= count
        if self.left < 0:
            raise TooMuch


def refuted(
    box: Box, holds: Callable[[Sequence[Point]], bool],
    fails: Callable[[Point], bool], trials: Trials,
    cost: int = 1,
) -> Point | None:  # fmt: skip
    """A launch in a box for which something fails; None if it holds for all.

    `holds`: whether it certainly does in the box with these corners; `fails`: whether it does not in one launch.
    Divides the box until one or the other says so; each try costs so much. Raises TooMuch.
    """
    left = [box]
    while left:
        trials.take(cost)
        part = left.pop()
        corners = corners_of(part)
        if holds(corners):
            continue
        for point in corners:
            if fails(point):
                return point
        if not is_point(part):
            left += halves(part)
    return None


def all_touches(
    image: Image, instructions: Sequence[Dispatch], steering: Steering, box: Box, buffers: Buffers,
    findings: Findings, trials: Trials, unsure: set[Memory],
) -> Iterator[tuple[int, Touch]]:  # fmt: skip
    """As `lint.check.sound_touches`, of all launches in a box. Operands that some launch cannot touch are left out, and
    their memories added to `unsure`. Raises Unsteerable, and ReplayError where an extent does not fit."""
    known: dict[object, Reach] = {}
    for index, instruction in enumerate(instructions):
        steered = steering.steered.get(index)
        if steered is None:
            touches = touches_of(image, instruction, buffers, findings)
        else:
            key = instruction.pc, steered.name, steered.extent, *steered.views.items()
            if key not in known:
                known[key] = _reach(image, steered, box, buffers, findings, trials)
            unsure.update(memory_of(view) for name, (view, _) in steered.views.items() if name not in known[key])
            touches = _touches(steered, known[key])
        for touch in touches:
            yield index, touch


def _touches(steered: Steered, reach: Reach) -> Iterator[Touch]:
    """The operands of an instruction, each as the bytes between the first and the last that any launch touches."""
    for field in _fields(steered):
        low, high = reach.get(field.name, (0, 0))
        if low < high:
            view = steered.views[field.name][0]
            cover = View(view.space, view.region, Dtype.I8, low)
            access = access_of(field, steered.dispatch.operands)
            yield Touch(steered.dispatch, field, cover, (1, 1, high - low), access, steered)


def _reach(image: Image, steered: Steered, box: Box, buffers: Buffers, findings: Findings, trials: Trials) -> Reach:
    """Add findings of the operands of an instruction. The bytes of those whose access is possible at all. Raises
    ReplayError where an extent does not fit."""
    instruction, unsound = steered.dispatch, set[str]()
    own = part_of(box, frozenset[str]().union(*(value.scalars for value in steered.values)))
    present = (steered.extent,) if steered.name else ()
    reach: dict[str, tuple[int, int]] = {}

    def fails(point: Point) -> bool:
        here = Findings(image)
        here.launch = f" ({shown(point)})"
        try:
            launched = steered.at(point)
        except ValueError as error:
            raise ReplayError(str(error) + here.launch, instruction.pc, instruction.inst) from error
        sound = {touch.field.name for touch in touches_of(image, launched, buffers, here)}
        unsound.update(set(launched.views) - sound)
        findings.merge(here.found)
        return bool(here.found)

    try:
        shapes = {field.name: steered_shape(steered, field) for field in _fields(steered)}
        numbers = [*steered.values, *(number for shape in shapes.values() for number in shape.numbers)]
        for part in pieces(numbers, own, present):
            sides = ({first, min(first + 1, last), last} for first, last in part.values())
            for numbers_at in product(*sides):
                trials.take()
                fails(dict(zip(part, numbers_at, strict=True)))
            refuted(part, lambda corners: _is_placed(steered, corners, buffers), fails, trials)
            for name, shape in shapes.items():
                if not is_absent(shape, corners_of(part)):
                    ends = [*ends_at(shape, corners_of(part)), *([reach[name]] if name in reach else [])]
                    reach[name] = min(low for low, _ in ends), max(high for _, high in ends)
    except TooMuch:
        message = f"where its operands lie is not proved for all of {shown_box(own)}"
        findings.add("unproved", instruction.pc, instruction.inst, message, None, "", instruction.indices)
        return {}
    nowhere = dict.fromkeys(shapes, (0, 0))
    return {name: ends for name, ends in (nowhere | reach).items() if name not in unsound}


def _is_placed(steered: Steered, corners: Sequence[Point], buffers: Buffers) -> bool:
    """Whether the operands lie in their buffers, and apart where two are written, in all launches of a box in which
    they are affine and sound at the corners."""
    instruction, written = steered.dispatch, list[tuple[View, Sequence[int], Sequence[int]]]()
    for field in _fields(steered):
        shape, view = steered_shape(steered, field), steered.views[field.name][0]
        if is_absent(shape, corners):
            return True
        lows, highs = zip(*ends_at(shape, corners), strict=True)
        low, high = min(lows), max(highs)
        if buffers.problem(replace(view, base=low), low, high, instruction.pc // WORD_BYTES):
            return False
        if field.partial and any(a != b for a, b in ((lows[0], low), (highs[0], high))):
            return False
        if access_of(field, instruction.operands) is not Access.R:
            for other, begins, ends in written:
                apart = all(e <= low for e, low in zip(ends, lows, strict=True)) or all(
                    h <= b for h, b in zip(highs, begins, strict=True)
                )
                if other.space is view.space and not apart:
                    return False
            written.append((view, lows, highs))
    return True


def _fields(steered: Steered) -> list[Field]:
    return [field for field in steered.dispatch.inst.row.views if field.name in steered.views]
