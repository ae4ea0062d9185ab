"""Fit: the cut of a kernel beside what is resident, by what its first two blocks need and cost.

A usual cut of which two blocks fit is taken as it is. Otherwise the kernel is cut in the way in which it promises to
take the least time: that of its busiest engine where blocks overlap, of the bus where at least loads run ahead, of all
engines in turn where nothing does.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from math import prod

from torch import fx

from compiler.emit import banks
from compiler.emit.emitter import Emitter, TileSizes
from compiler.emit.kernel import emit_kernel, part_blocks
from compiler.emit.tile_sizes import (
    Family,
    SearchPoint,
    both,
    kept_cuts,
    preferred_tilings,
    smallest_cuts,
    streamed_cuts,
)
from compiler.tile.cost import cycles
from compiler.tile.ir import Buffer, Op
from compiler.tile.kernels import Kernel
from compiler.tile.layout import Range
from compiler.tile.loops import form, signature, views
from compiler.tile.nodes import base, dtype, op_name, shape
from compiler.tile.storage import Storage
from isa.architecture import DMA_ENGINES, Engine, Space
from isa.chip import Chip
from isa.errors import CompileError
from isa.timing import ceil_div

ALIGN = 64
MOST_OPS = 100_000  # of one kernel: more would take minutes to compile


@dataclass(frozen=True)
class Room:
    """Bytes beside what is resident while a kernel runs."""

    sram: int
    acc: int

    def shared(self, share: float) -> "Room":
        return Room(int(self.sram * share), int(self.acc * share))


@dataclass(frozen=True)
class MemoryDemand:
    """Bytes that a cut needs: weights that stay, what a block takes beside them, accumulators.

    `ahead` and `acc_ahead` are what a block takes when the next load, and the next product, already have their place.
    """

    kept: int
    moving: int
    ahead: int
    acc: int
    acc_ahead: int

    def fits(self, room: Room) -> bool:
        """One block, one load at a time."""
        return self.kept + self.moving <= room.sram and self.acc <= room.acc

    def streams(self, room: Room) -> bool:
        """One block at a time, the next load beside it: DRAM need not wait."""
        return self.kept + self.ahead <= room.sram and self.acc_ahead <= room.acc

    def overlaps(self, room: Room) -> bool:
        """Two blocks in flight: no engine need wait."""
        return self.kept + 2 * self.moving <= room.sram and 2 * self.acc <= room.acc


@dataclass(frozen=True)
class _Measured:
    """What the first two blocks show: needs with floats in the scratchpad and in ACC, cycles of each engine, and how
    many ops there are in all."""

    narrow: MemoryDemand
    wide: MemoryDemand
    busy: dict[str, int]
    ops: int


@dataclass(frozen=True)
class Fit:
    """A cut, and the cycles for which it keeps each engine busy."""

    cut: TileSizes
    busy: Mapping[str, int]


class TileSizeChooser:
    """Finds the cuts of kernels, and remembers what it has measured: of kernels that are alike, one."""

    def __init__(self, chip: Chip) -> None:
        self.chip = chip
        self.known: dict[object, _Measured] = {}
        self.found: dict[object, Fit] = {}

    def fit(
        self, kernel: Kernel, storage: Storage, room: Room, prefix: str, tuning: SearchPoint, part: Range | None
    ) -> "Fit":
        """The first usual cut of which two blocks fit in `room`, or else of all cuts that with which the kernel
        promises to take the least time.

        Raises CompileError when nothing fits.
        """
        sample = _Sample(
            self.known, self.chip, kernel, storage, prefix, tuning, part, room.shared(tuning.share * tuning.room)
        )
        key = sample.alike, replace(tuning, overlap=0.0, in_turn=False), room  # these two say nothing of cuts
        if key not in self.found:
            cut = self._find(sample, room)
            self.found[key] = Fit(cut, sample.busy(cut))
        return self.found[key]

    def _find(self, sample: "_Sample", room: Room) -> TileSizes:
        given = sample.kernel, self.chip, sample.tuning, sample.rows
        usual = [] if sample.tuning.smallest else list(preferred_tilings(*given))
        for usual_cut in (cut for family in usual for cut in family):
            for cut in sample.passing(usual_cut, MemoryDemand.overlaps):
                return cut
        best: _Choice | None = None
        for kind in () if sample.tuning.smallest else (usual, kept_cuts(*given), streamed_cuts(*given)):
            best = sample.better(kind, best, ordered=kind is not usual)
        *_, last = smallest = list(smallest_cuts(*given))
        best = best or sample.better([[last[-1]]] if sample.tuning.smallest else smallest, None)
        if best is not None:
            return best[1]
        raise self._no_fit(sample, last[-1], room)

    def _no_fit(self, sample: "_Sample", cut: TileSizes, room: Room) -> CompileError:
        """What does not fit, and by how much."""
        kernel, needs = sample.kernel, [sample.need(twin) for twin in both(cut, sample.tuning)]
        if (count := sample.ops(cut)) > MOST_OPS:
            what = f"{kernel.nodes[-1].name} takes {count} words in tiles that fit the chip; {MOST_OPS} are the most for one kernel"
            return CompileError(what, f"kernel {kernel}", "use a chip with a larger scratchpad")
        return CompileError(
            f"the smallest tile of {kernel.nodes[-1].name} needs {min(n.kept + n.moving for n in needs)} bytes of SRAM and "
            f"{min(n.acc for n in needs)} of ACC; chip '{self.chip.name}' has "
            f"{room.sram} of {self.chip.sram.bytes} and {room.acc} of {self.chip.acc.bytes} free",
            f"kernel {kernel}",
            "use a chip with a larger scratchpad",
        )


_Choice = tuple[int, TileSizes]  # cycles, cut


@dataclass(frozen=True)
class _Sample:
    """Measures cuts of one kernel by their first blocks."""

    known: dict[object, _Measured]
    chip: Chip
    kernel: Kernel
    storage: Storage
    prefix: str
    tuning: SearchPoint
    part: Range | None
    room: Room

    @cached_property
    def rows(self) -> int:
        """Points of the domain."""
        sizes = self.kernel.domain
        return prod(sizes) if self.part is None else prod(sizes[1:]) * (self.part[1] - self.part[0])

    @cached_property
    def alike(self) -> object:
        """What kernels have in common that need and cost the same: operations, how they are wired, and where the values
        live."""
        values = self.kernel.values()
        index = {value: number for number, value in enumerate(values)}
        wires = tuple(
            (index[base(operand)], views(operand)) for node in self.kernel.nodes for operand in node.all_input_nodes
        )
        return (
            signature(self.kernel),
            self.part,
            wires,
            tuple((form(value), len(value.users), self._place(value)) for value in values),
        )

    def _place(self, value: fx.Node) -> object:
        """Where a value lives, whatever its buffer is called."""
        home = self.storage.layouts.get(value)
        return None if home is None else (home.buffer.space, home.buffer.region, home.strides, home.offset)

    def better(self, kind: Iterable[Family], best: _Choice | None, ordered: bool = True) -> _Choice | None:
        """The best of `best` and the families of one kind. If they are `ordered`, from many rows to few, the first that
        is not better is the last."""
        own: _Choice | None = None
        for family in kind:
            if best is not None and self._least(family[0]) >= best[0]:
                continue
            cut = self._first(family)
            if cut is None:
                continue
            found = self._cost(cut), cut
            if own is not None and ordered and found[0] >= own[0]:
                break
            own = found if own is None else min(own, found, key=lambda choice: choice[0])
        return own if best is None or (own is not None and own[0] < best[0]) else best

    def _first(self, family: Family) -> TileSizes | None:
        """The first cut of a family that streams, or else the first that fits. Needs fall along a family, so that
        halving finds it."""
        for test in (MemoryDemand.streams, MemoryDemand.fits):
            possible = (
                [twin for cut in family for twin in self.passing(cut, test)]
                if len(family) < 3
                else self._halved(family, test)
            )
            if possible:
                return possible[0]
        return None

    def _halved(self, family: Family, test: Callable[[MemoryDemand, Room], bool]) -> list[TileSizes]:
        """The first cut of a family that passes. The very first often does, and is the one with the fewest words to
        measure."""
        if possible := self.passing(family[0], test):
            return possible
        at = bisect_left(family, True, lo=1, key=lambda cut: bool(self.passing(cut, test)))
        return self.passing(family[at], test) if at < len(family) else []

    def passing(self, cut: TileSizes, test: Callable[[MemoryDemand, Room], bool]) -> list[TileSizes]:
        return [
            twin
            for twin in both(cut, self.tuning)
            if not self._hopeless(twin) and test(self.need(twin), self.room) and self.ops(twin) <= MOST_OPS
        ]

    def _hopeless(self, cut: TileSizes) -> bool:
        """Whether weights or rows alone are larger than the memory: nothing has to be emitted to know it."""
        widest = weights = 0
        for node in self.kernel.nodes:
            if op_name(node) == "matmul_i8" and len(shape(node.args[1])) == 2:  # type: ignore[arg-type]
                k, n = shape(node.args[0])[-1], shape(node)[-1]  # type: ignore[arg-type]
                weights = max(weights, k * n if cut.keep else min(k, cut.k) * min(ceil_div(n, cut.groups), cut.n))
            elif op_name(node) == "dequantize" and node not in self.storage.layouts:
                depth = len(self.kernel.domain)
                widest = max(
                    widest,
                    min(cut.rows, self.rows) * ceil_div(prod(shape(node)[depth:]), cut.groups) * dtype(node).bits // 8,
                )
        most = max(self.room.sram, self.room.acc) if cut.wide else self.room.sram
        return weights > self.room.sram or widest > most

    def need(self, cut: TileSizes) -> MemoryDemand:
        """Memory, measured on the first block."""
        measured = self._measured(cut)
        return measured.wide if cut.wide else measured.narrow

    def busy(self, cut: TileSizes) -> Mapping[str, int]:
        """Cycles of each engine, and of the bus."""
        return self._measured(cut).busy

    def ops(self, cut: TileSizes) -> int:
        """How many ops the kernel has."""
        return self._measured(cut).ops

    def _cost(self, cut: TileSizes) -> int:
        """Cycles of the kernel."""
        busy, need = self._measured(cut).busy, self.need(cut)
        if need.overlaps(self.room):
            return max(busy.values())
        inside = sum(count for engine, count in busy.items() if engine != "bus")
        return max(busy["bus"], inside) if need.streams(self.room) else busy["bus"] + inside

    def _least(self, cut: TileSizes) -> int:
        """Cycles that the array and the bus need at least with blocks of so many rows, without a look at any word."""
        chip, count = self.chip, self._blocks(cut)
        slots = max(self.rows, count * ceil_div(chip.mxu.rows, chip.mxu.weight_rows_per_cycle))
        mxu = loaded = 0
        for node in self.kernel.nodes:
            if op_name(node) == "matmul_i8" and len(shape(node.args[1])) == 2:  # type: ignore[arg-type]
                k, n = shape(node.args[0])[-1], shape(node)[-1]  # type: ignore[arg-type]
                mxu += (k // chip.mxu.rows) * (n // chip.mxu.cols) * slots
                loaded += k * n * (1 if cut.keep else count)
        return max(mxu, loaded * chip.clock_hz // chip.dram.bytes_per_second)

    def _blocks(self, cut: TileSizes) -> int:
        return sum(1 for _ in part_blocks(self.kernel, cut.rows, self.part))

    def _measured(self, cut: TileSizes) -> _Measured:
        """From the first two blocks, emitted with everything in the scratchpad; those behind are like the second."""
        cut = replace(cut, wide=False)
        key = self.alike, cut
        if key not in self.known:
            e = emit_kernel(self.kernel, self.storage, cut, self.prefix, self.part, only=2)
            border = e.marks[cut.groups] if len(e.marks) > cut.groups else len(e.ops)
            once, again = _busy(e.ops[:border], self.chip), _busy(e.ops[border:], self.chip)
            more = self._blocks(cut) - 1
            busy = {engine: once[engine] + more * again[engine] for engine in once}
            ops = border + more * (len(e.ops) - border)
            layouts = {layout.buffer for layout in self.storage.layouts.values()}
            self.known[key] = _Measured(*_needs(e, layouts), busy, ops)
        return self.known[key]


def _needs(e: Emitter, layouts: set[Buffer]) -> tuple[MemoryDemand, MemoryDemand]:
    """What the first block of an emitted kernel needs, with floats in the scratchpad, and with all that may lie in ACC
    there."""
    ops = e.ops[: e.marks[1]] if len(e.marks) > 1 else e.ops
    lives = lives_of(ops, e.kept, layouts)
    held = sum(_bytes(life.buffer) for life in lives if life.buffer in e.kept)

    def need(moved: set[Buffer]) -> MemoryDemand:
        places = [(life, Space.ACC if life.buffer in moved else life.buffer.space) for life in lives]
        sram, acc = ([life for life, place in places if place is space] for space in (Space.SRAM, Space.ACC))
        return MemoryDemand(
            held * e.cut.groups,
            peak_bytes(sram) - held,
            peak_bytes(sram, True) - held,
            peak_bytes(acc),
            peak_bytes(acc, True),
        )

    return need(set()), need(banks.movable(e.ops))


@dataclass(frozen=True, slots=True)
class Life:
    """From which op to which a buffer is there. `early`: its first op if each load, and each product, has its place as
    soon as the one before it begins."""

    buffer: Buffer
    first: int
    early: int
    last: int


def lives_of(ops: Sequence[Op], kept: set[Buffer], layouts: set[Buffer]) -> list[Life]:
    """The buffers on chip that are nobody's home, in this order of ops; `kept` ones stay to the end."""
    first: dict[Buffer, tuple[int, int]] = {}
    last: dict[Buffer, int] = {}
    before: dict[Engine, int] = {}  # where each engine that fills memory began its last buffer
    for i, op in enumerate(ops):
        engine = op.row.engine
        for ref in op.views:
            if ref is not None and ref.buffer.space is not Space.DRAM and ref.buffer not in layouts:
                if ref.buffer not in first:
                    first[ref.buffer] = i, before.get(engine, i)
                    if engine in (Engine.LDW, Engine.MXU):
                        before[engine] = i
                last[ref.buffer] = i
    return [Life(buffer, *start, len(ops) if buffer in kept else last[buffer]) for buffer, start in first.items()]


def peak_bytes(lives: Sequence[Life], early: bool = False) -> int:
    """Most bytes that are there at once."""
    change = Counter[int]()
    for life in lives:
        change[life.early if early else life.first] += _bytes(life.buffer)
        change[life.last + 1] -= _bytes(life.buffer)
    return max(accumulate(change[i] for i in sorted(change)), default=0)


def _bytes(buffer: Buffer) -> int:
    return ceil_div(buffer.bytes, ALIGN) * ALIGN


def _busy(ops: Sequence[Op], chip: Chip) -> dict[str, int]:
    """Cycles of each engine; the DMA queues share one bus."""
    busy = dict.fromkeys(("bus", "mxu", "vec", "act"), 0)
    for op in ops:
        busy["bus" if op.row.engine in DMA_ENGINES else op.row.engine.value] += cycles(op, chip)
    return busy
