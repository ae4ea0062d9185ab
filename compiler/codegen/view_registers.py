"""View registers: hand out the 31 of them, least recently used first, and emit `vset` where a view is not loaded yet.

A moving view is a view and the bytes it moves per iteration of the loop; it takes a `vinc` too.
"""

from collections import OrderedDict
from collections.abc import Sequence

from isa.architecture import VIEWS
from isa.codec import NO_WAITS, Inst
from isa.views import View

Moving = tuple[View, int]
LEVEL = 0  # loop level of the layer loop


class ViewFile:
    """Which view each register holds at this point of the program."""

    def __init__(self) -> None:
        self._held: OrderedDict[Moving, int] = OrderedDict()

    def forget(self) -> None:
        """Nothing is known of the registers: a loop starts or ends here."""
        self._held.clear()

    def load(self, views: Sequence[Moving | None]) -> tuple[list[Inst], list[int]]:
        """The `vset` instructions needed, and the register of each view (0 where there is none)."""
        instructions: list[Inst] = []
        wanted = [v for v in views if v is not None]
        for view in wanted:  # first, so that none of them is evicted for another
            if view in self._held:
                self._held.move_to_end(view)
        for view in wanted:
            if view not in self._held:
                instructions += self._set(view)
        return instructions, [0 if v is None else self._held[v] for v in views]

    def _set(self, moving: Moving) -> list[Inst]:
        register = len(self._held) + 1 if len(self._held) < VIEWS - 1 else self._held.popitem(last=False)[1]
        self._held[moving] = register
        view, step = moving
        where = {"space": int(view.space), "region": int(view.region), "dtype": int(view.dtype)}
        instructions = [
            Inst.make("vset", NO_WAITS, v=register, base=view.base, rs=view.rs, ps=view.ps, cs=view.cs, **where)
        ]
        if step:
            instructions.append(Inst.make("vinc", NO_WAITS, v=register, level=LEVEL, inc=step))
        return instructions
