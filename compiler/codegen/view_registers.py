"""View registers: hand out the 31 of them, least recently used first, and emit `vset` where a view is not loaded yet.

A moving view is a view and the bytes it moves per iteration of the loop, for which it takes a `vinc` too; and the
scalar register with a length that it is moved by, for which it takes a `vadd`.
"""

from collections import OrderedDict
from collections.abc import Sequence

from compiler.tile.ir import Length
from isa.architecture import VIEWS
from isa.codec import NO_WAITS, Inst
from isa.views import View

Shift = tuple[Length, int, int]  # which length, its register, bytes for each one
Moving = tuple[View, int, Shift | None]
LEVEL = 0  # loop level of the layer loop


class ViewFile:
    """Which view each register holds at this point of the program."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[View, int, Length | None, int], int] = OrderedDict()

    def forget(self) -> None:
        """Nothing is known of the registers: a loop starts or ends here."""
        self._held.clear()

    def load(self, views: Sequence[Moving | None]) -> tuple[list[Inst], list[int]]:
        """The `vset` instructions needed, and the register of each view (0 where there is none)."""
        instructions: list[Inst] = []
        wanted = [v for v in views if v is not None]
        for view in wanted:  # first, so that none of them is evicted for another
            if _key(view) in self._held:
                self._held.move_to_end(_key(view))
        for view in wanted:
            if _key(view) not in self._held:
                instructions += self._set(view)
        return instructions, [0 if v is None else self._held[_key(v)] for v in views]

    def _set(self, moving: Moving) -> list[Inst]:
        register = len(self._held) + 1 if len(self._held) < VIEWS - 1 else self._held.popitem(last=False)[1]
        self._held[_key(moving)] = register
        view, step, shift = moving
        where = {"space": int(view.space), "region": int(view.region), "dtype": int(view.dtype)}
        instructions = [
            Inst.make("vset", NO_WAITS, v=register, base=view.base, rs=view.rs, ps=view.ps, cs=view.cs, **where)
        ]
        if step:
            instructions.append(Inst.make("vinc", NO_WAITS, v=register, level=LEVEL, inc=step))
        if shift is not None:
            instructions.append(Inst.make("vadd", NO_WAITS, v=register, s=shift[1], scale=shift[2]))
        return instructions


def _key(moving: Moving) -> tuple[View, int, Length | None, int]:
    """What a register holds: whichever scalar register has had the length."""
    view, step, shift = moving
    return (view, step, None, 0) if shift is None else (view, step, shift[0], shift[2])
