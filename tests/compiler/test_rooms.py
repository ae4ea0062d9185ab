"""Rooms: a reader who follows one compile goes from one to the next."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools.folder_returns import returns, steps

ROOT = Path(__file__).resolve().parents[2]
MOST = 15


def test_a_step_into_a_folder_that_was_left_is_a_return() -> None:
    """Breaks when the measure counts functions of one folder apart, or a folder that is entered for the first time."""
    files = ["graph/a.py", "graph/b.py", "passes/a.py", "graph/a.py", "passes/b.py", "tile/a.py"]
    path = steps([(file, f"f{number}") for number, file in enumerate(files)])
    assert path == [
        ("graph", ["f0", "f1"]),
        ("passes", ["f2"]),
        ("graph", ["f3"]),
        ("passes", ["f4"]),
        ("tile", ["f5"]),
    ]
    assert returns([folder for folder, _ in path]) == 2


@pytest.mark.slow
def test_a_compile_is_read_room_by_room() -> None:
    """Breaks when a function stands in another room than what it belongs to, and readers are sent back and forth.

    In a process of its own: what is cached after earlier compiles is not called again."""
    command = [sys.executable, "-m", "tools.folder_returns"]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    (found,) = (int(line.split()[2]) for line in lines if line.startswith("without vocabulary: "))
    assert found <= MOST
