"""Fit: the tile sizes of a kernel beside what is resident, by what its first two blocks need and cost.

A usual tiling of which two blocks fit is taken as it is. Otherwise the kernel is tiled in the way in which it is
predicted to take the least time: that of its busiest engine where blocks overlap, of the bus where at least loads run
ahead, of all engines in turn where nothing does.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import accumulate
from math import prod

from compiler.emit import banks
from compiler.emit.emitter import Emitter
from compiler.emit.kernel import emit_kernel, part_blocks, part_domain
from compiler.emit.recent import Recent
from compiler.emit.tile_sizes import (
    Family,
    SearchPoint,
    both,
    kept_tilings,
    preferred_tilings,
    smallest_tilings,
    streamed_tilings,
)
from compiler.ops.record import Role
from compiler.tile.batch_tile import Part
from compiler.tile.cost import cycles
from compiler.tile.decisions import TileSizes
from compiler.tile.ir import Buffer, Op
from compiler.tile.kernel_op import KernelOp
from compiler.tile.kernels import Kernel, signature, views
from compiler.tile.lanes import cut_columns
from compiler.tile.storage import Storage
from isa.architecture import DMA_ENGINES, Engine, Space
from isa.chip import Chip
from isa.errors import CompileError
from isa.timing import ceil_div

ALIGN = 64
MOST_OPS = 100_000  # of one kernel: more would take minutes to compile
MOST_SAMPLED = 100_000  # ops in samples that are remembered


@dataclass(frozen=True)
class Room:
    """Bytes beside what is resident while a kernel runs."""

    sram: int
    acc: int

    def shared(self, share: float) -> "Room":
        return Room(int(self.sram * share), int(self.acc * share))


@dataclass(frozen=True)
class MemoryDemand:
    """Bytes that a tiling needs: weights that stay, what a block takes beside them, accumulators.

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
class Sample:
    """The first two blocks of a kernel, on whatever chip: their ops, for how many each stands, where the second block
    begins; needs with floats in the scratchpad and in ACC."""

    ops: Sequence[Op]
    times: Sequence[int]
    border: int
    narrow: MemoryDemand
    wide: MemoryDemand


@dataclass(frozen=True)
class _Measured:
    """What a sample shows: needs, cycles of each engine, and how many ops there are in all."""

    narrow: MemoryDemand
    wide: MemoryDemand
    busy: dict[str, int]
    ops: int


@dataclass(frozen=True)
class Fit:
    """A tiling, the cycles for which it keeps each engine busy, and how many ops it takes."""

    tiling: TileSizes
    busy: Mapping[str, int]
    ops: int


@dataclass(frozen=True)
class TileSizeChooser:
    """Finds the tilings of kernels, and remembers what it has measured: of kernels that are alike, one."""

    chip: Chip
    samples: Recent[Sample] = field(default_factory=lambda: Recent(MOST_SAMPLED))
    known: "dict[object, _Measured]" = field(default_factory=dict)
    found: "dict[object, Fit]" = field(default_factory=dict)

    def fit(
        self, kernel: Kernel, storage: Storage, room: Room, prefix: str, tuning: SearchPoint, part: Part | None
    ) -> "Fit":
        """The first usual tiling of which two blocks fit in `room`, or else of all tilings that with which the kernel
        is predicted to take the least time.

        Raises CompileError when nothing fits.
        """
        own = room.shared(tuning.share * tuning.room)
        sample = _Sampled(self.samples, self.known, self.chip, kernel, storage, prefix, tuning, part, own)
        key = sample.alike, replace(tuning, overlap=0.0, in_turn=False, window=0), room  # these say nothing of tilings
        if key not in self.found:
            tiling = replace(self._find(sample, room), lanes=sample.lanes)
            self.found[key] = Fit(tiling, sample.busy(tiling), sample.ops(tiling))
        return self.found[key]

    def least(self, kernel: Kernel, part: Part | None) -> Mapping[str, int]:
        """Cycles for which the kernel keeps array and bus busy, whatever its tiling."""
        return products_of(kernel, self.chip, points_of(kernel, part))

    def _find(self, sample: "_Sampled", room: Room) -> TileSizes:
        given = sample.kernel, self.chip, sample.tuning, sample.rows
        usual = [] if sample.tuning.smallest else list(preferred_tilings(*given))
        for usual_tiling in (tiling for family in usual for tiling in family):
            for tiling in sample.passing(usual_tiling, MemoryDemand.overlaps):
                return tiling
        best: _Choice | None = None
        for kind in () if sample.tuning.smallest else (usual, kept_tilings(*given), streamed_tilings(*given)):
            best = sample.better(kind, best, ordered=kind is not usual)
        *_, last = smallest = list(smallest_tilings(*given))
        best = best or sample.better([[last[-1]]] if sample.tuning.smallest else smallest, None)
        if best is not None:
            return best[1]
        raise self._no_fit(sample, last[-1], room)

    def _no_fit(self, sample: "_Sampled", tiling: TileSizes, room: Room) -> CompileError:
        """What does not fit, and by how much."""
        kernel, needs = sample.kernel, [sample.need(twin) for twin in both(tiling, sample.tuning)]
        if (count := sample.ops(tiling)) > MOST_OPS:
            what = (
                f"{kernel.nodes[-1].name} takes {count} instructions in tiles that fit the chip; {MOST_OPS} are the most "
                "for one kernel"
            )
            return CompileError(what, f"kernel {kernel}", "use a chip with a larger scratchpad")
        return CompileError(
            f"the smallest tile of {kernel.nodes[-1].name} needs {min(n.kept + n.moving for n in needs)} bytes of SRAM and "
            f"{min(n.acc for n in needs)} of ACC; chip '{self.chip.name}' has "
            f"{room.sram} of {self.chip.sram.bytes} and {room.acc} of {self.chip.acc.bytes} free",
            f"kernel {kernel}",
            "use a chip with a larger scratchpad",
        )


_Choice = tuple[int, TileSizes]  # cycles, tiling


@dataclass(frozen=True)
class _Sampled:
    """Measures tilings of one kernel by their first blocks."""

    samples: Recent[Sample]
    known: dict[object, _Measured]
    chip: Chip
    kernel: Kernel
    storage: Storage
    prefix: str
    tuning: SearchPoint
    part: Part | None
    room: Room

    @cached_property
    def rows(self) -> int:
        return points_of(self.kernel, self.part)

    @cached_property
    def lanes(self) -> int:
        """Those of VEC, if rows are to be cut for them and some are."""
        lanes, widths = self.chip.vec.lanes, {node.shape[-1] for node in self.kernel.nodes if node.shape}
        cut = self.tuning.cut and any(cut_columns(self.rows, width, lanes) != (width,) for width in widths)
        return lanes if cut else 0

    @cached_property
    def alike(self) -> object:
        """What kernels have in common that need and cost the same: operations, how they are wired, and where the values
        live."""
        values = self.kernel.values()
        index = {value: number for number, value in enumerate(values)}
        wires = tuple((index[operand.base], views(operand)) for node in self.kernel.nodes for operand in node.operands)
        return (
            signature(self.kernel),
            self.part,
            wires,
            tuple((value.results, len(value.users), self._place(value)) for value in values),
        )

    def _place(self, value: KernelOp) -> object:
        """Where a value lives, whatever its buffer is called."""
        stored = self.storage.layouts.get(value)
        return None if stored is None else (stored.buffer.space, stored.buffer.region, stored.strides, stored.offset)

    def better(self, kind: Iterable[Family], best: _Choice | None, ordered: bool = True) -> _Choice | None:
        """The best of `best` and the families of one kind. If they are `ordered`, from many rows to few, the first that
        is not better is the last."""
        own: _Choice | None = None
        for family in kind:
            if best is not None and self._least(family[0]) >= best[0]:
                continue
            tiling = self._first(family)
            if tiling is None:
                continue
            found = self._cost(tiling), tiling
            if own is not None and ordered and found[0] >= own[0]:
                break
            own = found if own is None else min(own, found, key=lambda choice: choice[0])
        return own if best is None or (own is not None and own[0] < best[0]) else best

    def _first(self, family: Family) -> TileSizes | None:
        """The first tiling of a family that streams, or else the first that fits. Needs fall along a family, so that
        halving finds it."""
        for test in (MemoryDemand.streams, MemoryDemand.fits):
            possible = (
                [twin for tiling in family for twin in self.passing(tiling, test)]
                if len(family) < 3
                else self._halved(family, test)
            )
            if possible:
                return possible[0]
        return None

    def _halved(self, family: Family, test: Callable[[MemoryDemand, Room], bool]) -> list[TileSizes]:
        """The first tiling of a family that passes. The very first often does, and is the one with the fewest
        instructions to measure."""
        if possible := self.passing(family[0], test):
            return possible
        at = bisect_left(family, True, lo=1, key=lambda tiling: bool(self.passing(tiling, test)))
        return self.passing(family[at], test) if at < len(family) else []

    def passing(self, tiling: TileSizes, test: Callable[[MemoryDemand, Room], bool]) -> list[TileSizes]:
        return [
            twin
            for twin in both(tiling, self.tuning)
            if not self._hopeless(twin) and test(self.need(twin), self.room) and self.ops(twin) <= MOST_OPS
        ]

    def _hopeless(self, tiling: TileSizes) -> bool:
        """Whether weights or rows alone are larger than the memory: nothing has to be emitted to know it."""
        widest = weights = 0
        for node, last in ((op, step.last) for step in self.kernel.steps for op in step.ops):
            if node.role is Role.MATMUL and len(node.operands[1].shape) == 2:
                k, n = node.operands[0].shape[-1], node.shape[-1]
                weights = max(
                    weights, k * n if tiling.keep else min(k, tiling.k) * min(ceil_div(n, tiling.groups), tiling.n)
                )
            elif node.kind == "dequantize" and last not in self.storage.layouts:
                depth = len(self.kernel.domain)
                widest = max(
                    widest,
                    min(tiling.rows, self.rows)
                    * ceil_div(prod(node.shape[depth:]), tiling.groups)
                    * node.dtype.bits
                    // 8,
                )
        most = max(self.room.sram, self.room.acc) if tiling.wide else self.room.sram
        return weights > self.room.sram or widest > most

    def need(self, tiling: TileSizes) -> MemoryDemand:
        """Memory, measured on the first block."""
        measured = self._measured(tiling)
        return measured.wide if tiling.wide else measured.narrow

    def busy(self, tiling: TileSizes) -> Mapping[str, int]:
        """Cycles of each engine, and of the bus."""
        return self._measured(tiling).busy

    def ops(self, tiling: TileSizes) -> int:
        """How many ops the kernel has."""
        return self._measured(tiling).ops

    def _cost(self, tiling: TileSizes) -> int:
        """Cycles of the kernel."""
        busy, need = self._measured(tiling).busy, self.need(tiling)
        if need.overlaps(self.room):
            return max(busy.values())
        inside = sum(count for engine, count in busy.items() if engine != "bus")
        return max(busy["bus"], inside) if need.streams(self.room) else busy["bus"] + inside

    def _least(self, tiling: TileSizes) -> int:
        """Cycles that the array and the bus need at least with blocks of so many rows, without a look at any
        instruction."""
        blocks = self._blocks(tiling)
        slots = max(self.rows, blocks * ceil_div(self.chip.mxu.rows, self.chip.mxu.weight_rows_per_cycle))
        return max(products_of(self.kernel, self.chip, slots, 1 if tiling.keep else blocks).values())

    def _blocks(self, tiling: TileSizes) -> int:
        return sum(1 for _ in part_blocks(self.kernel, tiling.rows, self.part))

    def _measured(self, tiling: TileSizes) -> _Measured:
        """From the first two blocks; those behind are like the second."""
        tiling = replace(tiling, wide=False, lanes=self.lanes)
        key = self.alike, tiling
        if key not in self.known:
            one = self.samples.get(key, partial(self._sample, tiling))
            once = _busy(one.ops[: one.border], one.times[: one.border], self.chip)
            again = _busy(one.ops[one.border :], one.times[one.border :], self.chip)
            more = self._blocks(tiling) - 1
            busy = {engine: once[engine] + more * again[engine] for engine in once}
            ops = sum(one.times[: one.border]) + more * sum(one.times[one.border :])
            self.known[key] = _Measured(one.narrow, one.wide, busy, ops)
        return self.known[key]

    def _sample(self, tiling: TileSizes) -> Sample:
        """Emitted with everything in the scratchpad. Of the tiles in a block, some are enough, unless they all stay."""
        some = not tiling.keep
        e = emit_kernel(self.kernel, self.storage, tiling, self.prefix, self.part, only=2, some=some)
        border = e.block_starts[tiling.groups] if len(e.block_starts) > tiling.groups else len(e.ops)
        layouts = {layout.buffer for layout in self.storage.layouts.values()}
        return Sample(e.ops, e.times, border, *_needs(e, layouts))


def points_of(kernel: Kernel, part: Part | None) -> int:
    """Points of the domain."""
    return prod(part_domain(kernel, part))


def products_of(kernel: Kernel, chip: Chip, slots: int, loads: int = 1) -> dict[str, int]:
    """Cycles that the products of a kernel take at least on the array, `slots` for each tile of weights, and on the bus,
    their weights loaded so many times."""
    mxu = loaded = 0
    for node in kernel.nodes:
        if node.role is Role.MATMUL and len(node.operands[1].shape) == 2:
            k, n, weight = node.operands[0].shape[-1], node.shape[-1], node.operands[1]
            mxu += (k // chip.mxu.rows) * (n // chip.mxu.cols) * slots
            loaded += k * n * weight.dtype.bits // 8 * loads if weight.base.is_weight else 0
    return {"mxu": mxu, "bus": loaded * chip.clock_hz // chip.dram.bytes_per_second}


def _needs(e: Emitter, layouts: set[Buffer]) -> tuple[MemoryDemand, MemoryDemand]:
    """What the first block of an emitted kernel needs, with floats in the scratchpad, and with all that may lie in ACC
    there."""
    ops = e.ops[: e.block_starts[1]] if len(e.block_starts) > 1 else e.ops
    lives = lives_of(ops, e.kept, layouts)
    held = sum(_bytes(life.buffer) for life in lives if life.buffer in e.kept)

    def need(moved: set[Buffer]) -> MemoryDemand:
        places = [(life, Space.ACC if life.buffer in moved else life.buffer.space) for life in lives]
        sram, acc = ([life for life, place in places if place is space] for space in (Space.SRAM, Space.ACC))
        return MemoryDemand(
            held * e.tiling.groups,
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
    """The buffers on chip that are nobody's storage, in this order of ops; `kept` ones stay to the end."""
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


def _busy(ops: Sequence[Op], times: Sequence[int], chip: Chip) -> dict[str, int]:
    """Cycles of each engine for ops that stand for so many; the DMA queues share one bus."""
    busy = dict.fromkeys(("bus", "mxu", "vec", "act"), 0)
    for op, count in zip(ops, times, strict=True):
        busy["bus" if op.row.engine in DMA_ENGINES else op.row.engine.value] += count * cycles(op, chip)
    return busy
