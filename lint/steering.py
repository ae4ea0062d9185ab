"""What the scalars of a launch decide: followed along the replay of one launch, for all values in a box.

    sld s1, v1      vadd v2, s1, scale=64      lda d=v3, a=v2, rows=0, dyn=rows, dyn_s=s1
                                               rows = positions.0, a at 0x800 + 64 * positions.0

Which instructions are dispatched, and what they know of each other, is the same in all launches of the box; where a
loop count depends on a scalar the box is to be divided (`Unsteerable`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from isa.architecture import SCALARS, Region, Space
from isa.fields import Field
from isa.image.image import Image
from isa.image.records import Entry
from isa.replay import Dispatch, dynamic_extent, is_empty, loader, signed, view_of
from isa.spec import SALU
from isa.views import PARTS, View, dims_of, part_length
from lint.piecewise import Box, Point, Unsteerable, Value, combine

CEILDIV = SALU.index("ceildiv")
Level = tuple[int, int, int, int]  # level, inc, div, mod of a `vinc`


@dataclass(frozen=True)
class Steered:
    """An instruction of which operands depend on scalars: its dynamic extent, and where its views begin."""

    dispatch: Dispatch
    name: str
    extent: Value
    views: Mapping[str, tuple[View, Value]]

    def at(self, point: Point) -> Dispatch:
        """As it is dispatched in a launch. Raises ValueError when its extent does not fit."""
        operands = dict(self.dispatch.operands)
        if self.name:
            operands[self.name] = value = self.extent.at(point)
            if not 0 <= value <= self.dispatch.inst.row.field(self.name).largest:
                raise ValueError(f"extent {self.name} = s{operands['dyn_s']} = {value} does not fit its field")
        empty = is_empty(self.dispatch.inst, operands)
        views = {} if empty else {name: replace(view, base=base.at(point)) for name, (view, base) in self.views.items()}
        return replace(self.dispatch, operands=operands, views=views, empty=empty)

    @property
    def values(self) -> tuple[Value, ...]:
        """All that depends on scalars."""
        return (*((self.extent,) if self.name else ()), *(base for _, base in self.views.values()))

    def extents(self, field: Field) -> tuple[Value, Value, Value]:
        planes, rows, cols = (self._extent(name) for name in dims_of(field, self.dispatch.operands))
        return planes, rows, cols

    def _extent(self, name: str) -> Value:
        operands = self.dispatch.operands
        if name == "1":
            return Value(1)
        if name in PARTS:
            return combine(CEILDIV, self._extent("k"), Value(part_length(name, operands)))
        return self.extent if name == self.name else Value(operands[name])


@dataclass
class _Register:
    view: View
    moved: Value
    steps: tuple[Level, ...] = ()


class Steering:
    """Registers as functions of the scalars. Feeds on every instruction of a replay, control instructions too."""

    def __init__(self, image: Image, entry: Entry, box: Box) -> None:
        values = {name: last for name, (_, last) in box.items()}
        self.load = loader(image, entry, values)
        self.given = {s.offset: Value.of(s.name, *box[s.name]) for s in entry.scalars}
        self.scalars = [Value()] * SCALARS
        self.registers: dict[int, _Register] = {}
        self.steered: dict[int, Steered] = {}  # by the number of the instruction in the replay

    def observe(self, number: int, dispatch: Dispatch) -> None:
        """Follow an instruction. Raises Unsteerable."""
        operands, mnemonic = dispatch.operands, dispatch.inst.mnemonic
        if mnemonic == "sld":
            self.scalars[operands["d"]] = self._loaded(dispatch)
        elif mnemonic == "salu":
            second = Value(signed(operands["imm"])) if operands["bi"] else self.scalars[operands["b"]]
            self.scalars[operands["d"]] = combine(operands["f"], self.scalars[operands["a"]], second)
        elif mnemonic == "vset":
            self.registers[operands["v"]] = _Register(view_of(operands), Value())
        elif mnemonic == "vinc":
            register = self.registers[operands["v"]]
            register.steps += ((operands["level"], operands["inc"], operands["div"], operands["mod"]),)
        elif mnemonic == "vadd":
            register = self.registers[operands["v"]]
            register.moved = register.moved.plus(self.scalars[operands["s"]].times(operands["scale"]))
        elif mnemonic == "loop":
            self._loop(dispatch)
        elif dispatch.inst.row.views:
            self._engine(number, dispatch)

    def _loaded(self, dispatch: Dispatch) -> Value:
        register = self.registers[dispatch.operands["v"]]
        for name in register.moved.scalars:
            raise Unsteerable("a scalar is loaded from a place that depends on another", name)
        view = dispatch.views["v"]
        base = view.base + dispatch.operands["off"] * view.cs * 4
        if view.space is Space.DRAM and view.region is Region.PARAMS and base in self.given:
            return self.given[base]
        return Value(signed(self.load(replace(view, base=base))))

    def _loop(self, dispatch: Dispatch) -> None:
        count = self.scalars[dispatch.operands["s"]]
        if not dispatch.operands["dyn"] or not count.parts:
            return
        (name, segments), *_ = count.parts
        flat = all(not segment.slope for segment in segments)
        raise Unsteerable("a loop count depends on it", name, [s.first for s in segments[1:]] if flat else [])

    def _engine(self, number: int, dispatch: Dispatch) -> None:
        named = dispatch.inst.named()
        used = {f.name: self.registers.get(named[f.name]) for f in dispatch.inst.row.views if named[f.name]}
        name = dynamic_extent(dispatch.inst)
        extent = self.scalars[named["dyn_s"]] if name else Value()
        if extent.parts or any(register is not None and register.moved.parts for register in used.values()):
            views = {
                field: (register.view, register.moved.plus(Value(_base(register, dispatch.indices))))
                for field, register in used.items() if register is not None
            }  # fmt: skip
            self.steered[number] = Steered(dispatch, name, extent, views)


def _base(register: _Register, indices: tuple[int, ...]) -> int:
    base = register.view.base
    for level, inc, div, mod in register.steps:
        moved = indices[level] // div
        base += inc * (moved % mod if mod else moved)
    return base
