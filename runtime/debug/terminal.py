"""The front ends: a line editor on a terminal, or lines from a file or a pipe, without decoration."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from isa.architecture import VIEWS, Region
from isa.spec import ISA
from runtime.debug.changing import OPTIONS
from runtime.debug.commands import COMMANDS, Shell
from runtime.debug.names import known

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.history import History

PROMPT = "(llmchip) "
_VALUES = {"print", "display", "dump", "set"}
_TAKES_NODE = {"until", "finish", "break", "compare", "disassemble", "unfuse", *_VALUES}
_TAKES_PLACE = {"watch", "break", *_VALUES}
Write = Callable[[str], None]


def run_lines(shell: Shell, lines: Iterable[str], write: Write) -> None:
    """Commands from a script or a pipe; only their answers are written."""
    with _interruptible(shell):
        for line in lines:
            for text in shell.execute(line):
                write(text)
            if shell.done:
                return


def run_terminal(shell: Shell, write: Write) -> None:
    """Commands from a person: history, completion, Ctrl-C stops what runs, an empty line repeats the last command."""
    from prompt_toolkit import PromptSession

    prompt: PromptSession[str] = PromptSession(
        history=_history(), completer=completer(shell), complete_while_typing=False
    )
    last = ""
    while not shell.done:
        try:
            line = prompt.prompt(PROMPT).strip()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        last = line or last
        run_lines(shell, [last], write)


@contextmanager
def _interruptible(shell: Shell) -> Iterator[None]:
    """Ctrl-C ends the running command between two instructions, where the machine is whole."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        if shell.session.interrupted:  # pressed again: nobody listens
            raise KeyboardInterrupt
        shell.session.interrupted = True

    try:
        before = signal.signal(signal.SIGINT, interrupt)
    except ValueError:  # not the main thread: there is no Ctrl-C to catch
        yield
        return
    shell.session.interrupted = False
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def words_for(shell: Shell, before: list[str]) -> list[str]:
    """What may follow the words already typed."""
    commands = [command.name for command in COMMANDS]
    if not before:
        return commands
    typed = before[0].partition("/")[0]
    command = next((c.name for c in COMMANDS if typed == c.name or typed in c.short), typed)
    if len(before) > 1:
        return {"write": _memories(), "op": sorted(ISA)}.get(before[1], [])
    nodes = shell.session.nodes
    found = list(dict.fromkeys((*nodes.numbers, *known(nodes.debug)))) if command in _TAKES_NODE else []
    if command in _TAKES_PLACE:
        found += [f"v{number}" for number in range(1, VIEWS)] + _memories()
    extra = {
        "help": commands + sorted(ISA),
        "info": ["registers", "loops", "breakpoints", "engines"],
        "break": ["write", "op"],
        "set": list(OPTIONS),
    }
    return found + extra.get(command, [])


def _memories() -> list[str]:
    return ["sram[", "acc["] + [f"dram.{region.name.lower()}[" for region in Region]


def completer(shell: Shell) -> "Completer":
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document

    class Words(Completer):
        def get_completions(self, document: Document, event: CompleteEvent) -> Iterator[Completion]:
            typed = document.text_before_cursor
            before = typed.split()
            current = "" if not before or typed[-1:].isspace() else before.pop()
            yield from (
                Completion(word, -len(current))
                for word in words_for(shell, before)
                if word.startswith(current) and word.isprintable()
            )

    return Words()


def _history() -> "History":
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "llmchip"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "debug_history", "a"):
            return FileHistory(str(folder / "debug_history"))
    return InMemoryHistory()
