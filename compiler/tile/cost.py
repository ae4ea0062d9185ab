"""How long a tile op occupies its engine, by the rules of docs/timing.md. Guides the schedule; never reported."""

from dataclasses import replace

from compiler.tile.ir import Op
from isa.architecture import Region, Space
from isa.chip import Chip
from isa.timing import (
    ACT_LATENCY,
    DMA_LATENCY,
    VEC_LATENCY,
    Occupancy,
    ceil_div,
    dram_bytes,
    product,
    vector_cycles,
)
from isa.views import View


def cycles(op: Op, chip: Chip) -> int:
    """Estimated busy cycles of one op on `chip`; of a transfer, alone on the bus."""
    taken = occupancy(op, chip)
    return taken.busy + (taken.latency if taken.blocking else 0)


def occupancy(op: Op, chip: Chip) -> Occupancy:
    """What one op asks of its engine; a transfer is `busy` while it has the bus to itself."""
    if op.cut is not None:
        name, length = op.cut
        extent = length.at(length.usual)
        op = replace(op, cut=None, attrs=tuple({**dict(op.attrs), name: extent}.items()))
    return {"mxu": _mxu, "vec": _vec, "act": _act, "dma": _dma}[op.row.cost.formula](op, chip)


def _mxu(op: Op, chip: Chip) -> Occupancy:
    return product(op.operands, any(name == "ss" for name, *_ in op.accesses), chip.mxu)


def _vec(op: Op, chip: Chip) -> Occupancy:
    o = op.operands
    given = op.mnemonic == "vqd" and op.views[-1] is not None
    busy = vector_cycles(o["planes"], o["rows"], o["cols"], chip.vec.lanes, 1 if given else op.row.cost.passes)
    return Occupancy(busy=busy, latency=VEC_LATENCY, blocking=True)


def _act(op: Op, chip: Chip) -> Occupancy:
    busy = vector_cycles(1, op.operands["rows"], op.operands["cols"], chip.act.lanes)
    return Occupancy(busy=busy, latency=ACT_LATENCY, blocking=True)


def _dma(op: Op, chip: Chip) -> Occupancy:
    for _, ref, extents, _ in op.accesses:
        if ref.buffer.space is Space.DRAM:
            rows = (1, op.operands["n"], op.operands["cols"]) if op.mnemonic == "gather" else extents
            view = View(Space.DRAM, Region.WEIGHTS, ref.dtype, 0, ref.rs, ref.ps, ref.cs)
            data = dram_bytes(view, rows, chip.dram.burst_bytes, merge=op.mnemonic != "gather")
            busy = ceil_div(data * chip.clock_hz, chip.dram.bytes_per_second)
            return Occupancy(busy=busy, latency=DMA_LATENCY + chip.dram.latency_cycles)
    raise AssertionError(f"{op.mnemonic} touches no DRAM")
