"""The versions that are tested: one table, warnings outside it, and files that agree with it."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
from checkout import ROOT

from compiler.tested import TESTED, Range, untested

VERSIONS = [
    ("2.13.0+cpu", True),
    ("2.12.9", False),
    ("2.14.1", True),
    ("2.15.0", False),
    ("2.15.0rc1", False),
    ("3", False),
]


@pytest.mark.parametrize(("version", "inside"), VERSIONS)
def test_a_range_knows_its_versions(version: str, inside: bool) -> None:
    """Breaks when builds or candidates are compared as text, or the end of a range belongs to it."""
    assert Range("2.13", "2.15").holds(version) is inside


def test_what_is_installed_is_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when the suite runs on versions that the table does not name, or a newer one is not told."""
    assert untested() == []
    monkeypatch.setattr(metadata, "version", lambda name: "99.1")
    assert [sentence.split()[4].split(">")[0] for sentence in untested()] == list(TESTED)


def test_the_package_asks_for_the_lowest() -> None:
    """Breaks when pyproject.toml, the pinned versions and the table drift apart."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    pinned = (ROOT / "requirements/pinned.txt").read_text()
    for name, tested in TESTED.items():
        assert f"{name}>={tested.low}" in wanted
        [version] = re.findall(rf"^{name}==([\d.]+\d)", pinned, re.M)
        assert tested.holds(version)


def test_make_reads_the_table_without_pytorch() -> None:
    """Breaks when `make test-newest` cannot read the ranges before anything is installed."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", ROOT / "compiler/tested.py"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [f"{name}{tested}" for name, tested in TESTED.items()]
