"""The tutorial's commands, typed as they stand in docs/tutorial.md, in a shell, each in a process of its own.

A comment behind a command says what must come of it: `exits with 1`, and `says "…"` for a piece of its output. Files
that a reader is told to save are saved.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from checkout import ROOT

TEXT = (ROOT / "docs" / "tutorial.md").read_text()
TASKS = ("A model of your own", "A chip of your own", "Why is it slow?", "What has changed?", "Mend a kernel")
MOST = 5  # commands of a task
FILE = re.compile(r"Save this as\s`([\w.]+)`.*?```python\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Command:
    text: str
    code: int
    said: tuple[str, ...]


def commands(block: str) -> list[Command]:
    """Of a fence: a command for each line, and what its comment says of it."""
    found = []
    for line in filter(None, block.splitlines()):
        text, _, comment = line.partition(" # ")
        code = re.search(r"exits with (\d+)", comment)
        found.append(Command(text.strip(), int(code[1]) if code else 0, tuple(re.findall(r'says "([^"]*)"', comment))))
    return found


def section(title: str) -> str:
    return re.split(r"\n##+ ", TEXT.partition(f"\n### {title}\n")[2])[0]


def typed(title: str) -> list[Command]:
    return [one for block in re.findall(r"```sh\n(.*?)```", section(title), re.DOTALL) for one in commands(block)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader stands: the files of the tutorial appear beside the examples."""
    path = tmp_path_factory.mktemp("tutorial")
    (path / "examples").symlink_to(ROOT / "examples")
    for name, text in FILE.findall(TEXT):
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
        found = typed(title)
        assert 1 <= len(found) <= MOST, title
        assert any(one.said for one in found), title
        assert any(one.text.startswith("llmcc") for one in found), title


@pytest.mark.parametrize("title", TASKS)
def test_a_task_works_as_it_is_typed(title: str, folder: Path) -> None:
    """Breaks when a command of the tutorial fails, or does not say what the text says. Tasks follow each other: later
    ones use the files of the first."""
    if title != TASKS[0] and not (folder / "mine.llmchip").exists():
        for one in typed(TASKS[0]):
            assert run(one.text, folder).returncode == one.code
    for one in typed(title):
        done = run(one.text, folder)
        assert done.returncode == one.code, f"{one.text}\n{done.stdout}{done.stderr}"
        assert [said for said in one.said if said not in done.stdout + done.stderr] == [], f"{one.text}\n{done.stdout}"
