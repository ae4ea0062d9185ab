"""What the programs of a benchmark were, run after run: a file of lines, one for each program that has changed.

    history = History(RESULTS / "chip-history.jsonl")     history.add("minilm 128x1 edge", report)

A line is a profile without its nodes and stalls, so that two of them can be compared (`runtime.compare`): what has
changed since the last line of the same program is printed, by cause and by layer.
"""

import subprocess
from pathlib import Path

import msgspec
from msgspec import Struct

from isa.files import write_atomic
from runtime.cli.compare_verb import print_comparison
from runtime.compare.compare import Side, compare
from runtime.compare.comparison import Comparison
from runtime.profile.document import ProfileDocument
from runtime.profile.profile import Profile


class Line(Struct, frozen=True):
    """A program as it was at a commit."""

    name: str
    commit: str
    profile: ProfileDocument


class History:
    """The lines of a file, the oldest first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_bytes() if path.is_file() else b""
        self.lines = [msgspec.json.decode(line, type=Line) for line in text.splitlines()]

    def last(self, name: str) -> Line | None:
        """The newest line of this program."""
        return next((line for line in reversed(self.lines) if line.name == name), None)

    def add(self, name: str, report: Profile) -> Comparison | None:
        """Keep a program that differs from its last line, and say in what. None for one that is new or the same."""
        old, document = self.last(name), report.document(name)
        short = msgspec.structs.replace(document, nodes=(), lines=(), stalls=())
        if old is not None and (old.profile.code_sha256, old.profile.cycles) == (short.code_sha256, short.cycles):
            return None
        new = Line(name, _commit(), short)
        self.lines.append(new)
        write_atomic(self.path, [msgspec.json.encode(line) + b"\n" for line in self.lines])
        if old is None:
            return None
        before, after = (Side(f"{name} at {line.commit}", line.profile) for line in (old, new))
        found = compare(before, after, 0.001)
        print_comparison(found, 3)
        return found


def _commit() -> str:
    """The commit that is checked out; "unknown" outside a checkout."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    return done.stdout.strip() or "unknown"
