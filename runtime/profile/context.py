"""How fast a program is over the length of its context: cycles, tokens per second and joules per token, with the DRAM
limit beside them.

    for point in over_context(image, "decode", [1, 1024, 4096]):    point.tokens_per_second, point.of_limit

A context of n tokens is one that a launch leaves behind: n - T are in the cache before, where the entry takes T new
ones. The limit is that of DRAM: the bytes that must move, each once, at the chip's bandwidth. Of an image alone these
are the bytes that its program touches; of a model that is known, those of its graph (`runtime.profile.roofline`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from torch import fx

from emulator.timing.energy import activity
from emulator.timing.simulate import simulate
from emulator.timing.timeline import Timeline
from isa.architecture import DMA_ENGINES, Region, Space
from isa.errors import InputError
from isa.image.image import Image
from isa.image.records import Entry, Scalar
from isa.image.steps import LAST
from isa.timing import ceil_div
from isa.views import access_of
from lint.check import Touch
from lint.shadow_memory import runs
from runtime.profile.roofline import speed_of_light

STEPS = 16  # lengths of a range, where it does not say how many


@dataclass(frozen=True, slots=True)
class ContextPoint:
    """One launch: `tokens` in the context behind it, of which `new` of each of `batch` sequences are its own.

    `dram_bytes` must move; `limit_cycles` is how long that takes.
    """

    tokens: int
    new: int
    batch: int
    cycles: int
    seconds: float
    joules: float
    dram_bytes: int
    limit_cycles: int

    @property
    def tokens_per_second(self) -> float:
        """New tokens of all sequences."""
        return self.new * self.batch / self.seconds

    @property
    def joules_per_token(self) -> float:
        return self.joules / (self.new * self.batch)

    @property
    def of_limit(self) -> float:
        """The DRAM limit's cycles to the launch's: 1 is as fast as DRAM allows."""
        return self.limit_cycles / self.cycles

    def as_dict(self) -> dict[str, int | float]:
        derived = {name: getattr(self, name) for name in ("tokens_per_second", "joules_per_token", "of_limit")}
        return asdict(self) | derived


def over_context(
    image: Image, entry: str | None, tokens: Iterable[int], graph: fx.Graph | None = None
) -> list[ContextPoint]:
    """One point for each length. `graph`: the entry's lowered graph, if known. Raises InputError for a length that the
    entry does not have or an entry without scalars, and ReplayError."""
    start = image.entry(entry)
    batch, new = _new_tokens(start)
    return [_point(image, start, length, batch, new, graph) for length in tokens]


def lengths(text: str, image: Image, entry: str | None = None) -> list[int]:
    """The lengths that `1:4096`, `1:4096:32` (how many of them) or `16,1024,4096` stand for; a range without its end goes
    to the capacity. Raises InputError."""
    start = image.entry(entry)
    _, new = _new_tokens(start)
    most = _capacity(start, new)
    try:
        if ":" not in text:
            return [int(part) for part in text.split(",")]
        first, last, *steps = (int(part) if part else 0 for part in text.split(":"))
        (count,) = steps or [STEPS]
    except ValueError:
        hint = "give START:STOP, START:STOP:STEPS or a list, such as 1:4096 or 16,1024"
        raise InputError(f"'{text}' is no range of lengths", hint=hint) from None
    first, last = first or new, last or most
    if count < 1 or last < first:
        raise InputError(f"the range '{text}' is empty", hint="its first length is the smaller one")
    return sorted({round(x) for x in np.linspace(max(first, new), last, count)})


def context_values(start: Entry, length: int) -> dict[str, int]:
    """The scalars of a launch of this entry that leaves `length` tokens behind."""
    return _values(start, length - _new_tokens(start)[1])


def _point(image: Image, start: Entry, length: int, batch: int, new: int, graph: fx.Graph | None) -> ContextPoint:
    most = _capacity(start, new)
    if not new <= length <= most:
        raise InputError(
            f"a context of {length} tokens does not exist in entry '{start.name}'",
            hint=f"it takes {new} new tokens and has room for {most} in all: give lengths from {new} to {most}",
        )
    old = length - new
    timeline = simulate(image, entry=start.name, values=_values(start, old))
    moved = _bytes_once(timeline)
    limit = ceil_div(moved * image.chip.clock_hz, image.chip.dram.bytes_per_second)
    if graph is not None:
        limit = speed_of_light(graph, image.chip, steered=old).by_resource["dram"]
        moved = limit * image.chip.dram.bytes_per_second // image.chip.clock_hz
    seconds, joules = timeline.cycles / image.chip.clock_hz, sum(activity(timeline).totals().values())
    return ContextPoint(length, new, batch, timeline.cycles, seconds, joules, moved, limit)


def _new_tokens(start: Entry) -> tuple[int, int]:
    """Sequences, and new tokens of each. Raises InputError where nothing steers the entry."""
    if not start.scalars:
        raise InputError(
            f"entry '{start.name}' has no scalars: its cost does not depend on a length",
            hint="leave --tokens out, or name the entry of a decoder",
        )
    shape = next((spec.shape for spec in start.inputs if len(spec.shape) == 2 and spec.dtype.startswith("int")), (1, 1))
    return shape[0], shape[1]


def _capacity(start: Entry, new: int) -> int:
    return min(scalar.maximum for scalar in start.scalars if not _is_source(scalar)) + new


def _values(start: Entry, old: int) -> dict[str, int]:
    """So many tokens of each sequence; sources as long as can be."""
    return {scalar.name: scalar.maximum if _is_source(scalar) else old for scalar in start.scalars}


def _is_source(given: Scalar) -> bool:
    return given.name.startswith(f"{LAST}.")


def _bytes_once(timeline: Timeline) -> int:
    """Bytes of DRAM that the launch touches, each counted once; rows that data choose as often as they are fetched."""
    chosen, found = 0, dict[Region, list[tuple[int, int]]]()
    for number, instruction in enumerate(timeline.instructions):
        if instruction.engine not in DMA_ENGINES or instruction.empty:
            continue
        if any(field.partial for field in instruction.inst.row.views):
            chosen += int(timeline.bytes[number])
            continue
        for field in instruction.inst.row.views:
            view = instruction.views.get(field.name)
            if view is not None and view.space is Space.DRAM:
                access = access_of(field, instruction.operands)
                touch = Touch(instruction, field, view, instruction.extents(field), access)
                found.setdefault(view.region, []).extend(_stretches(touch))
    return chosen + sum(_union(stretches) for stretches in found.values())


def _stretches(touch: Touch) -> Iterator[tuple[int, int]]:
    for first, planes, plane_stride, rows, row_stride, width in runs(touch):
        for plane in range(planes):
            for row in range(rows):
                begin = first + plane * plane_stride + row * row_stride
                yield begin, begin + width


def _union(stretches: Sequence[tuple[int, int]]) -> int:
    """Bytes that are in any of the stretches."""
    total = end = 0
    for begin, until in sorted(stretches):
        total += max(until - max(begin, end), 0)
        end = max(end, until)
    return total
