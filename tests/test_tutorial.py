"""The tutorial's tasks, typed as they stand in docs/tutorial.md: in a shell, each command in a process of its own, in a
folder with the files that a reader is told to save. What must come of a command is said behind it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT
from tutorial import FILES, task

TASKS = ("A model of your own", "A chip of your own", "Why is it slow?", "What has changed?", "Mend a kernel")
MOST = 5  # commands of a task


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader stands: the files of the tutorial appear beside the examples."""
    path = tmp_path_factory.mktemp("tutorial")
    (path / "examples").symlink_to(ROOT / "examples")
    for name, text in FILES.items():
        (path / name).write_text(text)
    return path


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """In a shell whose `llmcc` and `python` are those of this checkout."""
    tools = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
        "LLMCHIP_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    shell = ["bash", "-c", "-o", "pipefail", command]
    return subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_the_tasks_are_short_and_say_what_comes_of_them() -> None:
    """Breaks when a task takes more commands than anybody types, or promises nothing that can be tested."""
    for title in TASKS:
        found = task(title)
        assert 1 <= len(found) <= MOST, title
        assert any(one.said for one in found), title
        assert any(one.text.startswith("llmcc") for one in found), title


@pytest.mark.wide
@pytest.mark.parametrize(
    "title",
    [pytest.param(title, marks=pytest.mark.slow) if title == "A chip of your own" else title for title in TASKS],
)
def test_a_task_works_as_it_is_typed(title: str, folder: Path) -> None:
    """Breaks when a command of the tutorial fails, or does not say what the text says it does. Tasks follow each other: later
    ones use the files of the first."""
    if title != TASKS[0] and not (folder / "mine.llmchip").exists():
        for one in task(TASKS[0]):
            assert run(one.text, folder).returncode == one.code
    for one in task(title):
        done = run(one.text, folder)
        assert done.returncode == one.code, f"{one.text}\n{done.stdout}{done.stderr}"
        assert [said for said in one.said if said not in done.stdout + done.stderr] == [], f"{one.text}\n{done.stdout}"
