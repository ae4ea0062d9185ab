"""CONTRIBUTING's walks are patches, and run: each is applied to a copy of the repository, and its tests pass there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT

WALKS = sorted((ROOT / "docs" / "walks").glob("*.patch"))
QUICK = "verb"  # stays in the fast run


def head(patch: Path) -> dict[str, str]:
    """`goal: 5` and `run: tests …` from the lines before the first file."""
    return dict(re.findall(r"^(goal|run): (.*)$", patch.read_text().partition("diff --git")[0], re.MULTILINE))


def copy_to(folder: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)


@pytest.mark.wide
@pytest.mark.parametrize(
    "patch", [pytest.param(p, marks=[] if p.stem == QUICK else [pytest.mark.slow], id=p.stem) for p in WALKS]
)
def test_a_walk_leads_there(patch: Path, tmp_path: Path) -> None:
    """Breaks when the code has moved on and a walk does not apply, does not work, or takes more files than it
    should."""
    told, environment = head(patch), {**os.environ, "PYTHONPATH": str(tmp_path), "LLMCHIP_STRICT": "1"}
    assert patch.read_text().count("diff --git") <= int(told["goal"])
    copy_to(tmp_path)
    for command in (
        ["git", "apply", str(patch)],
        [sys.executable, "tools/write_docs.py"],
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not slow", *told["run"].split()],
    ):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"


def test_the_page_names_every_walk() -> None:
    """Breaks when a walk is added and CONTRIBUTING does not lead to it, or the other way round."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    assert {path.name for path in WALKS} == set(re.findall(r"docs/walks/([\w-]+\.patch)", page))
