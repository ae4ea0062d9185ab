"""The vector engine: elementwise instructions, reductions, affine and dynamic quantization.

Blocks are worked through in tiles of whole rows that stay in the cache; every step is its own numpy operation, so that
each is rounded to float32 and nothing is contracted to a fused multiply-add.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from emulator import reductions
from emulator.context import TILE_ELEMENTS, Call, Core, Tile, cut, executes, tiles
from emulator.formats import Block, Floats, float_of_bits, int_of_bits, round_to, store
from emulator.memory import Fault
from isa.architecture import INTS, Dtype
from isa.spec import ROUND, TAP, TIES, VOP, VQD_NORM, VRED

MIN_SCALE: Final = np.float32(2.0**-23)
_COMPARE: Final[Mapping[str, Callable[..., Any]]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
}
_ARITHMETIC: Final[Mapping[str, Callable[..., Any]]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}
_FLOAT: Final[Mapping[str, Callable[..., Any]]] = {**_ARITHMETIC, **_COMPARE, "div": np.divide}
_INTEGER: Final[Mapping[str, Callable[..., Any]]] = {
    **_ARITHMETIC,
    **_COMPARE,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}
_ZERO: Final = np.float32(0)


@executes("vop")
def vop(core: Core, call: Call) -> None:
    f = VOP[call.operands["f"]]
    integer = all(view.dtype in INTS for view in call.views.values())
    if f == "sel":
        _select(call)
    elif f == "mov":
        _move(core, call, integer)
    elif integer:
        _integer(call, f)
    else:
        _float(core, call, f)


def _move(core: Core, call: Call, integer: bool) -> None:
    source, target = call.dtype("a"), call.dtype("d")
    if source is target or target in INTS:
        if target in INTS and source not in INTS:
            raise Fault("mov cannot turn a float into an integer")
        np.copyto(call.blocks["d"], call.blocks["a"], casting="unsafe")
        return
    for tile in tiles(call.extents["d"]):
        store(cut(call.blocks["d"], tile), target, call.floats("a", tile))


def _integer(call: Call, f: str) -> None:
    """int32, wrapping; storing to int8 keeps the low 8 bits."""
    if f not in _INTEGER:
        raise Fault(f"{f} does not exist on integers")
    a, y = call.blocks["a"].astype(np.int32), _integer_operand(call)
    np.copyto(call.blocks["d"], _INTEGER[f](a, y), casting="unsafe")


def _integer_operand(call: Call) -> Block | np.int32:
    if "b" in call.blocks:
        return call.blocks["b"].astype(np.int32)
    return np.int32(int_of_bits(call.operands["imm"]))


def _float(core: Core, call: Call, f: str) -> None:
    if f not in _FLOAT:
        raise Fault(f"{f} does not exist on floats")
    target = call.dtype("d")
    if target in INTS and f not in _COMPARE:
        raise Fault(f"{f} on floats cannot store {target.name.lower()}")
    imm = float_of_bits(call.operands["imm"])
    signless = f in ("max", "min")  # a zero result is +0
    for tile in tiles(call.extents["d"]):
        d = cut(call.blocks["d"], tile)
        a, y = call.floats("a", tile), call.floats("b", tile) if "b" in call.blocks else imm
        if f in _COMPARE:
            np.copyto(d, _bits_of_truth(_FLOAT[f](a, y), target), casting="unsafe")
            continue
        t = d if target is Dtype.F32 else core.scratch.get("vec.t", d.shape)
        _FLOAT[f](a, y, out=t)
        if signless:
            np.add(t, _ZERO, out=t)
        if t is not d:
            store(d, target, t)


def _bits_of_truth(truth: Block, target: Dtype) -> Block:
    """1 or 0 in the type of d, where bf16 is a bit pattern."""
    return np.multiply(truth, np.uint16(0x3F80)) if target is Dtype.BF16 else truth


def _select(call: Call) -> None:
    """d keeps its bits where a is not 0. Elsewhere y is stored as d's type, so an integer d needs an integer y."""
    target, d = call.dtype("d"), call.blocks["d"]
    take = np.broadcast_to(_is_zero(call), d.shape)
    if target in INTS:
        if "b" in call.views and call.dtype("b") not in INTS:
            raise Fault("sel cannot turn a float into an integer")
        np.copyto(d, _integer_operand(call), where=take, casting="unsafe")
        return
    y = call.floats("b") if "b" in call.blocks else np.full((1, 1, 1), float_of_bits(call.operands["imm"]))
    stored = np.empty(y.shape, d.dtype)
    store(stored, target, y)
    np.copyto(d, stored, where=take)


def _is_zero(call: Call) -> Block:
    a = call.blocks["a"]
    zero: Block = (a & 0x7FFF) == 0 if call.dtype("a") is Dtype.BF16 else a == 0
    return zero


_REDUCTIONS: Final[Mapping[str, Callable[[Floats], Floats]]] = {
    "sum": reductions.ordered_sum,
    "max": reductions.largest,
    "min": reductions.smallest,
    "absmax": reductions.absmax,
    "sumsq": reductions.sum_of_squares,
}


@executes("vred")
def vred(core: Core, call: Call) -> None:
    """Raises Fault for a result of the wrong type."""
    f, down = VRED[call.operands["f"]], bool(call.operands["down"])
    target, extents = call.dtype("d"), call.extents["a"]
    if (f == "argmax") != (target is Dtype.I32):
        raise Fault(f"{f} cannot store {target.name.lower()}")
    for tile in tiles(extents, max(TILE_ELEMENTS, extents[1] * extents[2]) if down else TILE_ELEMENTS):
        x = _reduced(core, call, tile)
        if down:
            x = x.swapaxes(-1, -2)
        d = cut(call.blocks["d"], (tile[0], slice(None)) if down else tile)
        if f == "argmax":
            np.copyto(d, np.argmax(x, axis=-1).reshape(d.shape), casting="unsafe")
        else:
            store(d, target, _REDUCTIONS[f](x).reshape(d.shape))


def _reduced(core: Core, call: Call, tile: Tile) -> Floats:
    shape = _shape(call.extents["a"], tile)
    if "sub" in call.blocks:
        t: Floats = core.scratch.get("vec.t", shape)
        np.subtract(call.floats("a", tile), call.floats("sub", tile), out=t)
        return t
    return np.broadcast_to(call.floats("a", tile), shape)


def _shape(extents: tuple[int, int, int], tile: Tile) -> tuple[int, int, int]:
    return tile[0].stop - tile[0].start, tile[1].stop - tile[1].start, extents[2]


_ROUNDING: Final = {"none": None, "bf16": Dtype.BF16, "f16": Dtype.F16}
_TAPS: Final[Mapping[str, Callable[[Floats], Floats]]] = {
    "max": reductions.largest,
    "absmax": reductions.absmax,
    "sum": reductions.ordered_sum,
}


@executes("vaff")
def vaff(core: Core, call: Call) -> None:
    """Raises Fault for one of `tap` and `red` without the other."""
    steps = _affine_steps(call)
    target, tap = call.dtype("d"), TAP[call.operands["red"]]
    if ("tap" in call.blocks) != (tap != "none"):
        raise Fault("vaff needs both tap and red, or neither")
    for tile in tiles(call.extents["d"]):
        d = cut(call.blocks["d"], tile)
        t = _affine(core, call, steps, tile, d)
        if t is not d:
            store(d, target, t)
        if tap != "none":
            if target is not Dtype.F32:
                round_to(t, target)
            out = cut(call.blocks["tap"], tile)
            store(out, call.dtype("tap"), _TAPS[tap](t).reshape(out.shape))


_Step = tuple[str, Callable[..., Any], Dtype | None]  # operand, operation, rounding after it


def _affine_steps(call: Call) -> list[_Step]:
    rnd = _ROUNDING[ROUND[call.operands["rnd"]]]
    biased = "bi" in call.blocks
    chain: tuple[_Step, ...] = (
        ("sub", np.subtract, None),
        ("rs", np.multiply, rnd),
        ("cs", np.multiply, None if biased else rnd),
        ("bi", np.add, rnd),
        ("res", np.add, None),
    )
    return [step for step in chain if step[0] in call.blocks]


def _affine(core: Core, call: Call, steps: list[_Step], tile: Tile, d: Block) -> Floats:
    """The value before it is stored; the last step writes straight into a float32 destination."""
    t: Floats = core.scratch.get("vec.t", d.shape)
    last = d if call.dtype("d") is Dtype.F32 else t
    value = call.floats("a", tile, t if cut(call.blocks["a"], tile).shape == d.shape else None)
    for i, (name, operation, rnd) in enumerate(steps):
        out = last if i == len(steps) - 1 and rnd is None else t
        operation(value, call.floats(name, tile), out=out)
        if rnd is not None:
            round_to(t, rnd)
        value = out
    if value is t or value is last:
        return value
    np.copyto(t, value)
    return t


@executes("vqd")
def vqd(core: Core, call: Call) -> None:
    """Saturating; NaN becomes 0."""
    kind, norm = call.dtype("s"), VQD_NORM[call.operands["norm"]]
    rounded = np.rint if TIES[call.operands["ties"]] == "even" else _away_from_zero
    for tile in tiles(call.extents["d"]):
        shape = _shape(call.extents["d"], tile)
        t: Floats = core.scratch.get("vec.t", shape)
        x = call.floats("a", tile)
        for name in ("rs", "cs"):
            if name in call.blocks:
                x = np.multiply(x, call.floats(name, tile), out=t)
        given = "am" in call.blocks
        m = call.floats("am", tile) if given else reductions.absmax(x)[:, :, None]
        m = np.broadcast_to(m, (*shape[:2], 1))
        s, multiplier = _SCALES[norm](m, kind)
        np.multiply(x, multiplier, out=t)
        # x cannot be NaN, nor infinite times 0, where its own absolute maximum gave a finite scale
        if given or not np.isfinite(s).all():
            np.copyto(t, _ZERO, where=np.isnan(t))
        rounded(t, out=t)
        np.clip(t, np.float32(-128), np.float32(127), out=t)
        np.copyto(cut(call.blocks["d"], tile), t, casting="unsafe")
        store(cut(call.blocks["s"], tile), kind, s)


def _half_range(m: Floats, kind: Dtype) -> tuple[Floats, Floats]:
    """Scale and multiplier of each row; the multiplier is that of the scale as it is stored."""
    s = np.divide(m, np.float32(127.5))
    round_to(s, kind)
    np.maximum(s, MIN_SCALE, out=s)
    return s, np.divide(np.float32(1), s)


def _scale_first(m: Floats, kind: Dtype) -> tuple[Floats, Floats]:
    s = np.divide(m, np.float32(127))
    return s, _finite_or_zero(np.divide(np.float32(1), s))


def _multiplier_first(m: Floats, kind: Dtype) -> tuple[Floats, Floats]:
    multiplier = np.divide(np.float32(127), m)
    return np.divide(np.float32(1), multiplier), _finite_or_zero(multiplier)


_SCALES: Final[Mapping[str, Callable[[Floats, Dtype], tuple[Floats, Floats]]]] = {
    "half_range": _half_range,
    "scale": _scale_first,
    "multiplier": _multiplier_first,
}


def _finite_or_zero(x: Floats) -> Floats:
    return np.where(np.isfinite(x), x, _ZERO)


def _away_from_zero(x: Floats, out: Floats) -> None:
    """Round to nearest, halves away from zero: what was cut off is exact, so no half is missed or made up."""
    whole = np.trunc(x)
    with np.errstate(invalid="ignore"):
        far = np.abs(x - whole) >= np.float32(0.5)
    np.add(whole, np.copysign(far.astype(np.float32), x), out=out)
