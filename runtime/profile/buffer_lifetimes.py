"""When the planned buffers of a program are alive, in cycles of a timing run."""

from collections.abc import Iterator
from typing import NamedTuple

from emulator.timing.timeline import Timeline
from isa.architecture import WORD_BYTES, Space
from isa.image.image import Image
from isa.image.records import PlanRecord


class Life(NamedTuple):
    """A buffer holds its bytes from `low` to `high`; `first` is the instruction of the run that first uses it."""

    record: PlanRecord
    low: int
    high: int
    first: int


def lives(image: Image, timeline: Timeline, space: Space) -> Iterator[Life]:
    """From the start of the first instruction that uses a buffer to the end of the last, each time round a loop."""
    runs: dict[int, list[int]] = {}
    for index, instruction in enumerate(timeline.instructions):
        runs.setdefault(instruction.pc // WORD_BYTES, []).append(index)
    for record in image.plan:
        first, last = runs.get(record.first, []), runs.get(record.last, [])
        if record.space is not space or not first or not last:
            continue
        pairs = list(zip(first, last, strict=True)) if len(first) == len(last) else [(first[0], last[-1])]
        for begin, end in pairs:
            yield Life(record, int(timeline.start[begin]), int(timeline.end[end]), begin)
