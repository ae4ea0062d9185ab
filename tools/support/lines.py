"""Findings, a JSON line each: kept as they come, so that a run can be cut short and gone on with. A line of the same
key replaces an older one."""

import json
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def keep(row: Row, path: Path | None) -> Row:
    """Add a line."""
    if path:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    return row


def latest(path: Path | None, key: Callable[[Row], Hashable], rows: Sequence[Row] = ()) -> list[Row]:
    """The last line of each key, in the file; without one of `rows`."""
    lines = (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path and path.exists() else rows
    )
    return list({key(row): row for row in lines}.values())
