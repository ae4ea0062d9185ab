"""Scalar registers: hand out the 16 of them, least recently used first, and emit what computes a length that is not
there yet.

    sld s0, params[positions]      salu s1 = s0 + 1      salu s1 = max(s1, 0)      salu s1 = min(s1, 512)
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from compiler.codegen.view_registers import ViewFile
from compiler.tile.ir import Length
from isa.architecture import SCALARS, Dtype, Space
from isa.codec import NO_WAITS, Inst
from isa.spec import SALU
from isa.views import View


class ScalarFile:
    """Which length each register holds at this point of the program. Inputs are read through a view register."""

    def __init__(self, views: ViewFile) -> None:
        self._views = views
        self._held: OrderedDict[Length, int] = OrderedDict()

    def forget(self) -> None:
        """Nothing is known of the registers: a loop starts or ends here."""
        self._held.clear()

    def load(self, lengths: Sequence[Length]) -> tuple[list[Inst], list[int]]:
        """The instructions needed, and the register of each length."""
        instructions: list[Inst] = []
        for length in lengths:
            raw = _raw(length)
            for wanted in dict.fromkeys((raw, length)):
                if wanted in self._held:
                    self._held.move_to_end(wanted)
                else:
                    instructions += self._compute(wanted, raw)
        return instructions, [self._held[length] for length in lengths]

    def _compute(self, length: Length, raw: Length) -> list[Inst]:
        register = len(self._held) if len(self._held) < SCALARS else self._held.popitem(last=False)[1]
        self._held[length] = register
        if length == raw:
            view = View(Space.DRAM, length.buffer.region, Dtype.I32, length.buffer.fixed or 0)
            sets, (number,) = self._views.load([(view, 0, None)])
            return [*sets, Inst.make("sld", NO_WAITS, d=register, v=number, off=length.index)]
        source = self._held[raw]
        steps = [("mul", 0xFFFFFFFF)] if length.falling else []
        steps += [("add", length.plus & 0xFFFFFFFF)] if length.plus else []
        least, most = sorted((length.plus, length.plus + (-length.largest if length.falling else length.largest)))
        steps += [("max", 0)] if least < 0 else []
        steps += [("min", length.width)] if most > length.width else []
        steps = steps or [("add", 0)]
        found = []
        for name, number in steps:
            found.append(Inst.make("salu", NO_WAITS, f=SALU.index(name), d=register, a=source, bi=1, imm=number))
            source = register
        return found


def _raw(length: Length) -> Length:
    """The input's element itself."""
    return replace(length, plus=0, width=length.largest, falling=False)
