"""The repository itself: imports point down, generated pages are current, what the texts name exists."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tools.raises import silent

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_imports_point_down() -> None:
    """Breaks when a package imports one above it, compiler and emulator meet, the chip side imports torch, or the
    translation check what it checks."""
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([tool, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "6 kept, 0 broken" in done.stdout


def test_package_list_is_what_is_there() -> None:
    """Breaks when a new top-level package is forgotten in the wheel."""
    listed = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    ignored = {"tests", "tools", "examples", "benchmarks", "docs", "fuzz"}
    assert set(listed) == {path.parent.name for path in ROOT.glob("*/__init__.py")} - ignored
    assert set(listed) == set(PROJECT["tool"]["importlinter"]["root_packages"])


def test_everything_is_typed() -> None:
    """Breaks when a top-level folder is forgotten by mypy, or mypy and pytest find the tests' helpers in other
    places."""
    typed = PROJECT["tool"]["mypy"]
    listed = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(typed["files"]) == {*listed, "fuzz", "tests", "tools", "benchmarks"}
    found_by_bare_name = {
        ".",
        "tests/support",
        "tests/oracles",
        "tests/emulator",
    }  # emulator: replay runs its tests again
    assert set(typed["mypy_path"].split(":")) == found_by_bare_name
    assert set(PROJECT["tool"]["pytest"]["ini_options"]["pythonpath"]) == found_by_bare_name


def test_tests_mirror_the_rooms() -> None:
    """Breaks when a folder of tests is no room of the product, or a helper lies in a room."""
    listed = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    files = [path.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("*.py")]
    rooms = {path.parent.relative_to(ROOT) for name in listed for path in (ROOT / name).rglob("*.py")}
    beside = {Path(), Path("oracles"), Path("support"), Path("e2e"), Path("walks")}
    assert {str(path.parent) for path in files} - {str(folder) for folder in rooms | beside} == set()
    helpers = [path for path in files if not path.name.startswith(("test_", "conftest."))]
    assert [path for path in helpers if path.parent not in (Path("oracles"), Path("support"))] == []


def test_folders_of_packages_are_packages() -> None:
    """Breaks when a subfolder with modules has no __init__.py: it would be missing from import checks."""
    listed = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    folders = {path.parent for name in listed for path in (ROOT / name).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_what_raises_says_so() -> None:
    """Breaks when a public function raises an exception that its docstring does not name."""
    assert [str(function) for function in silent()] == []


def test_entry_points_exist() -> None:
    from importlib import import_module

    for target in (
        *PROJECT["project"]["scripts"].values(),
        *PROJECT["project"]["entry-points"]["torch_dynamo_backends"].values(),
    ):
        module, _, name = target.partition(":")
        assert callable(getattr(import_module(module), name))


def test_isa_reference_is_current() -> None:
    from isa.doc.manual import document

    assert (ROOT / "docs" / "isa.md").read_text() == document(), "run: python -m isa.doc.manual"


def test_command_line_reference_is_current() -> None:
    from tools.write_cli_doc import document

    assert (ROOT / "docs" / "cli.md").read_text() == document(), "run: python tools/write_cli_doc.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", page.read_text())
    assert [t for t in targets if "://" not in t and not (page.parent / t).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page: Path) -> None:
    """`compiler/passes/quantize.py` in a text must be a file. Breaks when a file is renamed and the walks are not."""
    named = re.findall(
        r"`((?:compiler|isa|emulator|runtime|llmchip|tests|tools|examples|docs)/[\w/.-]*\.\w+)`", page.read_text()
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_verbs_exist(page: Path) -> None:
    from runtime.cli.main import VERBS

    verbs = re.findall(r"^\s*llmcc ([a-z]+)", page.read_text(), re.MULTILINE)
    assert set(verbs) <= set(VERBS)


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in phony[1].split():
        assert f"make {target}" in done.stdout


def test_named_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "tutorial.md"):
        for target in re.findall(r"(?<!:)make ([a-z-]+)(?=[ `\n]{1,2})", page.read_text()):
            if target not in ("a", "it", "sure"):
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), (page.name, target)
