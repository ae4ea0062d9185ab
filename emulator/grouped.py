"""The grouped matrix product: codes, scales per group of k, and the order in which ggml's block formats add.

Sums of integers are exact in float64, in any order, so they ride on BLAS; what follows is float32, one rounding after
each operation. A last group that is cut short is filled with zeros, which add nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emulator.context import Call, Core, executes
from emulator.formats import Block, Floats
from emulator.memory import Fault
from isa.architecture import Dtype
from isa.constants import E2M1_TWICE
from isa.constants import GROUP_LANES as LANES
from isa.spec import NIBBLES
from isa.views import part_length

CHUNK = 1 << 18  # numbers of a group's products that are worked on at once, so that they stay in the cache


@executes("mmg")
def mmg(core: Core, call: Call) -> None:
    """Raises Fault for operands that do not go together."""
    _require(call)
    c = call.blocks["c"][0]
    if "ss" in call.blocks:
        _lanes(call, c)
    else:
        _groups(call, c)


def _require(call: Call) -> None:
    operands, present = call.operands, call.blocks.keys()
    if operands["nib"] and call.dtype("w") is not Dtype.I4:
        raise Fault("nib needs a w of i4")
    if "ss" not in present:
        if "sm" in present:
            raise Fault("sm does not go without ss")
        return
    if ("sm" in present) != ("zw" in present):
        raise Fault("with ss, sm and zw go together")
    if operands["pre"] or operands["half"] or operands["acc"]:
        raise Fault("pre, half and acc do not go with ss")


def _groups(call: Call, c: Floats) -> None:
    if not call.operands["acc"]:
        c.fill(0)
    sa, sw = _scales(call, "sa"), _scales(call, "sw")
    scale = _to_half(sa) if call.operands["half"] else sa
    for gs, a, w in _stretches(call, c.size, part_length("g", call.operands)):
        row, column = scale[gs, :, None], sw[gs, None, :]
        t = np.matmul(a, w).astype(np.float32)
        if call.operands["pre"]:
            np.multiply(t, column, out=t)
            np.multiply(t, row, out=t)
        else:
            np.multiply(t, column * row, out=t)
        if "zw" in call.blocks:
            unit = a.sum(axis=2).astype(np.float32) * sa[gs]
            unit = _to_half(unit) if call.operands["half"] else unit
            np.add(t, _scales(call, "zw")[gs, None, :] * unit[:, :, None], out=t)
        for part in t:
            np.add(c, part, out=c)


def _lanes(call: Call, c: Floats) -> None:
    """Sub-scales: element k belongs to lane k mod 8; minima first, then the lanes, at the very end."""
    size, sub = part_length("g", call.operands), part_length("j", call.operands)
    lanes = np.zeros((LANES, *c.shape), np.float32)
    low = np.zeros_like(c)
    sa, sw, groups = _scales(call, "sa"), _scales(call, "sw"), call.extents["sa"][2]
    ss, within = _parts(call, "ss", groups, size // sub), size // sub
    for gs, a, w in _stretches(call, LANES * c.size, size):
        count = gs.stop - gs.start
        wide = w.reshape(count, within, sub, -1) * ss[gs, :, None, :]
        left = a.reshape(count, -1, size // LANES, LANES).transpose(0, 3, 1, 2)
        right = wide.reshape(count, size // LANES, LANES, -1).transpose(0, 2, 1, 3)
        t = np.matmul(left, right).astype(np.float32)
        t *= (sw[gs, None, :] * sa[gs, :, None])[:, None]
        for part in t:
            np.add(lanes, part, out=lanes)
        if "zw" in call.blocks:
            sums = a.reshape(count, -1, within, sub).sum(axis=3)
            factor = np.matmul(sums, _parts(call, "sm", groups, within)[gs]).astype(np.float32)
            factor *= _scales(call, "zw")[gs, None, :] * sa[gs, :, None]
            for part in factor:
                np.add(low, part, out=low)
    np.copyto(c, low)
    for lane in lanes:
        np.add(c, lane, out=c)


def _scales(call: Call, name: str) -> Floats:
    """(groups, rows), broadcast dimensions written out."""
    scales: Floats = np.broadcast_to(call.floats(name), call.extents[name])[0]
    return scales.T


def _parts(call: Call, name: str, groups: int, within: int) -> NDArray[np.float64]:
    """Sub-scales as (groups, sub-blocks of a group, rows); those that the last group lacks are 0."""
    block = np.broadcast_to(call.blocks[name], call.extents[name])[0]
    full = np.zeros((block.shape[0], groups * within))
    full[:, : block.shape[1]] = block
    return full.reshape(-1, groups, within).transpose(1, 2, 0)


def _to_half(x: Floats) -> Floats:
    half: Floats = x.astype(np.float16).astype(np.float32)
    return half


def _stretches(call: Call, area: int, size: int) -> Iterator[tuple[slice, NDArray[Any], NDArray[Any]]]:
    """Some groups at a time: which, the codes of a (groups, m, size) and of w (groups, size, n), as float64."""
    a, w = (np.broadcast_to(call.blocks[name], call.extents[name])[0] for name in ("a", "w"))
    w = _NIBBLES[NIBBLES[call.operands["nib"]]](w)
    k = call.operands["k"]
    groups = -(-k // size)
    step = max(1, CHUNK // max(area, size * w.shape[0]))
    for first in range(0, groups, step):
        gs = slice(first, min(first + step, groups))
        left, right = (
            _in_groups(block[:, gs.start * size : gs.stop * size], gs.stop - gs.start, size) for block in (a, w)
        )
        yield gs, left.transpose(1, 0, 2), right.transpose(1, 2, 0)


_NIBBLES: Final[Mapping[str, Callable[[Block], Block]]] = {
    "i4": lambda w: w,
    "u4": lambda w: np.bitwise_and(w, 15),
    "e2m1": lambda w: np.take(np.array(E2M1_TWICE, np.int8), np.bitwise_and(w, 15)),
}


def _in_groups(block: Block, groups: int, size: int) -> NDArray[np.float64]:
    """(rows, groups, size), with zeros behind the last element."""
    out = np.zeros((block.shape[0], groups * size))
    out[:, : block.shape[1]] = block
    return out.reshape(-1, groups, size)
