"""What the debugger's commands share: the session, what is shown at each stop, and how.

A command is a function from the state and its words to what it says: lines for people and, beside them, dictionaries
of numbers for programs (`--json`).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from isa.image.image import Image
from runtime.debug.session import Session
from runtime.debug.values import Printing

Said = str | Mapping[str, Any]
Answer = Iterable[Said]


@dataclass(frozen=True)
class Display:
    """Something that is printed at each stop."""

    number: int
    form: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(([f"/{self.form}"] if self.form else []) + list(self.words))


class State:
    """`unfused` compiles the session's program again without fusing; None where there is no model. `check_file` raises
    InputError for a file that `dump` may not write."""

    def __init__(
        self,
        session: Session,
        unfused: Callable[[], Image] | None = None,
        check_file: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.session, self.unfused, self.check_file = session, unfused, check_file
        self.done = False
        self.failed = 0  # commands that ended in an error, and comparisons that found a difference
        self.displays: list[Display] = []
        self.printing = Printing()


@dataclass(frozen=True)
class Command:
    """A row of the table: `usage` behind the name, one line of meaning, an example."""

    name: str
    usage: str
    summary: str
    example: str
    run: Callable[[Any, list[str]], Answer]
    short: tuple[str, ...] = ()
