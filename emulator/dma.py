"""DMA instructions: strided copies between DRAM and SRAM, and row gathering. Bits are moved, never converted."""

import numpy as np

from emulator.context import Call, Core, executes
from emulator.formats import Block
from emulator.memory import Fault
from isa.architecture import Dtype
from isa.views import View


@executes("ldw", "lda", "sto")
def copy(core: Core, call: Call) -> None:
    _same_type(call)
    _put(core, call, call.blocks["a"])


@executes("gather")
def gather(core: Core, call: Call) -> None:
    """Raises Fault for an index outside the table."""
    _same_type(call)
    view, limit = call.views["a"], call.operands["limit"]
    index = np.broadcast_to(call.blocks["idx"], call.extents["idx"])[0, :, 0]
    wrong = (index < 0) | (index >= limit)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise Fault(f"row {int(index[first])} (entry {first}) is outside a table of {limit} rows")
    store = core.memory.store_of(view)
    if store.shadow is not None and not core.proven:
        for row in np.unique(index):
            _require_row(core, view, int(row), call.operands["cols"])
    table = call.blocks["a"]
    _put(core, call, table[:, index if view.rs else np.zeros_like(index)])


def _require_row(core: Core, view: View, row: int, cols: int) -> None:
    step = row * view.rs * view.dtype.bits
    if step % 8:
        raise Fault("i4 rows of a gathered table must start on a byte")
    core.memory.source(View(view.space, view.region, view.dtype, view.base + step // 8, 0, 0, view.cs), (1, 1, cols))


def _same_type(call: Call) -> None:
    source, target = call.dtype("a"), call.dtype("d")
    if source is not target:
        raise Fault(f"a copy cannot turn {source.name.lower()} into {target.name.lower()}")


def _put(core: Core, call: Call, values: Block) -> None:
    if call.dtype("d") is Dtype.I4:
        core.memory.put_i4(call.views["d"], call.extents["d"], values)
    else:
        np.copyto(call.blocks["d"], values)
