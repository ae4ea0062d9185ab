"""View registers: hand out the 31 of them, least recently used first, and emit `vset` where a view is not loaded yet."""

from collections import OrderedDict
from collections.abc import Iterable

from isa.codec import NO_WAITS, Inst
from isa.spec import VIEWS
from isa.views import View


class ViewFile:
    """Which view each register holds at this point of the program."""

    def __init__(self) -> None:
        self._held: OrderedDict[View, int] = OrderedDict()

    def load(self, views: Iterable[View | None]) -> tuple[list[Inst], list[int]]:
        """The `vset` words needed, and the register of each view (0 where there is none)."""
        words: list[Inst] = []
        wanted = [v for v in views if v is not None]
        for view in wanted:  # first, so that none of them is evicted for another
            if view in self._held:
                self._held.move_to_end(view)
        for view in wanted:
            if view not in self._held:
                words.append(self._set(view))
        return words, [0 if v is None else self._held[v] for v in views]

    def _set(self, view: View) -> Inst:
        register = len(self._held) + 1 if len(self._held) < VIEWS - 1 else self._held.popitem(last=False)[1]
        self._held[view] = register
        where = {"space": int(view.space), "region": int(view.region), "dtype": int(view.dtype)}
        return Inst.make("vset", NO_WAITS, v=register, base=view.base, rs=view.rs, ps=view.ps, cs=view.cs, **where)
