"""The documentation as a site: every page has its place, every public name its reference."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT

import llmchip

REFERENCE = sorted((ROOT / "docs" / "reference").glob("*.md"))
DIRECTIVE = re.compile(r"^::: llmchip\.(\w+)(?:\n    options: \{members: \[(.*?)\]\})?$", re.MULTILINE)


def described() -> dict[str, list[str]]:
    """The names of the reference, and the members that each is told to show."""
    found = [match for page in REFERENCE for match in DIRECTIVE.findall(page.read_text())]
    assert len(found) == len(dict(found)), "a name is there twice"
    return {name: [member for member in members.split(", ") if member] for name, members in found}


def test_every_public_name_is_in_the_reference() -> None:
    """Breaks when a name is added to `llmchip` and nobody finds it."""
    assert set(described()) == set(llmchip.__all__) - {"__version__"}


def test_what_the_reference_shows_has_a_docstring() -> None:
    """Breaks when a page of the reference has a heading with nothing below it, or names what is not there."""
    silent = []
    for name, members in described().items():
        thing = getattr(llmchip, name)
        assert inspect.getdoc(thing), name
        for member in members or (vars(thing) if inspect.isclass(thing) else ()):
            value = inspect.getattr_static(thing, member)
            if member in members or (not member.startswith("_") and inspect.isfunction(value)):
                kept = getattr(value, "fget", None) or getattr(value, "func", None) or value
                silent += [] if getattr(kept, "__doc__", None) else [f"{name}.{member}"]
    assert silent == []


def test_the_page_of_records_is_current() -> None:
    """Breaks when a field is added, renamed or has another type, and the page still has the old one."""
    from tools.write_records import document

    assert (ROOT / "docs" / "reference" / "records.md").read_text() == document(), "run: python tools/write_docs.py"


def test_every_page_is_in_the_navigation() -> None:
    """Breaks when a page is added that the site's menu does not have."""
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]))
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert pages == {name for name in listed if not name.startswith("repository/")}


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Breaks when a link, an anchor or a name leads nowhere. CI builds the site by `make docs`."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    programs = (tmp_path / "reference" / "programs.html").read_text()
    assert "Compile a module for these example inputs" in programs and 'id="llmchip.Program.disassemble"' in programs
    example = (tmp_path / "repository" / "examples" / "ahead_of_time.py.html").read_text()
    assert "subprocess" in example
    loaded = re.findall(r"""(?:src|href)="(https?:[^"]*)""", re.sub(r"<a .*?>", "", programs))
    assert loaded == [], "the page loads something from elsewhere"
