"""The wheel as users get it: everything that the packages read, and the annotations."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from checkout import ROOT

pytest.importorskip("hatchling")
PACKAGES = ("llmchip", "compiler", "emulator", "isa", "lint", "runtime")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as pip builds it, and unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as file:
        file.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_every_package_says_that_it_is_typed(wheel: Path) -> None:
    """Breaks when type checkers do not see our annotations in what is installed."""
    assert [name for name in PACKAGES if not (wheel / name / "py.typed").is_file()] == []


def test_every_file_is_in_the_wheel(wheel: Path) -> None:
    """Breaks when a template, a grammar or a chip is left behind."""
    tracked = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [name for name in tracked.stdout.split() if not (wheel / name).is_file()] == []


def test_the_command_line_runs_from_it(wheel: Path) -> None:
    """Breaks when something of the checkout is needed."""
    environment = {**os.environ, "PYTHONPATH": str(wheel)}
    command = [sys.executable, "-m", "llmchip", "chips"]
    done = subprocess.run(command, cwd=wheel.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "edge" in done.stdout, done.stderr
