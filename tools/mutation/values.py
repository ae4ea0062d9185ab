"""What a program computes, as symbols: two programs with equal symbols compute the same bits for every input.

Every byte of memory holds a 64-bit number that stands for *how it came about*: its value for weights and constants, its
address for inputs, and for results a hash of the operation and of the symbols it was computed from, element by element.
Different numbers prove nothing; equal numbers mean (but for a collision of 64-bit hashes) the same operations on the
same operands. Program order only: that no race changes it is proved separately.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from isa.architecture import Dtype, Engine, Region, Space
from isa.fields import Access, Kind
from isa.image.image import Image
from isa.replay import Dispatch, ReplayError, trace
from isa.spec import ACT, MM_FORMAT, VOP
from isa.views import Extents, View, access_of

Symbols = NDArray[np.uint64]
_K: Final = np.random.default_rng(12345).integers(0, 2**63, 64, np.uint64) * np.uint64(2) + np.uint64(1)
_COMMUTE: Final = frozenset({"add", "mul", "max", "min", "eq", "ne", "and", "or", "xor"})
_ORDERLESS: Final = frozenset({"max", "min", "absmax"})
_EVEN: Final = frozenset({"sumsq", "absmax"})  # the same for x and -x, so a - sub may be sub - a
_GIVEN: Final = (Region.IN, Region.STATE, Region.PARAMS)


def fingerprint(image: Image) -> bytes | None:
    """The symbols of all outputs; None if the program does something that this page cannot follow."""
    try:
        state = _State(image)
        for instruction in trace(image):
            if not instruction.empty and instruction.engine is not Engine.CTL:
                _RULES.get(instruction.inst.mnemonic, _opaque)(state, instruction)
    except (ReplayError, IndexError, ValueError, KeyError):
        return None
    return b"".join(
        state.memory(Space.DRAM, t.region)[t.offset : t.offset + t.nbytes].tobytes() for t in image.entry().outputs
    )


def _mix(x: Symbols) -> Symbols:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _name(*parts: object) -> np.uint64:
    total = 1469598103934665603
    for byte in repr(parts).encode():
        total = (total ^ byte) * 1099511628211 % 2**64
    return np.uint64(total)


class _State:
    def __init__(self, image: Image) -> None:
        self.image = image
        self.memories: dict[tuple[Space, Region], Symbols] = {}

    def memory(self, space: Space, region: Region) -> Symbols:
        key = space, region if space is Space.DRAM else Region.WEIGHTS
        if key not in self.memories:
            sizes = {Space.SRAM: self.image.chip.sram.bytes, Space.ACC: self.image.chip.acc.bytes}
            symbols = np.zeros(sizes.get(space, self.image.size(region)), np.uint64)
            if space is Space.DRAM and region in _GIVEN:
                symbols[:] = _mix(np.arange(len(symbols), dtype=np.uint64) + _name(region))
            elif space is Space.DRAM and len(self.image.data(region)):
                data = np.frombuffer(self.image.data(region), np.uint8)
                symbols[: len(data)] = _mix(data.astype(np.uint64) + np.uint64(1 << 40))
            self.memories[key] = symbols
        return self.memories[key]

    def bytes(self, view: View, extents: Extents) -> Symbols:
        """The symbols of a block, one per byte, as a view of the memory: (planes, rows, cols, bytes)."""
        low, high = view.span(extents)
        memory = self.memory(view.space, view.region)
        if view.dtype is Dtype.I4 or low < 0 or high > len(memory):
            raise ValueError(f"cannot follow {view}")
        size = view.dtype.bits // 8
        strides = tuple(8 * stride for stride in (view.ps * size, view.rs * size, view.cs * size, 1))
        return as_strided(memory[low:], (*extents, size), strides)

    def elements(self, instruction: Dispatch, name: str) -> Symbols | None:
        """The symbols of an operand, one per element and dependent on its type; None if it is absent."""
        if name not in instruction.views:
            return None
        view = instruction.views[name]
        block = self.bytes(view, instruction.extents(instruction.inst.row.field(name)))
        total = (block * _K[: block.shape[-1]]).sum(axis=-1, dtype=np.uint64)
        return _mix(total + _name(view.dtype))

    def read(self, instruction: Dispatch, name: str) -> Symbols:
        found = self.elements(instruction, name)
        if found is None:
            raise KeyError(name)
        return found

    def write(self, instruction: Dispatch, name: str, values: Symbols) -> None:
        """Store new values: each byte is a part of its element, rounded to the type of the view."""
        if name not in instruction.views:
            return
        view = instruction.views[name]
        block = self.bytes(view, instruction.extents(instruction.inst.row.field(name)))
        parts = np.arange(block.shape[-1], dtype=np.uint64) * _K[9] + _name("store", view.dtype)
        block[...] = _mix(values.reshape(block.shape[:-1])[..., None] + parts)


def _chain(state: _State, instruction: Dispatch, value: Symbols, **steps: str) -> Symbols:
    """Apply the operands that are present, in order; each keyword names an operand and says what it does."""
    for name, operation in steps.items():
        other = state.elements(instruction, name)
        if other is not None:
            value = _mix(value * _K[1] + other * _K[2] + _name(operation))
    return value


def _fold(values: Symbols, ordered: bool = True) -> Symbols:
    """One symbol per row."""
    places = np.arange(values.shape[-1] if ordered else 1, dtype=np.uint64) * _K[3]
    return _mix(_mix(values + places).sum(axis=-1, dtype=np.uint64) + _K[4])[..., None]


def _copy(state: _State, instruction: Dispatch) -> None:
    blocks = (state.bytes(instruction.views[n], instruction.extents(instruction.inst.row.field(n))) for n in ("d", "a"))
    target, source = blocks
    target[...] = source.copy()


def _gather(state: _State, instruction: Dispatch) -> None:
    view, index = replace(instruction.views["a"], ps=0), state.read(instruction, "idx")  # a table has one plane
    row = np.arange(instruction.operands["cols"] * view.dtype.bits // 8, dtype=np.uint64)
    table = _name(view, instruction.operands["limit"], instruction.operands["cols"])
    found = _mix(index[..., None] * _K[5] + row * _K[6] + table)
    target = state.bytes(instruction.views["d"], instruction.extents(instruction.inst.row.field("d")))
    target[...] = found.reshape(target.shape)


def _vop(state: _State, instruction: Dispatch) -> None:
    f, operands = VOP[instruction.operands["f"]], instruction.operands
    if f == "mov" and instruction.views["a"].dtype is instruction.views["d"].dtype:
        _copy(state, instruction)
        return
    a = state.read(instruction, "a")
    other = state.elements(instruction, "b")
    b = np.full_like(a, _name("imm", operands["imm"])) if other is None else other
    pair = a + b if f in _COMMUTE else a * _K[1] + b * _K[2]
    if f == "sel":
        pair = pair + state.read(instruction, "d") * _K[7]
    state.write(
        instruction, "d", _mix(pair + _name("vop", f, [instruction.views[n].dtype for n in sorted(instruction.views)]))
    )


def _vred(state: _State, instruction: Dispatch) -> None:
    f = instruction.inst.row.field("f").choices[instruction.operands["f"]]
    a, sub = state.read(instruction, "a"), state.elements(instruction, "sub")
    x = _chain(state, instruction, a, sub="sub")
    if sub is not None and f in _EVEN:
        x = _mix(a + sub)
    if instruction.operands["down"]:
        x = x.swapaxes(-1, -2)
    state.write(instruction, "d", _mix(_fold(x, f not in _ORDERLESS) + _name("vred", f)))


def _vaff(state: _State, instruction: Dispatch) -> None:
    operands = instruction.operands
    if operands["rnd"]:  # then it matters where a step stands
        steps = {name: f"{name} {operands['rnd']}" for name in ("sub", "rs", "cs", "bi", "res")}
    else:
        steps = {"sub": "sub", "rs": "mul", "cs": "mul", "bi": "add", "res": "add"}
    value = _mix(_chain(state, instruction, state.read(instruction, "a"), **steps) + _name("vaff", operands["rnd"]))
    tap = _fold(_mix(value + _name(instruction.views["d"].dtype))) + _name("tap", operands["red"])
    state.write(instruction, "d", value)
    state.write(instruction, "tap", tap)


def _vqd(state: _State, instruction: Dispatch) -> None:
    x = _chain(state, instruction, state.read(instruction, "a"), rs="mul", cs="mul")
    given = state.elements(instruction, "am")
    scale = _mix((_fold(x, ordered=False) if given is None else given) + _name("scale", instruction.views["s"].dtype))
    state.write(instruction, "d", _mix(x * _K[1] + scale * _K[2]))
    state.write(instruction, "s", scale)


def _act(state: _State, instruction: Dispatch) -> None:
    operands = instruction.operands
    t = _chain(
        state,
        instruction,
        _mix(state.read(instruction, "a") + _name("scale", operands["scale"], operands["neg"])),
        bi="bi",
    )
    y = _mix(t + _name("act", ACT[operands["f"]]))
    state.write(instruction, "d", y)
    state.write(instruction, "sum", _fold(y))


def _mm(state: _State, instruction: Dispatch) -> None:
    operands = instruction.operands
    if MM_FORMAT[operands["fmt"]] != "i8":
        raise ValueError("only integer products are followed")
    a, w = _mix(state.read(instruction, "a") + _K[11]), _mix(state.read(instruction, "w") + _K[12])
    product: Any = np.matmul(a, w.swapaxes(-1, -2) if operands["wt"] else w)
    if operands["acc"]:
        product = _mix(product + state.read(instruction, "c"))
    state.write(instruction, "c", _mix(product))


def _opaque(state: _State, instruction: Dispatch) -> None:
    """Any other instruction: each result depends on the operands of the instruction and on all that it reads, in their
    order. So two programs are never taken for equal that are not; that two equal ones may be taken for different is the
    price."""
    views = instruction.inst.row.views
    seen = np.zeros(1, np.uint64)
    for place, field in enumerate(views):
        read = (
            state.elements(instruction, field.name) if access_of(field, instruction.operands) is not Access.W else None
        )
        if read is not None:
            seen = _mix(seen + _fold(read.reshape(1, -1))[0] * _K[place])
    numbers = [(f.name, instruction.operands[f.name]) for f in instruction.inst.row.fields if f.kind is not Kind.VIEW]
    for field in views:
        if access_of(field, instruction.operands) is not Access.R and field.name in instruction.views:
            planes, rows, cols = instruction.extents(field)
            places = np.arange(planes * rows * cols, dtype=np.uint64).reshape(planes, rows, cols)
            state.write(
                instruction,
                field.name,
                _mix(places * _K[13] + seen + _name(instruction.inst.mnemonic, field.name, numbers)),
            )


_RULES: Final[Mapping[str, Callable[[_State, Dispatch], None]]] = {
    "ldw": _copy,
    "lda": _copy,
    "sto": _copy,
    "gather": _gather,
    "mm": _mm,
    "vop": _vop,
    "vred": _vred,
    "vaff": _vaff,
    "vqd": _vqd,
    "act": _act,
}
