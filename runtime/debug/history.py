"""Checkpoints of a running machine, so that time can go backwards.

Each interval of execution keeps the old content of every page that was written in it (copy on write), and the control
state at its start. Going back restores the pages of the newest intervals, then runs forward to the wanted moment, which
is exact because the machine is deterministic. When the pages exceed a budget, neighbours are merged, so memory stays
bounded.
"""

import copy
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from emulator.context import Core, Loop, ViewRegister
from emulator.memory import Store
from isa.views import Extents, View

PAGE = 4096
BUDGET = 256 << 20
INTERVAL = 64  # instructions between checkpoints, until the budget says otherwise
_Page = tuple[Store, NDArray[np.uint8], NDArray[np.uint8] | None]


@dataclass(frozen=True)
class Control:
    """What a core holds besides memory."""

    index: int
    scalars: tuple[int, ...]
    views: tuple[ViewRegister | None, ...]
    indices: tuple[int, ...]
    loops: tuple[Loop, ...]
    exit: int | None

    @classmethod
    def of(cls, core: Core) -> "Control":
        return cls(
            core.index, tuple(core.scalars), _copied(core.views), tuple(core.indices), tuple(core.loops), core.exit
        )

    def restore(self, core: Core) -> None:
        core.index, core.exit = self.index, self.exit
        core.scalars, core.indices, core.loops = list(self.scalars), list(self.indices), list(self.loops)
        core.views = list(_copied(self.views))


def _copied(
    registers: "list[ViewRegister | None] | tuple[ViewRegister | None, ...]",
) -> tuple[ViewRegister | None, ...]:
    return tuple(register and ViewRegister(register.view, copy.copy(register.steps)) for register in registers)


@dataclass
class _Interval:
    time: int
    control: Control
    pages: dict[tuple[str, int], _Page] = field(default_factory=dict)


class History:
    """Old pages of one machine's memory, by interval. `time` counts executed instructions."""

    def __init__(self, core: Core, budget: int = BUDGET, interval: int = INTERVAL) -> None:
        self._core, self._memory, self._budget = core, core.memory, budget
        self.interval = interval
        self._intervals = [_Interval(0, Control.of(core))]
        self.bytes = 0

    def floor(self, time: int) -> int:
        """The latest checkpoint that is not after `time`."""
        return max(i.time for i in self._intervals if i.time <= time)

    def advance(self, time: int) -> None:
        """Take a checkpoint if it is time for one. Called between instructions."""
        if time - self._intervals[-1].time >= self.interval:
            self._intervals.append(_Interval(time, Control.of(self._core)))
            while self.bytes > self._budget and len(self._intervals) > 2:
                self._thin()

    def keep(self, view: View, extents: Extents) -> None:
        """Save the pages under a block that is about to be written."""
        store = self._memory.store_of(view)
        low, high = view.span(extents)
        pages = self._intervals[-1].pages
        for page in range(max(low, 0) // PAGE, -(-min(high, store.size) // PAGE)):
            if (store.name, page) not in pages and store.pieces is None:
                where = slice(page * PAGE, (page + 1) * PAGE)
                saved = pages[store.name, page] = (
                    store,
                    store.data[where].copy(),
                    None if store.written is None else store.written[where].copy(),
                )
                self.bytes += _size(saved)

    def rewind(self, time: int) -> int:
        """Put memory and core back to the latest checkpoint not after `time`; gives its time."""
        while True:
            last = self._intervals[-1]
            for (_, page), (store, data, written) in last.pages.items():
                where = slice(page * PAGE, page * PAGE + data.size)
                store.data[where] = data
                if store.written is not None and written is not None:
                    store.written[where] = written
            self.bytes -= sum(map(_size, last.pages.values()))
            last.pages.clear()
            if last.time <= time:
                last.control.restore(self._core)
                return last.time
            self._intervals.pop()

    def _thin(self) -> None:
        """Merge neighbours: the earlier content of a page is the one to go back to."""
        merged = []
        for first, second in zip(self._intervals[:-1:2], self._intervals[1::2], strict=False):
            merged.append(_Interval(first.time, first.control, second.pages | first.pages))
        if len(self._intervals) % 2:
            merged.append(self._intervals[-1])
        else:  # the running interval is empty at its start and stays on its own
            merged.append(_Interval(self._intervals[-1].time, self._intervals[-1].control))
        self._intervals = merged
        self.interval *= 2
        self.bytes = sum(_size(page) for i in merged for page in i.pages.values())


def _size(page: _Page) -> int:
    return page[1].nbytes * (1 if page[2] is None else 2)
