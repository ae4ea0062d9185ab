"""Results in an SQLite file: every point that was ever measured, by what decides its figures.

A row is there as soon as its point is done, or not at all. So a sweep that is interrupted or killed goes on where it
was, and one that shares points with another finds them.
"""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from isa.chip import Chip
from isa.errors import InputError
from runtime.pytorch import cache as images
from runtime.sweep.frozen import FrozenModel
from runtime.sweep.measures import OBJECTIVES

_TABLE = "CREATE TABLE IF NOT EXISTS points (key TEXT PRIMARY KEY, outcome TEXT NOT NULL, seconds REAL NOT NULL)"
_ROOT = Path(__file__).parents[2]
_SOURCES = ("compiler", "isa", "emulator/timing", "runtime/profile", "runtime/sweep")


class Store:
    """One SQLite file, or one in memory. Threads may share it, processes may share the file."""

    def __init__(self, path: Path | None) -> None:
        self.path, self._lock = path, threading.Lock()
        try:
            self._db = sqlite3.connect(path or ":memory:", timeout=60, check_same_thread=False, isolation_level=None)
            self._db.execute(_TABLE)
        except sqlite3.Error as error:
            raise _unusable(error, path) from error

    def get(self, key: str) -> tuple[dict[str, Any], float] | None:
        """What is known of a point, and the seconds that it took. Raises InputError for a file that cannot be read."""
        try:
            with self._lock:
                found = self._db.execute("SELECT outcome, seconds FROM points WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise _unusable(error, self.path) from error
        return None if found is None else _known(*found)

    def put(self, key: str, outcome: Mapping[str, Any], seconds: float) -> None:
        """Keep an outcome, at once and for good. Raises InputError for a file that cannot be written."""
        try:
            with self._lock:
                self._db.execute("INSERT OR REPLACE INTO points VALUES (?, ?, ?)", (key, json.dumps(outcome), seconds))
        except sqlite3.Error as error:
            raise _unusable(error, self.path) from error

    def close(self) -> None:
        self._db.close()


def _known(text: str, seconds: float) -> tuple[dict[str, Any], float] | None:
    """An outcome as it was kept; None for what is none, and is then measured again."""
    try:
        outcome = json.loads(text)
        whole = "error" in outcome or outcome.keys() >= set(OBJECTIVES.values())
        return (outcome, float(seconds)) if whole else None
    except (ValueError, TypeError, AttributeError):
        return None


def _unusable(error: sqlite3.Error, path: Path | None) -> InputError:
    where = "" if path is None else str(path)
    if path is not None and not path.absolute().parent.is_dir():
        return InputError("the results cannot be kept: the folder does not exist", where, "make it first")
    return InputError(f"the results cannot be kept: {error}", where, "--store FILE names another file")


def default_path() -> Path | None:
    """Beside the image cache, whose folder is made; None if that is off. Raises InputError where it cannot be."""
    folder = images.folder()
    if folder is None:
        return None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the folder of the cache cannot be made: {error.strerror or error}", str(folder.parent)
        ) from error
    return folder.parent / "sweeps.sqlite"


def key_of(model: FrozenModel, chip: Chip) -> str:
    """Equal for points with equal figures: model, options, the chip's numbers (not what it is called), and our
    sources."""
    numbers = {key: value for key, value in msgspec.to_builtins(chip).items() if key not in ("name", "description")}
    text = json.dumps([model.program, numbers, sources()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def sources() -> str:
    """Of everything that decides a figure."""
    digest = hashlib.sha256()
    for folder in _SOURCES:
        for path in sorted((_ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
