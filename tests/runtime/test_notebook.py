"""What programs, profiles, comparisons and verifications show in Python and in notebooks."""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from checkout import ROOT
from runtime_models import python
from torch import nn

import llmchip
from isa.errors import InputError
from isa.image.image import write_image
from runtime import schemas
from runtime.profile.document import ProfileDocument
from runtime.profile.figures import PLOTS
from runtime.tables import html_table

DOCUMENTS = ("profile", "verification", "comparison")  # whose `to_json` has a schema
X = torch.linspace(-1, 1, 72).reshape(3, 24)


@pytest.fixture(scope="module")
def program() -> llmchip.Program:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.Linear(40, 8)).eval()
    return llmchip.compile(model, (X,))


@pytest.fixture(scope="module")
def report(program: llmchip.Program) -> llmchip.Profile:
    return program.profile()


@pytest.fixture(scope="module")
def shown(program: llmchip.Program, report: llmchip.Profile) -> dict[str, Any]:
    """What a notebook shows, by the name of its schema where it has one."""
    return {
        "profile": report,
        "verification": program.verify(X),
        "comparison": llmchip.compare(report, program),
        "graph": program.graph(),
        "memory map": program.memory_map(),
    }


@pytest.mark.parametrize("name", [*DOCUMENTS, "graph", "memory map"])
def test_a_cell_is_short(shown: dict[str, Any], name: str) -> None:
    """Breaks when a notebook's cell gets the raw fields of a profile (1.2 MB), or no table."""
    assert len(repr(shown[name])) < 160 and "\n" not in repr(shown[name])
    html = shown[name]._repr_html_()
    assert len(html) < 20_000 and "<table>" in html


@pytest.mark.parametrize("name", DOCUMENTS)
def test_json_is_what_the_published_schema_says(shown: dict[str, Any], name: str) -> None:
    """Breaks when a field is renamed and the schema is not written again, or a value is of another type."""
    jsonschema = pytest.importorskip("jsonschema")
    path = ROOT / "docs" / "schemas" / f"{name}.json"
    assert path.read_text() == schemas.text(name), "run: python tools/write_docs.py"
    validator = jsonschema.Draft202012Validator(json.loads(path.read_text()))
    document = json.loads(shown[name].to_json())
    assert [error.message for error in validator.iter_errors(document)] == []
    assert list(validator.iter_errors({**document, next(iter(document)): []}))  # and it does notice


def test_a_profile_survives_its_json(report: llmchip.Profile) -> None:
    assert msgspec.json.decode(report.to_json(), type=ProfileDocument) == report.document()


def test_frames_have_the_figures(shown: dict[str, Any], report: llmchip.Profile) -> None:
    """Breaks when a row is lost on the way to pandas, or a nested figure has no column."""
    pytest.importorskip("pandas")
    nodes = report.to_pandas()
    assert nodes["cycles"].sum() == report.cycles and nodes["waterfall_compute"].sum() == report.waterfall["compute"]
    assert len(report.to_pandas("stalls")) == len(report.stalls())
    figures = shown["comparison"].to_pandas("figures").set_index("name")
    assert figures.loc["cycles", "total_a"] == figures.loc["cycles", "total_b"] == report.cycles
    assert bool(shown["verification"].to_pandas().loc[0, "bit_exact"])
    assert "activation" in " ".join(shown["graph"].to_pandas()["name"])
    assert set(shown["memory map"].to_pandas()["memory"]) <= {"SRAM", "ACC", "DRAM"}
    with pytest.raises(InputError, match="no table 'layer'"):
        report.to_pandas("layer")


def test_without_pandas_one_line_says_so(report: llmchip.Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="needs the library pandas"):
        report.to_pandas()


def test_figures_are_plotlys(shown: dict[str, Any], report: llmchip.Profile) -> None:
    """Breaks when a plot of the page cannot be had in a notebook."""
    graph_objects = pytest.importorskip("plotly.graph_objects")
    assert all(isinstance(report.figure(name), graph_objects.Figure) for name in PLOTS)
    assert isinstance(shown["comparison"].figure(), graph_objects.Figure)
    for thing in (report, shown["comparison"]):
        with pytest.raises(InputError, match="no figure 'pie'"):
            thing.figure("pie")


def test_a_saved_program_shows_itself_without_torch(program: llmchip.Program, tmp_path: Path) -> None:
    """Breaks when looking at an image loads PyTorch."""
    write_image(program.image, tmp_path / "p.llmchip")
    code = (
        "import sys, llmchip; p = llmchip.load('p.llmchip'); assert 'halt' in p.disassemble(); assert len(p.graph()) > 3; "
        "assert p.memory_map()[0].bytes; p.graph()._repr_html_(); r = llmchip.profile('p.llmchip'); r._repr_html_(); "
        "assert llmchip.compare(r, p).same; assert 'torch' not in sys.modules"
    )
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_profile_of_a_path_is_that_of_the_program(program: llmchip.Program, tmp_path: Path) -> None:
    write_image(program.image, tmp_path / "p.llmchip")
    assert llmchip.profile(tmp_path / "p.llmchip").cycles == llmchip.profile(program).cycles
    with pytest.raises(InputError, match="no program: int"):
        llmchip.profile(3)


def test_cells_are_text() -> None:
    """Breaks when a node's name becomes markup of the notebook."""
    assert "<b>" not in html_table(("<b>",), [("<b>",)], "<b>")


def test_the_page_runs() -> None:
    """Breaks when docs/python.md shows what does not exist."""
    pytest.importorskip("pandas")
    pytest.importorskip("plotly")
    block = (ROOT / "docs" / "python.md").read_text().split("```")[1].removeprefix("python\n")
    exec(compile(block, "docs/python.md", "exec"), {})


def test_types_are_published() -> None:
    """Breaks when a type checker does not see our annotations."""
    assert all((ROOT / name / "py.typed").is_file() for name in ("llmchip", "runtime", "compiler", "isa"))
