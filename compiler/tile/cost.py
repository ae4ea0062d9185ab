"""How long a tile op occupies its engine, by the rules of docs/timing.md. Guides the schedule; never reported."""

from compiler.tile.ir import Op
from isa.chip import Chip
from isa.spec import Space


def cycles(op: Op, chip: Chip) -> int:
    """Estimated busy cycles of one op on `chip`."""
    return {"mxu": _mxu, "vec": _vec, "act": _act, "dma": _dma}[op.row.cost.formula](op, chip)


def _mxu(op: Op, chip: Chip) -> int:
    o = op.operands
    tiles = o["b"] * -(-o["k"] // chip.mxu.rows) * -(-o["n"] // chip.mxu.cols)
    return tiles * max(o["m"], -(-min(o["k"], chip.mxu.rows) // chip.mxu.weight_rows_per_cycle))


def _vec(op: Op, chip: Chip) -> int:
    o = op.operands
    given = op.mnemonic == "vqd" and op.views[-1] is not None
    passes = 1 if given else op.row.cost.passes
    return o["planes"] * o["rows"] * -(-o["cols"] // chip.vec.lanes) * passes + 16


def _act(op: Op, chip: Chip) -> int:
    o = op.operands
    return o["rows"] * -(-o["cols"] // chip.act.lanes) + 24


def _dma(op: Op, chip: Chip) -> int:
    """Bus cycles: rows rounded up to bursts, dense rows as one."""
    if op.mnemonic == "gather":
        rows, length, gap = op.operands["n"], op.operands["cols"], True
        bits = next(r.dtype.bits for r in op.views if r is not None)
    else:
        o = op.operands
        dram = next(r for r in op.views if r is not None and r.buffer.space is Space.DRAM)
        bits, length, rows = dram.dtype.bits, o["cols"], o["planes"] * o["rows"]
        gap = dram.rs != o["cols"] and rows > 1
    if not gap:
        length, rows = length * rows, 1
    burst = chip.dram.burst_bytes
    data = rows * -(-(length * bits // 8) // burst) * burst
    return -(-data * chip.clock_hz // chip.dram.bytes_per_second)
