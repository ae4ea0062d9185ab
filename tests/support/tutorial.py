"""The tutorial as its reader follows it: files that he is told to save, tasks with their commands."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from checkout import ROOT

TEXT = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
FILES: Mapping[str, str] = dict(re.findall(r"Save this as\s`([\w.]+)`.*?```python\n(.*?)```", TEXT, re.DOTALL))


@dataclass(frozen=True)
class Command:
    """A line, and what its comment says of it: `exits with 1`, and `says "…"` for a piece of its output."""

    text: str
    code: int
    said: tuple[str, ...]


def command(line: str) -> Command:
    text, _, comment = line.partition(" # ")
    code = re.search(r"exits with (\d+)", comment)
    return Command(text.strip(), int(code[1]) if code else 0, tuple(re.findall(r'says "([^"]*)"', comment)))


def task(title: str) -> list[Command]:
    """The commands of a section, in order."""
    section = re.split(r"\n##+ ", TEXT.partition(f"\n### {title}\n")[2])[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return [command(line) for block in blocks for line in block.splitlines() if line]
