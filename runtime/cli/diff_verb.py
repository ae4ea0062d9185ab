"""`llmcc diff`: two programs side by side."""

import os
import shutil
import sys
from collections.abc import Iterator

import click

from isa.asm.listing import Line, on_one_line
from runtime.cli import completion
from runtime.cli.common import common_options, examples, reply, say
from runtime.device.program_file import open_program
from runtime.listing.diff import Comparison, Part, Row, compare

_STYLE = {"=": "", "|": "33", "-": "31", "+": "32"}
_NARROW, _WIDE = 60, 110


@click.command(
    name="diff", epilog=examples("llmcc diff before.llmchip after.llmchip", "llmcc diff gemm.s faster.s --json")
)
@click.argument("a", metavar="A", shell_complete=completion.files)
@click.argument("b", metavar="B", shell_complete=completion.files)
@click.option("--all", "everything", is_flag=True, help="Show the nodes that are the same, too.")
@common_options
def command(a: str, b: str, everything: bool, as_json: bool, traceback: bool) -> int:
    """Compare two programs (images or assembly text): nodes aligned, instructions side by side, instructions and cycles
    per engine.

    Marks: | another instruction, - only in A, + only in B. Exit code 1 if the programs differ.
    """
    comparison = compare(open_program(a), open_program(b))
    reply({"a": a, "b": b, **comparison.as_dict()}, as_json, lambda: _print(comparison, everything))
    return 0 if comparison.same else 1


def _print(comparison: Comparison, everything: bool) -> None:
    terminal = sys.stdout.isatty()
    colored = terminal and not os.environ.get("NO_COLOR")
    width = min(max((shutil.get_terminal_size().columns - 20) // 2, _NARROW), _WIDE) if terminal else 88
    for part in comparison.parts:
        if everything or part.changed:
            for line in _part(part, width, colored):
                sys.stdout.write(f"{line}\n")
    _table(comparison)


def _part(part: Part, width: int, colored: bool) -> Iterator[str]:
    before, after = part.counts
    busy = f"; {part.busy[0]} and {part.busy[1]} cycles of work" if any(part.busy) else ""
    yield f"---- {on_one_line(part.title or 'code')}: {before} and {after} instructions{busy}"
    for row in part.rows:
        text = _row(row, width)
        yield f"\x1b[{_STYLE[row.mark]}m{text}\x1b[0m" if colored and _STYLE[row.mark] else text


def _row(row: Row, width: int) -> str:
    return f"{_cell(row.a, width)} {' ' if row.mark == '=' else row.mark} {_cell(row.b, width)}".rstrip()


def _cell(line: Line | None, width: int) -> str:
    text = "" if line is None else f"{line.pc:#06x} {'  ' * line.depth}{line.text}"
    return f"{text[: width - 1]}…" if len(text) > width else text.ljust(width)


def _table(comparison: Comparison) -> None:
    changed = sum(part.changed for part in comparison.parts)
    say(f"{changed} of {len(comparison.parts)} nodes differ" if changed else "the programs are the same")
    title = f"{'':8}{'instr. A':>10}{'instr. B':>10}{'B-A':>10}"
    say(title + (f"{'cycles A':>14}{'cycles B':>14}{'B-A':>14}" if comparison.cycles else ""))
    for engine, (a, b) in comparison.engines.items():
        line = f"{engine:8}{a:10}{b:10}{_change(a, b):>10}"
        if engine in comparison.cycles:
            before, after = comparison.cycles[engine]
            line += f"{before:14}{after:14}{_change(before, after):>14}"
        say(line.rstrip())
    if comparison.cycles:
        say("cycles of an engine: those in which it works; all: from the first instruction to the last")


def _change(a: int, b: int) -> str:
    return f"{b - a:+}" if a != b else ""
