"""The timing rules of docs/timing.md: what one instruction costs on a chip. Pure functions of shapes, no program and no
clock.

    occupancy(instruction, chip) -> Occupancy(load, busy, last, latency, bytes)

The ISA table names each instruction's formula and passes (`Cost`), the chip file has every size. The timing emulator
puts these costs into an order, the compiler's cost model may use them as they are, and `runtime.profile.roofline` uses
the geometry alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from isa.architecture import Space
from isa.chip import Chip, Mxu
from isa.constants import GROUP_LANES
from isa.fields import Cost
from isa.replay import Dispatch
from isa.spec import MM_FORMAT
from isa.views import Extents, View, part_length

VEC_LATENCY = 16  # cycles from the last element's entry to the result
ACT_LATENCY = 24
DMA_LATENCY = 8  # to set up and to complete a transfer, beside the DRAM's own latency
FLOAT_SLOWDOWN = (
    4  # assumed: a float32 multiply-add takes the room of four int8 ones, so a float row enters every fourth cycle
)
WIDE_SLOWDOWN = 2  # assumed: a code times its sub-scale is a weight of 16 bits, which takes the room of two
SAVED_PASS = "am"  # an operand that spares an instruction its first pass: the row maxima that `vqd` would have to find
BUS_PARTS = 6  # a share of the bus is 1, 1/2 or 1/3, so all are whole sixths


@dataclass(frozen=True, slots=True)
class Options:
    """Variants of the machine. `overlap` off: each fold of a GEMM loads R weight rows one by one, streams and drains
    before the next."""

    overlap: bool = True


DEFAULT = Options()


class Occupancy(NamedTuple):
    """What an instruction asks of its engine, in cycles.

    `load` before its first row can stream (MXU weights), `busy` while it has the engine (for DMA instructions the bus
    decides, from `bytes`), `last` from the first row to the start of the last tile, when the weight buffer is free for
    the next instruction, `latency` after that until it completes; `blocking` if the engine is not free before then.
    """

    load: int = 0
    busy: int = 0
    last: int = 0
    latency: int = 0
    blocking: bool = False
    bytes: int = 0


class Bus(NamedTuple):
    """The DRAM port in whole numbers: n bytes are n * `per_byte` units of work; each of k transfers moves `shares[k]`
    in a cycle."""

    per_byte: int
    shares: tuple[int, int, int, int]


def bus(chip: Chip) -> Bus:
    """Bandwidth per cycle as an exact ratio, so that nothing is ever rounded."""
    rate = Fraction(chip.dram.bytes_per_second, chip.clock_hz)
    return Bus(BUS_PARTS * rate.denominator, (0, *(BUS_PARTS * rate.numerator // k for k in (1, 2, 3))))  # type: ignore[arg-type]


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def dram_bytes(view: View, extents: Extents, burst: int, merge: bool = True) -> int:
    """Bytes that a block costs the bus: every run of consecutive bytes is rounded up to whole bursts.

    Rows that follow each other without a gap are one run (not with `merge` off: gathered rows are separate requests).
    A row repeated by a stride of 0 is fetched again each time; an element repeated along its row is fetched once.
    """
    planes, rows, cols = extents
    if not (planes and rows and cols):
        return 0
    run, runs = cols if view.cs else 1, planes * rows
    if merge and (rows == 1 or view.rs == run):
        run, runs = run * rows, planes
        if planes == 1 or view.ps == run:
            run, runs = run * planes, 1
    return runs * ceil_div(ceil_div(run * view.dtype.bits, 8), burst) * burst


def vector_cycles(planes: int, rows: int, cols: int, lanes: int, passes: int = 1) -> int:
    """Cycles in which elements enter a vector engine; its latency comes on top.

    Rows shorter than the lanes are packed: as many rows enter together as segments of a power of two fit.
    """
    segment = 1 << max(cols - 1, 0).bit_length()
    return ceil_div(planes * rows, max(lanes // segment, 1)) * ceil_div(cols, lanes) * passes


def planes_at_once(b: int, k: int, n: int, mxu: Mxu) -> int:
    """Planes (heads) that one pass of the array takes.

    Two with `split`, if each fits half of it: half of the rows (k <= R/2, the scores of attention), or half of the
    columns (n <= C/2, attention times values). Each half has its own row input and accumulator output.
    """
    return 2 if mxu.split and b > 1 and (2 * k <= mxu.rows or 2 * n <= mxu.cols) else 1


def matmul_passes(b: int, k: int, n: int, mxu: Mxu, depth: int = 0) -> int:
    """Passes of m rows through the array: the geometry of a GEMM. `depth` limits the rows of a tile of k."""
    step = min(mxu.rows, depth or mxu.rows)
    return ceil_div(b, planes_at_once(b, k, n, mxu)) * ceil_div(k, step) * ceil_div(n, mxu.cols)


def drain_cycles(mxu: Mxu) -> int:
    """From the last row's entry into the array to its last result: it crosses all rows and all columns."""
    return mxu.rows + mxu.cols - 2


def matmul(
    b: int, m: int, n: int, k: int, mxu: Mxu, options: Options = DEFAULT, depth: int = 0, slowdown: int = 1
) -> Occupancy:
    """A weight-stationary GEMM: tiles in the order plane, n, k; each streams m rows while the next one's weights load.

    `depth` limits the rows of a tile of k (quantization groups must not mix in a column), `slowdown` is cycles per row.
    """
    drain = drain_cycles(mxu)
    step = min(mxu.rows, depth or mxu.rows)
    folds = ceil_div(k, step)
    across = ceil_div(n, mxu.cols)
    if not (b and m and n and k):
        return Occupancy(latency=drain)
    if not options.overlap:
        return Occupancy(busy=b * folds * across * (mxu.rows + m * slowdown + drain), blocking=True)
    pairs = planes_at_once(b, k, n, mxu)
    stacked = 2 if pairs == 2 and 2 * k <= mxu.rows else 1  # two planes' weights above each other
    turns, odd = divmod(b, pairs)
    loads = [_load(stacked * min(step, k - i * step), mxu) for i in range(folds)]
    single = [_load(min(step, k - i * step), mxu) for i in range(folds)] if odd else []
    stream = m * slowdown
    total = (
        sum(max(stream, load) for load in loads) * across * turns + sum(max(stream, load) for load in single) * across
    )
    first = (loads if turns else single)[0]
    last = total - max(
        stream, first
    )  # every tile but the first waits for its own weights; the last one's rows come at the end
    return Occupancy(first, last + stream, last, drain)


def _load(rows: int, mxu: Mxu) -> int:
    return ceil_div(rows, mxu.weight_rows_per_cycle)


def occupancy(instruction: Dispatch, chip: Chip, options: Options = DEFAULT) -> Occupancy:
    """What a dispatched instruction costs, by the formula that its row of the ISA table names."""
    cost = instruction.inst.row.cost
    return FORMULAS[cost.formula](instruction, cost, chip, options)


def _ctl(instruction: Dispatch, cost: Cost, chip: Chip, options: Options) -> Occupancy:
    """One cycle of dispatch; a scalar that comes from DRAM keeps dispatch waiting for it."""
    remote = any(view.space is Space.DRAM for view in instruction.views.values())
    return Occupancy(busy=1 + (DMA_LATENCY + chip.dram.latency_cycles if remote else 0))


def _dma(instruction: Dispatch, cost: Cost, chip: Chip, options: Options) -> Occupancy:
    gathered = "idx" in instruction.views
    extents = instruction.extents(instruction.inst.row.field("d"))
    moved = sum(
        dram_bytes(v, extents, chip.dram.burst_bytes, not gathered)
        for v in instruction.views.values()
        if v.space is Space.DRAM
    )
    return Occupancy(latency=DMA_LATENCY + chip.dram.latency_cycles, bytes=moved)


def _mxu(instruction: Dispatch, cost: Cost, chip: Chip, options: Options) -> Occupancy:
    return product(instruction.operands, "ss" in instruction.views, chip.mxu, options, cost.passes)


def product(
    op: Mapping[str, int], sub_scaled: bool, mxu: Mxu, options: Options = DEFAULT, passes: int = 1
) -> Occupancy:
    """The GEMM of an instruction of the array, by its operands; `sub_scaled` if its weights have sub-scales."""
    depth, slowdown = grouped_pace(part_length("g", op), sub_scaled) if "glog" in op else (0, 1)
    if "fmt" in op and MM_FORMAT[op["fmt"]] == "float":
        slowdown = FLOAT_SLOWDOWN
    return matmul(op.get("b", 1), op["m"], op["n"], op["k"], mxu, options, depth, slowdown * passes)


def grouped_pace(group: int, sub_scaled: bool) -> tuple[int, int]:
    """Of a grouped product: most rows in a tile of k, since a column must not mix groups or lanes, and cycles per
    row."""
    return (group // GROUP_LANES, WIDE_SLOWDOWN) if sub_scaled else (group, 1)


def _vec(instruction: Dispatch, cost: Cost, chip: Chip, options: Options) -> Occupancy:
    passes = cost.passes - (SAVED_PASS in instruction.views)
    return Occupancy(busy=_elements(instruction.operands, chip.vec.lanes) * passes, latency=VEC_LATENCY, blocking=True)


def _act(instruction: Dispatch, cost: Cost, chip: Chip, options: Options) -> Occupancy:
    return Occupancy(
        busy=_elements(instruction.operands, chip.act.lanes) * cost.passes, latency=ACT_LATENCY, blocking=True
    )


def _elements(operands: Mapping[str, int], lanes: int) -> int:
    return vector_cycles(operands.get("planes", 1), operands["rows"], operands["cols"], lanes)


Formula = Callable[[Dispatch, Cost, Chip, Options], Occupancy]
FORMULAS: dict[str, Formula] = {"ctl": _ctl, "dma": _dma, "mxu": _mxu, "vec": _vec, "act": _act}
