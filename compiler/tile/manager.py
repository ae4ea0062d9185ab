"""Runs tile passes, for every tiling that the search tries, and shows what they made of the program that is kept."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

from compiler.graph.manager import Watch, named, show, timed
from compiler.tile.state import TileState
from compiler.tile.verify_state import verify_state


class TilePass(Protocol):
    """A named step behind the frozen graph. It adds to the state, or replaces what is there; it may not change what is
    computed."""

    name: ClassVar[str]

    def run(self, state: TileState) -> TileState: ...


@dataclass
class TileManager:
    """Every pass is timed, by its name. `kept` states are verified and shown, each once; the number of the first pass
    is `first`."""

    watch: Watch = field(default_factory=Watch)
    first: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    shown: int = 0

    def run(self, steps: Iterable[TilePass], state: TileState) -> TileState:
        """The state behind all `steps`. Raises InternalError, with the name of the pass, for what goes wrong in one
        and is not an error of the user's."""
        for step in steps:
            with timed(self.seconds, step.name), named(self._title(step.name, len(state.history())), "failed"):
                after = step.run(state)
            state = replace(after, last=step.name, before=state)
        return state

    def keep(self, state: TileState) -> bool:
        """Verify and show what the passes behind `state` have made; whether this is where to stop. Raises
        InternalError with the name of a pass."""
        for made in state.history()[self.shown :]:
            with (
                timed(self.seconds, made.last),
                named(self._title(made.last, self.shown), "left something invalid", errors=True),
            ):
                verify_state(made)
            show(self.watch, self.first + self.shown, made.last, made.__str__)
            self.shown += 1
            if made.last == self.watch.stop_after:
                return True
        return False

    def _title(self, name: str, number: int) -> str:
        return f"{self.first + number} '{name}'"
