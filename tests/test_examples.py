"""Every example runs as it stands, and is short enough to be read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
QUICK = "ahead_of_time"  # the others each import PyTorch anew, for parts that other tests run in this process
MARKED = [pytest.param(path, marks=[] if path.stem == QUICK else [pytest.mark.slow]) for path in EXAMPLES]


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 60


@pytest.mark.parametrize("path", MARKED, ids=lambda path: path.stem)
def test_example_runs(path: Path, tmp_path: Path) -> None:
    """From another folder and in another process, as a user would; each asserts what it claims."""
    done = subprocess.run(
        [sys.executable, path], cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout
