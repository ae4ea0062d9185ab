"""A bound on a program's time: the cycles that each engine is busy, by the formulas of the ISA's cost column.

Words are counted as they are dispatched, one launch long. Waiting is not counted: a real run takes at least as long as the
busiest engine. That is why it is called an estimate, and why `llmcc compile --dry-run` names the engine that bounds it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from isa.chip import Chip
from isa.image import Image
from isa.spec import Engine, Space
from isa.trace import Dispatch, trace


def estimate(image: Image) -> dict[str, Any]:
    """Cycles per engine, words, bytes of DRAM traffic, and the time of the busiest engine."""
    cycles = dict.fromkeys((engine.value for engine in Engine), 0)
    words = moved = 0
    for word in trace(image, control=True):
        words += 1
        if not word.empty:
            cycles[word.engine.value] += _BUSY[word.inst.row.cost.formula](word, image.chip)
            moved += _dram_bytes(word, image.chip)
    shared = {"dma": sum(cycles.pop(queue.value) for queue in (Engine.LDW, Engine.LDA, Engine.STO))}
    busy = {**shared, **cycles}
    slowest = max(busy, key=lambda name: busy[name])
    milliseconds = 1e3 * busy[slowest] / image.chip.clock_hz
    return {"words": words, "dram_bytes": moved, "cycles": busy, "bound_by": slowest, "milliseconds": milliseconds}


def _extents(word: Dispatch) -> tuple[int, int, int]:
    return word.extents(word.inst.row.views[0])


def _ctl(word: Dispatch, chip: Chip) -> int:
    return 1


def _dram_bytes(word: Dispatch, chip: Chip) -> int:
    """Bytes on the bus: every row rounded up to whole bursts."""
    total = 0
    for field in word.inst.row.views:
        view = word.views.get(field.name)
        if view is not None and view.space is Space.DRAM and word.inst.row.cost.formula == "dma":
            planes, rows, cols = word.extents(field)
            burst = chip.dram.burst_bytes
            total += planes * rows * -(-(cols * view.dtype.bits // 8) // burst) * burst
    return total


def _dma(word: Dispatch, chip: Chip) -> int:
    return -(-_dram_bytes(word, chip) * chip.clock_hz // chip.dram.bytes_per_second)


def _mxu(word: Dispatch, chip: Chip) -> int:
    """Each weight tile takes the longer of streaming its rows and loading the next one."""
    size = word.operands
    load = -(-chip.mxu.rows // chip.mxu.weight_rows_per_cycle)
    tiles = -(-size["k"] // chip.mxu.rows) * -(-size["n"] // chip.mxu.cols)
    return size.get("b", 1) * tiles * max(size["m"], load)


def _vec(word: Dispatch, chip: Chip) -> int:
    planes, rows, cols = max((word.extents(field) for field in word.inst.row.views if field.name in word.views), key=_elements)
    return planes * rows * -(-cols // chip.vec.lanes) * word.inst.row.cost.passes + 16


def _act(word: Dispatch, chip: Chip) -> int:
    planes, rows, cols = max((word.extents(field) for field in word.inst.row.views if field.name in word.views), key=_elements)
    return planes * rows * -(-cols // chip.act.lanes) + 24


def _elements(extents: tuple[int, int, int]) -> int:
    planes, rows, cols = extents
    return planes * rows * cols


_BUSY: Mapping[str, Callable[[Dispatch, Chip], int]] = {"ctl": _ctl, "dma": _dma, "mxu": _mxu, "vec": _vec, "act": _act}
