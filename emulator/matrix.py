"""Plain matrix products. int8 products ride on float32 BLAS, which is exact, in any order, while all sums stay below
2**24."""

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np

from emulator import threads
from emulator.context import Call, Core, executes
from emulator.formats import Block, Floats, widen
from emulator.memory import Fault
from isa.architecture import FLOATS, Dtype
from isa.spec import MM_FORMAT

EXACT_K = 1024  # 1024 * 128 * 128 == 2**24
WORTH_SHARING = 1 << 21  # multiply-adds; waking another thread costs about as much as one million


@executes("mm")
def mm(core: Core, call: Call) -> None:
    _FORMATS[MM_FORMAT[call.operands["fmt"]]](core, call)


def _matmul_i8(core: Core, call: Call) -> None:
    _require(call, "i8", Dtype.I32, (Dtype.I8,), (Dtype.I8, Dtype.I4))
    for start in range(0, call.operands["k"], EXACT_K):
        ks = slice(start, min(start + EXACT_K, call.operands["k"]))
        _product(core, call, ks, _add_to_c if start or call.operands["acc"] else _set_c)


def _add_to_c(c: Block, product: Floats) -> None:
    np.add(c, product.astype(np.int32), out=c)


def _set_c(c: Block, product: Floats) -> None:
    np.copyto(c, product, casting="unsafe")


def _matmul_float(core: Core, call: Call) -> None:
    """k ascending, product and sum each rounded, as a systolic column adds: one rank-1 update per k."""
    _require(call, "float", Dtype.F32, FLOATS, FLOATS)
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
    "i8": _matmul_i8,
    "float": _matmul_float,
}


def _require(call: Call, fmt: str, c: Dtype, a: tuple[Dtype, ...], w: tuple[Dtype, ...]) -> None:
    if call.dtype("c") is not c or call.dtype("a") not in a or call.dtype("w") not in w:
        got = ", ".join(f"{name} {call.dtype(name).name.lower()}" for name in "caw")
        raise Fault(f"format {fmt} does not work on {got}")


def _product(
    core: Core, call: Call, ks: slice, finish: Callable[[Block, Floats], None], into: Block | None = None
) -> None:
    """finish(into, a[:, :, ks] @ w[:, ks, :]), for a stretch of k that is short enough to be exact.

    Big products are shared out by planes, or by columns if there is one plane. Shared planes of w are converted once.
    """
    c = call.blocks["c"] if into is None else into
    planes, rows, columns = call.extents["c"]
    a_block, w_block = _stretch(call, "a", ks, 2), _stretch(call, "w", ks, 2 if call.operands["wt"] else 1)
    if call.operands["wt"]:
        w_block = w_block.swapaxes(-1, -2)
    w_block = np.broadcast_to(w_block, (*w_block.shape[:2], columns))
    a = np.broadcast_to(_as_floats(core, "mm.a", call, "a", a_block), (a_block.shape[0], rows, ks.stop - ks.start))
    part = core.scratch.get("mm.part", (planes, rows, columns))
    whole = slice(None)
    if planes * rows * columns * (ks.stop - ks.start) < WORTH_SHARING:
        parts = [(whole, whole)]
    elif planes > 1:
        parts = [(share, whole) for share in threads.shares(planes)]
    else:
        parts = [(whole, share) for share in threads.shares(columns, 16)]

    def job(number: int, ps: slice, ns: slice) -> None:
        w = _as_floats(core, f"mm.w{number}", call, "w", w_block[ps if w_block.shape[0] > 1 else whole, :, ns])
        out = part[ps, :, ns]
        _multiply(a[ps if a.shape[0] > 1 else whole], w, out)
        finish(c[ps, :, ns], out)

    threads.run_all([partial(job, number, *where) for number, where in enumerate(parts)])


def _multiply(a: Floats, w: Floats, out: Floats) -> None:
    if a.shape[0] == w.shape[0] == 1:
        np.matmul(a[0], w[0], out=out[0])
        out[1:] = out[0]
    else:
        np.matmul(a, w, out=out)


def _as_floats(core: Core, slot: str, call: Call, name: str, block: Block) -> Floats:
    """The block as float32, in the memory order it has, so that a transposed w stays one for BLAS."""
    if block.strides[1] < block.strides[2]:
        out = core.scratch.get(slot, (block.shape[0], block.shape[2], block.shape[1]))
        return widen(block, call.dtype(name), out.swapaxes(-1, -2))
    return widen(block, call.dtype(name), core.scratch.get(slot, block.shape))


def _stretch(call: Call, name: str, ks: slice, axis: int) -> Block:
    """The elements `ks` of the dimension k of an operand; written out if k is broadcast."""
    block, extents = call.blocks[name], call.extents[name]
    shape = tuple(extents[axis] if i == axis else n for i, n in enumerate(block.shape))
    block = np.broadcast_to(block, shape)
    return block[:, :, ks] if axis == 2 else block[:, ks]
