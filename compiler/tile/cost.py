"""How long a tile op occupies its engine, by the rules of docs/timing.md. Guides the schedule; never reported."""

from dataclasses import replace

from compiler.tile.ir import Op
from isa.architecture import Region, Space
from isa.chip import Chip
from isa.timing import ACT_LATENCY, VEC_LATENCY, ceil_div, dram_bytes, product, vector_cycles
from isa.views import View

TYPICAL = 512  # of an extent that only a launch knows, where it may be longer


def cycles(op: Op, chip: Chip) -> int:
    """Estimated busy cycles of one op on `chip`."""
    if op.cut is not None:
        op = replace(op, cut=None, attrs=tuple({**dict(op.attrs), op.cut[0]: min(TYPICAL, op.cut[1].most)}.items()))
    return {"mxu": _mxu, "vec": _vec, "act": _act, "dma": _dma}[op.row.cost.formula](op, chip)


def _mxu(op: Op, chip: Chip) -> int:
    return product(op.operands, any(name == "ss" for name, *_ in op.accesses), chip.mxu).busy


def _vec(op: Op, chip: Chip) -> int:
    o = op.operands
    given = op.mnemonic == "vqd" and op.views[-1] is not None
    return (
        vector_cycles(o["planes"], o["rows"], o["cols"], chip.vec.lanes, 1 if given else op.row.cost.passes)
        + VEC_LATENCY
    )


def _act(op: Op, chip: Chip) -> int:
    return vector_cycles(1, op.operands["rows"], op.operands["cols"], chip.act.lanes) + ACT_LATENCY


def _dma(op: Op, chip: Chip) -> int:
    """Cycles on the bus, alone."""
    for _, ref, extents, _ in op.accesses:
        if ref.buffer.space is Space.DRAM:
            rows = (1, op.operands["n"], op.operands["cols"]) if op.mnemonic == "gather" else extents
            view = View(Space.DRAM, Region.WEIGHTS, ref.dtype, 0, ref.rs, ref.ps, ref.cs)
            data = dram_bytes(view, rows, chip.dram.burst_bytes, merge=op.mnemonic != "gather")
            return ceil_div(data * chip.clock_hz, chip.dram.bytes_per_second)
    raise AssertionError(f"{op.mnemonic} touches no DRAM")
