"""Every example runs as it stands, and is short enough to be read."""

import os
import subprocess
import sys
from pathlib import Path
from runpy import run_path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
QUICK = "ahead_of_time"  # runs here, where PyTorch is imported already; of the others, other tests run the parts


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 60


def test_an_example_runs_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """From another folder; it asserts what it claims."""
    monkeypatch.chdir(tmp_path)
    run_path(str(FOLDER / f"{QUICK}.py"), run_name="__main__")
    assert "bit-exact: True" in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path: Path, tmp_path: Path) -> None:
    """From another folder and in another process, as a user would; each asserts what it claims."""
    done = subprocess.run(
        [sys.executable, path], cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout
