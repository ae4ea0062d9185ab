"""The activation engine: a function of a*scale + bias for every element, with the row's sum on the way out."""

import numpy as np

from emulator import functions
from emulator.context import Call, Core, Tile, cut, executes, tiles
from emulator.formats import Floats, float_of_bits, store
from emulator.reductions import ordered_sum
from isa.spec import ACT

TILE: int = 1 << 15  # elements; measured, as the other engine's


@executes("act")
def act(core: Core, call: Call) -> None:
    function = functions.FUNCTIONS[ACT[call.operands["f"]]]
    target, scale = call.dtype("d"), float_of_bits(call.operands["scale"])
    for tile in tiles(call.extents["d"], TILE):
        d = cut(call.blocks["d"], tile)
        t: Floats = core.scratch.get("act.t", d.shape)
        np.multiply(call.floats("a", tile), scale, out=t)
        _add_bias(call, tile, t)
        y = function(t)
        store(d, target, y)
        if "sum" in call.blocks:
            out = cut(call.blocks["sum"], tile)
            store(out, call.dtype("sum"), ordered_sum(y).reshape(out.shape))


def _add_bias(call: Call, tile: Tile, t: Floats) -> None:
    if "bi" in call.blocks:
        (np.subtract if call.operands["neg"] else np.add)(t, call.floats("bi", tile), out=t)
