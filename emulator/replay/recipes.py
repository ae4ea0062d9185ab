"""A program in decoded form: what `expand` needs to follow it for any value of the scalars, made once per program.

    vaff d=v1, a=v2, rs=v3, rows=8, cols=64, dyn=rows, dyn_s=s4

becomes a *template* (a step whose chain is LOAD slot 0, MUL slot 1, STORE slot 2, without addresses and extents) and a
*recipe* (v2 goes to slot 0, v3 to slot 1, v1 to slot 2; rows come from s4; which types the kernel takes). What no kernel
takes stays with its handler, and has only a recipe.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from emulator import budget
from emulator.decoded import Decoded, decode_at
from emulator.formats import float_of_bits, int_of_bits
from emulator.memory import Fault
from emulator.replay import grouped, layout
from emulator.replay.executor import Kind
from emulator.replay.layout import Op
from emulator.replay.rows import FIRST_MICRO, FIRST_SLOT, MICROS, NORM, SLOT_WIDTH, SLOTS, TIES, WIDTH, Micro
from isa.architecture import ANY, FLOATS, WORD_BYTES, Dtype, Engine
from isa.codec import IllegalInstruction
from isa.fields import Access
from isa.spec import MM_FORMAT, ROUND, TAP, VOP, VRED
from isa.views import extents_of

Table = NDArray[np.int64]
_ONE: Final = 0x3F800000
_ARITHMETIC: Final = {
    "add": Micro.ADD,
    "sub": Micro.SUB,
    "mul": Micro.MUL,
    "div": Micro.DIV,
    "max": Micro.MAX,
    "min": Micro.MIN,
}
_REDUCTIONS: Final = {
    "sum": Micro.SUM,
    "sumsq": Micro.SUMSQ,
    "max": Micro.LARGEST,
    "min": Micro.SMALLEST,
    "absmax": Micro.ABSMAX,
}
_TYPES: Final = {"bf16": Dtype.BF16, "f16": Dtype.F16}
_WIDENED: Final = tuple(dtype for dtype in Dtype if dtype is not Dtype.I4)
_OPS: Final = {
    "nop": Op.NOTHING,
    "fence": Op.NOTHING,
    "halt": Op.HALT,
    "loop": Op.LOOP,
    "salu": Op.SALU,
    "sld": Op.SLD,
    "vset": Op.VSET,
    "vinc": Op.VINC,
    "vadd": Op.VADD,
}


@dataclass(slots=True, weakref_slot=True)
class Translated:
    """A program: a row of `code` per instruction; that of an engine instruction names its recipe and template. The
    templates point to `constants`."""

    code: Table
    recipes: Table
    templates: Table
    engine: Sequence[Decoded]  # by recipe
    constants: "Constants"


class Constants:
    """Immediates in memory, where the kernels look for operands."""

    def __init__(self) -> None:
        self._blocks: dict[int, NDArray[np.float32]] = {}

    def address(self, bits: int) -> int:
        if bits not in self._blocks:
            self._blocks[bits] = np.array([float_of_bits(bits)], np.float32)
        return self._blocks[bits].ctypes.data


@dataclass(slots=True)
class Chain:
    """A step under construction: which view goes to which slot, and what happens to a row.

    `types` of a view that the kernel takes; `more` are columns from the fifth on; `whole` means that the step goes along
    the extents of this view.
    """

    instruction: Decoded
    constants: Constants
    whole: str = "d"
    slots: dict[str, int] = field(default_factory=dict)
    immediates: dict[int, int] = field(default_factory=dict)
    micros: list[tuple[int, int]] = field(default_factory=list)
    types: dict[str, tuple[Dtype, ...]] = field(default_factory=dict)
    more: tuple[int, ...] = ()
    tap_round: int = -1

    def __contains__(self, name: str) -> bool:
        return any(operand.field.name == name for operand in self.instruction.views)

    def slot(self, name: str) -> int:
        return self.slots.setdefault(name, len(self.slots) + len(self.immediates))

    def then(self, micro: Micro, name: str) -> None:
        self.micros.append((int(micro), self.slot(name)))

    def then_immediate(self, micro: Micro, bits: int) -> None:
        number = len(self.slots) + len(self.immediates)
        self.immediates[number] = self.constants.address(bits)
        self.micros.append((int(micro), number))

    def template(self, kind: Kind) -> list[int]:
        assert len(self.slots) + len(self.immediates) <= SLOTS and len(self.micros) <= MICROS
        step = [0] * WIDTH
        step[0], step[4] = int(kind), len(self.micros)
        step[5 : 5 + len(self.more)] = self.more
        for number, address in self.immediates.items():
            at = FIRST_SLOT + SLOT_WIDTH * number
            step[at : at + SLOT_WIDTH] = (address, 0, 0, 0, int(Dtype.F32))
        for number, micro in enumerate(self.micros):
            step[FIRST_MICRO + 2 * number : FIRST_MICRO + 2 * number + 2] = micro
        return step


def _vaff(chain: Chain, operands: dict[str, int]) -> Kind | None:
    red, rnd = TAP[operands["red"]], _TYPES.get(ROUND[operands["rnd"]])
    if ("tap" in chain) != (red != "none"):
        return None
    chain.then(Micro.LOAD, "a")
    order = (("sub", Micro.SUB), ("rs", Micro.MUL), ("cs", Micro.MUL), ("bi", Micro.ADD), ("res", Micro.ADD))
    rounds = {"rs", "bi"} if "bi" in chain else {"rs", "cs"}
    for name, micro in order:
        if name in chain:
            chain.then(micro, name)
            if rnd is not None and name in rounds:
                chain.micros.append((int(Micro.ROUND), int(rnd)))
    chain.then(Micro.STORE, "d")
    if "tap" in chain:
        chain.tap_round = len(chain.micros)
        chain.micros.append((int(Micro.ROUND), int(Dtype.F32)))
        chain.then(_REDUCTIONS[red], "tap")
    return Kind.ROWS


def _vop(chain: Chain, operands: dict[str, int]) -> Kind | None:
    f = VOP[operands["f"]]
    if not (f == "mov" or f in _ARITHMETIC):
        return None
    chain.types["d"] = FLOATS
    chain.then(Micro.LOAD, "a")
    if f != "mov":
        if "b" in chain:
            chain.then(_ARITHMETIC[f], "b")
        else:
            chain.then_immediate(_ARITHMETIC[f], operands["imm"])
    elif "b" in chain:
        chain.slot("b")
    chain.then(Micro.STORE, "d")
    return Kind.ROWS


def _act(chain: Chain, operands: dict[str, int]) -> Kind | None:
    chain.then(Micro.LOAD, "a")
    if operands["scale"] != _ONE:
        chain.then_immediate(Micro.MUL, operands["scale"])
    if "bi" in chain:
        chain.then(Micro.SUB if operands["neg"] else Micro.ADD, "bi")
    chain.micros.append((int(Micro.FUNCTION), operands["f"]))
    chain.then(Micro.STORE, "d")
    if "sum" in chain:
        chain.then(Micro.SUM, "sum")
    return Kind.ROWS


def _vred(chain: Chain, operands: dict[str, int]) -> Kind | None:
    micro = _REDUCTIONS.get(VRED[operands["f"]])
    if micro is None or operands["down"]:
        return None
    chain.whole, chain.types["d"] = "a", FLOATS
    chain.then(Micro.LOAD, "a")
    if "sub" in chain:
        chain.then(Micro.SUB, "sub")
    chain.then(micro, "d")
    return Kind.ROWS


def _vqd(chain: Chain, operands: dict[str, int]) -> Kind | None:
    names = [name for name in ("d", "s", "a", "rs", "cs", "am") if name in chain]
    for name in names:
        chain.slot(name)
    how = operands["norm"] << NORM | operands["ties"] << TIES
    chain.more = len({"rs", "cs"} & set(names)), int("am" in names) | how
    return Kind.QUANTIZE


def _copy(chain: Chain, operands: dict[str, int]) -> Kind | None:
    chain.types = {"d": ANY, "a": ANY}
    for name in ("d", "a"):
        chain.slot(name)
    return Kind.COPY


def _mm(chain: Chain, operands: dict[str, int]) -> Kind | None:
    if MM_FORMAT[operands["fmt"]] != "i8" or len(chain.instruction.views) != 3:
        return None
    chain.whole, chain.types = "c", {"c": (Dtype.I32,), "a": (Dtype.I8,), "w": (Dtype.I8,)}
    for name in ("c", "a", "w"):
        chain.slot(name)
    chain.more = 0, operands["acc"]  # k comes with the extents
    return Kind.MATMUL


def _mmg(chain: Chain, operands: dict[str, int]) -> Kind | None:
    """None for what the handler does not allow."""
    alone = operands["pre"] or operands["half"] or operands["acc"]
    if ("sm" in chain) != ("zw" in chain) if "ss" in chain else "sm" in chain:
        return None
    if "ss" in chain and alone:
        return None
    chain.whole, chain.types["w"] = "c", (Dtype.I4,) if operands["nib"] else (Dtype.I4, Dtype.I8)
    chain.slots = {name: slot for slot, name in enumerate(grouped.NAMES) if name in chain}
    flags = (grouped.ACC, "acc"), (grouped.PRE, "pre"), (grouped.HALF, "half")
    logs = operands["glog"] << grouped.GROUP_SHIFT | operands["slog"] << grouped.SUB_SHIFT
    kinds = logs | operands["nib"] << grouped.NIBBLE_SHIFT
    chain.more = 0, sum(bit for bit, name in flags if operands[name]) | kinds
    return Kind.GROUPED


_RECIPES: Final[dict[str, Callable[[Chain, dict[str, int]], Kind | None]]] = {
    "vaff": _vaff,
    "vop": _vop,
    "act": _act,
    "vred": _vred,
    "vqd": _vqd,
    "mm": _mm,
    "mmg": _mmg,
    **dict.fromkeys(("ldw", "lda", "sto"), _copy),
}


_translated: WeakValueDictionary[bytes, Translated] = WeakValueDictionary()


def translate(code: bytes, known: Sequence[Decoded | None]) -> Translated:
    """A whole program in decoded form: once, however many machines run it. `known` are instructions that were decoded
    before."""
    if (found := _translated.get(code)) is None:
        found = _translated[code] = _translate(code, known)
    return found


def _translate(code: bytes, known: Sequence[Decoded | None]) -> Translated:
    rows = np.zeros((len(code) // WORD_BYTES, layout.OP_WIDTH), np.int64)
    rows[:, 0] = Op.REFUSED
    recipes: list[list[int]] = []
    templates: list[list[int]] = []
    engine: list[Decoded] = []
    constants = Constants()
    for index in range(len(rows)):
        try:
            instruction = (known[index] if index < len(known) else None) or decode_at(code, index)
        except (IllegalInstruction, Fault):
            continue
        if instruction.engine is Engine.CTL:
            _control(rows[index], instruction)
        elif (made := _recipe(instruction, constants)) is not None:
            rows[index, :2] = Op.ENGINE, len(engine)
            engine.append(instruction)
            recipes.append(made[0])
            templates.append(made[1])
    return Translated(rows, _table(recipes, layout.RECIPE_WIDTH), _table(templates, WIDTH), tuple(engine), constants)


def _table(rows: list[list[int]], width: int) -> Table:
    return np.array(rows, np.int64).reshape(len(rows), width)


def _control(row: Table, instruction: Decoded) -> None:
    op = _OPS.get(instruction.inst.mnemonic)
    if op is None or (op is Op.VSET and not instruction.operands["v"]):
        return
    values = [instruction.operands[f.name] for f in instruction.inst.row.fields]
    if op is Op.SALU:
        values[layout.IMMEDIATE] = int_of_bits(values[layout.IMMEDIATE])
    row[0] = op
    row[1 : 1 + len(values)] = values


def _recipe(instruction: Decoded, constants: Constants) -> tuple[list[int], list[int]] | None:
    """Recipe and template; None for an instruction with extents that a scalar decides in a way of their own."""
    operands, names = instruction.operands, [operand.field.name for operand in instruction.views]
    dims = _dims(instruction)
    if dims is None or len(names) > layout.VIEW_LIMIT:
        return None
    chain = Chain(instruction, constants)
    make = _RECIPES.get(instruction.inst.mnemonic)
    kind = None if make is None else make(chain, operands)
    # a view that the kernel has no use for is the handler's business
    template = chain.template(kind) if kind is not None and set(names) == chain.slots.keys() else None
    recipe = [0] * layout.RECIPE_WIDTH
    recipe[: layout.FIRST_VIEW] = (
        layout.HANDLED if template is None or kind is None else int(kind),
        operands["dyn_s"] if instruction.dynamic else -1,
        instruction.limit,
        int(_never(instruction)),
        len(names),
        names.index(chain.whole) if template is not None else 0,
        chain.tap_round,
        int(any(micro >= Micro.SUM for micro, _ in chain.micros)),
        operands.get("wt", 0),
        int(kind in (Kind.MATMUL, Kind.GROUPED) and all(-1 not in dims[i] for i in layout.WEIGHTS if i < len(dims))),
        *_work(instruction),
    )
    for number, operand in enumerate(instruction.views):
        at = layout.FIRST_VIEW + number * layout.VIEW_WIDTH
        recipe[at : at + layout.VIEW_WIDTH] = (
            operand.number,
            int(operand.access is not Access.W),
            int(operand.access is not Access.R),
            *dims[number],
            _mask(operand.field.dtypes),
            _mask(operand.field.spaces),
            _mask(chain.types.get(operand.field.name, _WIDENED)),
            chain.slots.get(operand.field.name, -1),
        )
    return recipe, template or [0] * WIDTH


def _dims(instruction: Decoded) -> list[tuple[int, ...]] | None:
    """Extents of each view, where -1 is the one from the scalar; None if another one follows from it."""
    name, found = instruction.dynamic, []
    for operand in instruction.views:
        small, large = (
            extents_of(operand.field, {**instruction.operands, **({name: value} if name else {})})
            for value in (1, instruction.limit)
        )
        pairs = list(zip(small, large, strict=True))
        if any(a != b and (a, b) != (1, instruction.limit) for a, b in pairs):
            return None
        found.append(tuple(a if a == b else -1 for a, b in pairs))
    return found


def _never(instruction: Decoded) -> bool:
    """Whether there is nothing to do whatever the scalar is."""
    named = {dim for f in instruction.inst.row.views for dim in f.dims} - {instruction.dynamic}
    return any(instruction.operands.get(name, 1) == 0 for name in named)


def _work(instruction: Decoded) -> tuple[int, int]:
    """Work of an instruction, and whether it is to be multiplied by the extent from the scalar."""
    name = instruction.dynamic
    one, two = (budget.work({**instruction.operands, **({name: value} if name else {})}) for value in (1, 2))
    return one, int(one != two)


def _mask(values: Sequence[int]) -> int:
    return sum(1 << int(value) for value in values)
