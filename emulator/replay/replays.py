"""Launches that need not be interpreted: by expanded programs (`plans`) where compiled kernels are to be had, else by
traces of launches with the same scalars (`recording`).

Nothing of numba is imported before a program is launched for the second time.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from emulator.context import Core
from emulator.decoded import Decoded
from emulator.memory import Memory, Scratch
from emulator.replay.recording import Key, Recording, Trace, TraceCache

if TYPE_CHECKING:
    from emulator.replay.plans import Plan, Plans

PROGRAMS: Final = 256  # that are known to have ended well once


class Replays:
    """Those of one machine; without `compiled`, only traces."""

    def __init__(self, memory: Memory, scratch: Scratch, compiled: bool) -> None:
        self._memory, self._scratch, self._undecided = memory, scratch, compiled
        self._traces: TraceCache | None = TraceCache(memory)
        self._plans: Plans | None = None
        self._known: dict[tuple[bytes, int], Sequence[Decoded | None]] = {}

    def find(self, key: Key, budget: int | None) -> "Trace | Plan | None":
        """How to do a launch without interpreting, if there is a way."""
        known = self._known.get(key[:2])
        if known is None:
            return None
        if self._undecided:
            self._decide()
        if self._plans is None:
            return self._traces.find(key) if self._traces else None
        self._known[key[:2]] = ()  # the plan has them now
        return self._plans.find(key, known, budget)

    def _decide(self) -> None:
        self._undecided, self._plans = False, plans(self._memory, self._scratch)
        if self._plans is not None:
            self._traces = None

    def recording(self) -> Recording | None:
        """Where an interpreted launch is to be noted."""
        return Recording() if self._traces else None

    def keep(
        self, key: Key, recording: Recording | None, exit_code: int, instructions: Sequence[Decoded | None]
    ) -> bool:
        """A launch ended well; these are the instructions of its program as far as they were decoded. Whether it was the
        first such."""
        if self._traces and recording:
            self._traces.keep(key, recording, exit_code)
        if key[:2] in self._known:
            return False
        if len(self._known) >= PROGRAMS:
            self._known.pop(next(iter(self._known)))
        self._known[key[:2]] = instructions
        return True

    def forget_shadows(self) -> None:
        """Something else is going to run."""
        for replays in (self._traces, self._plans):
            if replays is not None:
                replays.forget_shadows()

    def execute(self, found: "Trace | Plan", core: Core) -> Iterator[int]:
        """Run everything; gives the instruction that is about to execute wherever one could trap."""
        if isinstance(found, Trace):
            assert self._traces is not None
            return self._traces.execute(found, core)
        assert self._plans is not None
        return self._plans.execute(found, core)


def plans(memory: Memory, scratch: Scratch) -> "Plans | None":
    """Compiled kernels, where numba and the processor allow."""
    try:
        from emulator.replay.plans import Plans
    except ImportError:
        return None
    return Plans(memory, scratch)
