"""Memory never written, and races between engines: exact, byte for byte, over the replay of a program.

Every word has a *known* vector: how many words of each engine are certainly complete when it starts. It comes from
dependence counts (n: all but the last n dispatched), fences, program order (compute engines run one word after the
other; DMA queues start and complete in order but overlap), and from what the words known to be complete knew themselves.
A shadow of each memory holds, per engine, the last word that wrote and that read each byte. A word races with another
if it touches such a byte and that word is not known to be complete.

The shadow has one cell per granule: the greatest common divisor of all addresses and run lengths in use, so nothing is lost.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isa.check import Findings, Touch, capacity
from isa.image import Image
from isa.records import Entry
from isa.spec import DMA_ENGINES, NO_WAIT, QUEUES, Access, Engine, Region, Space
from isa.steady import Snapshot, is_steady
from isa.trace import Cut, Dispatch
from isa.views import View

Memory = tuple[Space, Region]
Run = tuple[int, int, int, int, int, int]  # first byte, planes, plane stride, rows, row stride, bytes per row
_READY = (Region.WEIGHTS, Region.CONST, Region.IN, Region.STATE, Region.PARAMS)  # defined before the launch
_LAZY = frozenset({("gather", "a")})  # operands of which only the rows fetched need to be defined; no more is known here
_DMA = tuple(engine in DMA_ENGINES for engine in QUEUES)


@dataclass(frozen=True, slots=True)
class Touches:
    """The operands of a replay by word, and per memory: the granule of its addresses, and whether anything writes it."""

    by_word: Mapping[int, Sequence[Touch]]
    grains: Mapping[Memory, int]
    written: Set[Memory]


def group(touches: Iterable[tuple[int, Touch]]) -> Touches:
    by_word: dict[int, list[Touch]] = defaultdict(list)
    grains: dict[Memory, int] = defaultdict(int)
    written: set[Memory] = set()
    for index, touch in touches:
        by_word[index].append(touch)
        memory = memory_of(touch.view)
        grains[memory] = math.gcd(grains[memory], *(size for run in runs(touch) for size in (run[0], run[2], run[4], run[5])))
        if touch.access is not Access.R:
            written.add(memory)
    return Touches(by_word, grains, written)


def check_hazards(
    image: Image, entry: Entry, words: Sequence[Dispatch], touches: Touches, findings: Findings, cuts: Sequence[Cut] = ()
) -> "Order | None":
    """Add a finding for each race, read of memory never written, and output that is not written.

    `cuts` are loops of which `words` leaves out iterations. None if one of them turns out not to be steady: nothing is proved then.
    """
    marks = {number for cut in cuts for number in (cut.begin, cut.before, cut.at)}
    seen: dict[int, Snapshot] = {}
    grains, written = touches.grains, touches.written
    shadows = {memory: Shadow(image, memory, grain) for memory, grain in grains.items() if memory in written or not _is_constant(image, memory)}
    order = Order()
    for index, word in enumerate(words):
        if index in marks:
            seen[index] = _snapshot(order, shadows)
        known = order.dispatch(word)
        mine = [(touch, shadow) for touch in touches.by_word.get(index, ()) if (shadow := shadows.get(memory_of(touch.view))) is not None]
        for touch, shadow in mine:
            if not findings.full:
                _check_touch(touch, shadow, order, known, findings)
        for touch, shadow in mine:
            shadow.record(touch, order)
    _check_outputs(entry, words, shadows, findings)
    if not all(is_steady(seen[cut.begin].issued, seen[cut.before], seen[cut.at], order.knew) for cut in cuts):
        return None
    return order


def _snapshot(order: "Order", shadows: Mapping[Memory, "Shadow"]) -> Snapshot:
    last: dict[tuple[Any, ...], NDArray[np.int32]] = {(*memory, *key): cells.copy() for memory, shadow in shadows.items() for key, cells in shadow.last.items()}
    defined: dict[tuple[Any, ...], NDArray[np.bool_]] = {memory: shadow.defined.copy() for memory, shadow in shadows.items()}
    return Snapshot(list(order.issued), list(order.dispatched), last, defined)


def memory_of(view: View) -> Memory:
    return view.space, view.region if view.space is Space.DRAM else Region.WEIGHTS


def _is_constant(image: Image, memory: Memory) -> bool:
    """Whether all of a memory is defined before the launch, so that reading it needs no shadow."""
    return memory[0] is Space.DRAM and memory[1] in _READY and len(image.data(memory[1])) in (0, image.size(memory[1]))


class Order:
    """Which words are certainly complete when a word starts."""

    def __init__(self) -> None:
        self.issued = [0] * len(QUEUES)
        self.pcs: list[list[int]] = [[] for _ in QUEUES]
        self.knew: list[list[list[int]]] = [[] for _ in QUEUES]  # per engine and word: its known vector
        self.dispatched = [0] * len(QUEUES)  # known complete by the dispatcher itself
        self.engine, self.number = -1, 0
        self.implied: dict[tuple[int, int], bool] = {}  # (pc, queue): whether the other waits always imply this one

    def dispatch(self, word: Dispatch) -> list[int]:
        """The known vector of the next word. Its own number is then `number` on queue `engine` (-1: the dispatcher)."""
        self.engine = QUEUES.index(word.engine) if word.engine is not Engine.CTL else -1
        known = list(self.dispatched)
        waits = [count if count != NO_WAIT else None for count in word.inst.deps]
        mask = word.operands.get("mask", 0) if self.engine < 0 else 0
        least: list[int] = []  # words per queue that its wait leaves complete
        for queue, count in enumerate(waits):
            if mask >> queue & 1:
                count = 0
            least.append(self.issued[queue] - count if count is not None else 0)
        if self.engine >= 0 and self.issued[self.engine]:
            known = _merge(known, self.knew[self.engine][-1])  # queues are in order: it started before this one
            if not _DMA[self.engine]:
                known[self.engine] = self.issued[self.engine]
        self._note_implied(word.pc, waits, least, known)
        known = self._learn(known, enumerate(least))
        if self.engine < 0:
            self.dispatched = known
        else:
            self.issued[self.engine] += 1
            self.number = self.issued[self.engine]
            self.pcs[self.engine].append(word.pc)
            self.knew[self.engine].append(known)
        return known

    def _learn(self, known: list[int], least: Iterable[tuple[int, int]]) -> list[int]:
        """Known after waiting until `least` words of the queues are complete: these, and what they knew."""
        for queue, count in least:
            if count > known[queue]:
                known = _merge(known, self.knew[queue][count - 1])
                known[queue] = max(known[queue], count)
        for queue, count in enumerate(tuple(known)):
            if count:
                known = _merge(known, self.knew[queue][count - 1])
        return known

    def _note_implied(self, pc: int, waits: Sequence[int | None], least: Sequence[int], known: list[int]) -> None:
        """Remember which counts of the word the others imply; in a loop only if they do so every time."""
        for queue, count in enumerate(waits):
            if count is not None and self.implied.get((pc, queue), True):
                without = self._learn(list(known), ((other, n) for other, n in enumerate(least) if other != queue))
                self.implied[pc, queue] = without[queue] >= least[queue]


def _merge(a: list[int], b: list[int]) -> list[int]:
    return [x if x > y else y for x, y in zip(a, b, strict=True)]


class Shadow:
    """One memory, a cell per granule: whether it is defined, and per engine the last word that wrote and read it."""

    def __init__(self, image: Image, memory: Memory, grain: int) -> None:
        initialised = (len(image.data(memory[1])) or image.size(memory[1])) if memory[0] is Space.DRAM and memory[1] in _READY else 0
        self.grain = math.gcd(grain, initialised) or 1
        self.cells = -(-capacity(image, *memory) // self.grain)
        self.defined = np.zeros(self.cells, np.bool_)
        self.defined[: initialised // self.grain] = True
        self.last: dict[tuple[str, int], NDArray[np.int32]] = {}  # (writes or reads, engine)

    def cut(self, array: NDArray[Any], run: Run) -> NDArray[Any]:
        """The cells of a run, as a view of `array`."""
        first, planes, plane_stride, rows, row_stride, width = (size // self.grain if i not in (1, 3) else size for i, size in enumerate(run))
        item = array.itemsize
        return np.ndarray((planes, rows, width), array.dtype, array, first * item, (plane_stride * item, row_stride * item, item))

    def latest(self, what: str, engine: int, run: Run) -> int:
        """Number of the last word of an engine that touched the run."""
        array = self.last.get((what, engine))
        return 0 if array is None else int(self.cut(array, run).max())

    def record(self, touch: Touch, order: Order) -> None:
        for run in runs(touch):
            if touch.access is not Access.R:
                self.cut(self.defined, run)[...] = True
            if order.engine < 0:
                continue  # the dispatcher has read its scalar before anything later is dispatched
            for what, concerned in (("writes", touch.access is not Access.R), ("reads", touch.access is not Access.W)):
                if concerned:
                    key = what, order.engine
                    if key not in self.last:
                        self.last[key] = np.zeros(self.cells, np.int32)
                    self.cut(self.last[key], run)[...] = order.number


def _check_touch(touch: Touch, shadow: Shadow, order: Order, known: list[int], findings: Findings) -> None:
    word, name = touch.word, touch.field.name
    doing = "writes" if touch.access is Access.W else "reads"
    for run in runs(touch):
        if touch.access is not Access.W and (word.inst.mnemonic, name) not in _LAZY:
            cells = shadow.cut(shadow.defined, run)
            if not cells.all():
                message = f"operand {name} = {touch.view} reads bytes that were never written{_indices(word)}"
                findings.add("uninitialized", word.pc, word.inst, message, None, name, word.indices)
        # a word's own number is not recorded yet; of its own engine everything before counts like any other engine's words
        for queue, engine in enumerate(QUEUES):
            done, issued = known[queue], order.issued[queue] - (queue == order.engine)
            if done >= issued:
                continue
            for what in ("writes",) if touch.access is Access.R else ("writes", "reads"):
                latest = shadow.latest(what, queue, run)
                if latest > done:
                    other = order.pcs[queue][latest - 1]
                    message = f"{doing} {name} = {touch.view}{_indices(word)} while {engine.value} word at pc {other:#06x}, which {what} it, may be running"
                    findings.add("race", word.pc, word.inst, message, other, name, word.indices)


def _check_outputs(entry: Entry, words: Sequence[Dispatch], shadows: dict[Memory, Shadow], findings: Findings) -> None:
    for tensor in entry.outputs:
        shadow = shadows.get((Space.DRAM, tensor.region))
        first, end = tensor.offset, tensor.offset + tensor.nbytes
        if first < end and (shadow is None or not shadow.defined[first // shadow.grain : -(-end // shadow.grain)].all()):
            last = words[-1]
            findings.add("output", last.pc, last.inst, f"output {tensor.name} is not completely written at the end", None, tensor.name)


def runs(touch: Touch) -> Iterator[Run]:
    """The bytes of an operand as strided runs: one, except for i4 rows that do not begin on a byte."""
    view, (planes, rows, cols) = touch.view, touch.extents
    bits = view.dtype.bits
    width = cols if view.cs else 1
    if (view.rs * bits % 8 and rows > 1) or (view.ps * bits % 8 and planes > 1):
        for plane in range(planes if view.ps else 1):
            for row in range(rows if view.rs else 1):
                start = (plane * view.ps + row * view.rs) * bits
                yield view.base + start // 8, 1, 0, 1, 0, -(-(start + width * bits) // 8) - start // 8
        return
    planes, rows = planes if view.ps else 1, rows if view.rs else 1
    size, row_stride, plane_stride = -(-width * bits // 8), view.rs * bits // 8, view.ps * bits // 8
    if rows > 1 and row_stride == size:
        rows, size = 1, rows * size
    if rows == 1:
        row_stride = 0
        if planes > 1 and plane_stride == size:
            planes, size = 1, planes * size
    yield view.base, planes, plane_stride if planes > 1 else 0, rows, row_stride, size


def _indices(word: Dispatch) -> str:
    return f" (loop indices {', '.join(map(str, word.indices))})" if any(word.indices) else ""
