"""The matrix word. int8 products ride on float32 BLAS, which is exact, in any order, while all sums stay below 2**24."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emulator.formats import Block, Floats, widen
from emulator.memory import Fault
from emulator.word import Call, Core, executes
from isa.spec import FLOATS, MM_FORMAT, Dtype

EXACT_K = 1024  # 1024 * 128 * 128 == 2**24


@executes("mm")
def mm(core: Core, call: Call) -> None:
    _FORMATS[MM_FORMAT[call.operands["fmt"]]](core, call)


def _matmul_i8(core: Core, call: Call) -> None:
    _require(call, "i8", Dtype.I32, (Dtype.I8,), (Dtype.I8, Dtype.I4), scales=False)
    c, k = call.blocks["c"], call.operands["k"]
    keep = bool(call.operands["acc"])
    part = core.scratch.get("mm.part", call.extents["c"])
    for start in range(0, k, EXACT_K):
        _product(core, call, slice(start, min(start + EXACT_K, k)), part)
        if keep:
            whole = core.scratch.get("mm.int", call.extents["c"], np.int32)
            np.copyto(whole, part, casting="unsafe")
            np.add(c, whole, out=c)
        else:
            np.copyto(c, part, casting="unsafe")
        keep = True


def _groups(core: Core, call: Call) -> None:
    """c = c + (f32(c_g)*sa)*sw, then c = c + (f32(sum a)*sa)*zw, groups ascending, every operation rounded."""
    weights = (Dtype.I4,) if MM_FORMAT[call.operands["fmt"]] == "i4group" else (Dtype.I8,)
    _require(call, MM_FORMAT[call.operands["fmt"]], Dtype.F32, (Dtype.I8,), weights, scales=True)
    c, k, size = call.blocks["c"], call.operands["k"], 16 << call.operands["glog"]
    if not call.operands["acc"]:
        c.fill(0)
    sa, sw = call.floats("sa"), call.floats("sw")
    zw = call.floats("zw") if "zw" in call.blocks else None
    part = core.scratch.get("mm.part", call.extents["c"])
    for g, start in enumerate(range(0, k, size)):
        ks = slice(start, min(start + size, k))
        _exact_product(core, call, ks, part)
        column = _group(sa, g)[:, :, None]
        np.multiply(part, column, out=part)
        np.multiply(part, _group(sw, g)[:, None, :], out=part)
        np.add(c, part, out=c)
        if zw is not None:
            totals = _last(call.blocks["a"], ks, call.extents["a"]).sum(axis=-1, keepdims=True, dtype=np.int32).astype(np.float32)
            np.add(c, (totals * column) * _group(zw, g)[:, None, :], out=c)


def _matmul_float(core: Core, call: Call) -> None:
    """k ascending, product and sum each rounded, as a systolic column adds: one rank-1 update per k."""
    _require(call, "float", Dtype.F32, FLOATS, FLOATS, scales=False)
    c = call.blocks["c"]
    if not call.operands["acc"]:
        c.fill(0)
    a, w = call.floats("a"), call.floats("w")
    a = np.broadcast_to(a, (*a.shape[:2], call.operands["k"]))
    if call.operands["wt"]:
        w = w.swapaxes(-1, -2)
    w = np.ascontiguousarray(np.broadcast_to(w, (w.shape[0], call.operands["k"], w.shape[2])))
    product = core.scratch.get("mm.part", call.extents["c"])
    for k in range(call.operands["k"]):
        np.multiply(a[:, :, k, None], w[:, k, None, :], out=product)
        np.add(c, product, out=c)


_FORMATS: Final[dict[str, Callable[[Core, Call], None]]] = {
    "i8": _matmul_i8, "i8group": _groups, "i4group": _groups, "float": _matmul_float,
}


def _require(call: Call, fmt: str, c: Dtype, a: tuple[Dtype, ...], w: tuple[Dtype, ...], scales: bool) -> None:
    if call.dtype("c") is not c or call.dtype("a") not in a or call.dtype("w") not in w:
        got = ", ".join(f"{name} {call.dtype(name).name.lower()}" for name in "caw")
        raise Fault(f"format {fmt} does not work on {got}")
    if scales != ("sa" in call.blocks and "sw" in call.blocks) or (not scales and {"sa", "sw", "zw"} & call.blocks.keys()):
        raise Fault(f"format {fmt} {'needs' if scales else 'takes no'} scales sa and sw")


def _exact_product(core: Core, call: Call, ks: slice, out: Floats) -> None:
    """As `_product`, for any length: float32 of the exact int32 sum."""
    if ks.stop - ks.start <= EXACT_K:
        _product(core, call, ks, out)
        return
    total = np.zeros(out.shape, np.int32)
    for start in range(ks.start, ks.stop, EXACT_K):
        _product(core, call, slice(start, min(start + EXACT_K, ks.stop)), out)
        total += out.astype(np.int32)
    np.copyto(out, total)


def _product(core: Core, call: Call, ks: slice, out: Floats) -> None:
    """out = a[:, :, ks] @ w[:, ks, :] for a stretch short enough to be exact. Planes of stride 0 are converted once."""
    a = _as_floats(core, "mm.a", call, "a", _last(call.blocks["a"], ks, call.extents["a"]))
    stored = call.blocks["w"]
    if call.operands["wt"]:
        w = _as_floats(core, "mm.w", call, "w", _last(stored, ks, call.extents["w"])).swapaxes(-1, -2)
        full = (w.shape[0], w.shape[1], call.operands["n"])
    else:
        stored = stored[:, ks] if stored.shape[1] > 1 else stored
        w = _as_floats(core, "mm.w", call, "w", stored)
        full = (w.shape[0], ks.stop - ks.start, call.operands["n"])
    a = a if a.shape[1] == out.shape[1] else np.broadcast_to(a, (a.shape[0], out.shape[1], a.shape[2]))
    w = w if w.shape == full else np.broadcast_to(w, full)
    _multiply(a, w, out)


def _multiply(a: Floats, w: Floats, out: Floats) -> None:
    if a.shape[0] == 1 and w.shape[0] == 1:
        for plane in range(1, out.shape[0]):
            np.matmul(a[0], w[0], out=out[plane])
        np.matmul(a[0], w[0], out=out[0])
    else:
        np.matmul(a, w, out=out)


def _as_floats(core: Core, slot: str, call: Call, name: str, block: Block) -> Floats:
    return widen(block, call.dtype(name), core.scratch.get(slot, block.shape))


def _last(block: Block, ks: slice, extents: tuple[int, int, int]) -> Block:
    """A stretch of the last dimension, which is written out if it is broadcast."""
    if block.shape[2] != extents[2]:
        block = np.broadcast_to(block, (*block.shape[:2], extents[2]))
    return block[:, :, ks]


def _group(scales: Floats, g: int) -> NDArray[Any]:
    """The scales of one group, (1, rows)."""
    return scales[:, :, g if scales.shape[2] > 1 else 0]
