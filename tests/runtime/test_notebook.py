"""What programs, profiles, comparisons and verifications show in Python and in notebooks."""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
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
from runtime.sweep.axes import axis
from runtime.sweep.figures import summed_up
from runtime.sweep.result import Sweep
from runtime.sweep.sweep import Row
from runtime.tables import html_table
from runtime.verify.steps import StepDifference, StepsVerification

DOCUMENTS = (  # whose `to_json` has a schema
    "profile", "verification", "steps-verification", "comparison", "sweep", "graph", "memory-map",
)  # fmt: skip
STEPS = StepsVerification((StepDifference("prefill", (0,), 0, 0, 0, 900), StepDifference("decode", (8,), 2, 1, 0, 90)))
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
def swept(report: llmchip.Profile) -> llmchip.Sweep:
    """Three points: figures of a real run, better ones, and a failure."""
    axes = (axis("sram.bytes", "1MiB,2MiB,4MiB"),)
    figures = summed_up(report)
    error = {"kind": "compile", "what": "<b>too small", "where": "k0", "hint": ""}
    outcomes = (figures, {**figures, "seconds": figures["seconds"] / 2}, {"error": error})
    rows = zip(axes[0].values, outcomes, strict=True)
    return Sweep(axes, tuple(Row("mlp", None, None, {"sram.bytes": value}, "c", found, 0.1) for value, found in rows))


@pytest.fixture(scope="module")
def shown(program: llmchip.Program, report: llmchip.Profile, swept: llmchip.Sweep) -> dict[str, Any]:
    """What a notebook shows, by the name of its schema."""
    return {
        "profile": report,
        "verification": program.verify(X),
        "steps-verification": STEPS,
        "comparison": llmchip.compare(report, program),
        "sweep": swept,
        "graph": program.graph(),
        "memory-map": program.memory_map(),
    }


@pytest.mark.parametrize("name", DOCUMENTS)
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
    broken = [{}] if isinstance(document, list) else {**document, next(iter(document)): []}
    assert list(validator.iter_errors(broken)), "the schema takes anything"


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
    assert set(shown["memory-map"].to_pandas()["memory"]) <= {"SRAM", "ACC", "DRAM"}
    sweep = shown["sweep"].to_pandas()
    assert list(sweep["sram.bytes"]) == ["1MiB", "2MiB", "4MiB"] and list(sweep["on_front"]) == [False, True, False]
    assert sweep.loc[0, "waterfall.compute"] == report.waterfall["compute"]
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
    assert all(isinstance(shown["sweep"].figure(name), graph_objects.Figure) for name in ("front", "sram.bytes"))
    for thing in (report, shown["comparison"], shown["sweep"]):
        with pytest.raises(InputError, match="no figure 'pie'"):
            thing.figure("pie")


def test_the_plots_of_a_sweep_have_its_points(swept: llmchip.Sweep) -> None:
    """Breaks when a point that failed is drawn, a good one is not, or the line leaves the front."""
    pytest.importorskip("plotly")
    line, points = swept.figure().data
    assert len(points.x) == 2 and set(points.marker.symbol) == {"diamond", "circle"}
    assert list(line.x) == [swept.rows[1].outcome["seconds"] * 1e3]
    points, least = swept.figure("sram.bytes").data
    assert list(points.x) == list(least.x) == ["1MiB", "2MiB"]


def test_a_sweep_shows_its_best_first_and_why_one_failed(swept: llmchip.Sweep) -> None:
    """Breaks when the front is not on top, or an error's text becomes markup of the notebook."""
    html = swept._repr_html_()
    assert html.index("2MiB") < html.index("1MiB") < html.index("4MiB")
    assert "&lt;b&gt;too small" in html and "<b>" not in html


def test_steps_are_true_only_where_all_bits_are_equal() -> None:
    """Breaks when `assert program.verify(ids)` passes for a step that differs, or its repr hides the step."""
    assert not STEPS and "differs in decode" in repr(STEPS) and list(STEPS.to_pandas()["logits"]) == [0, 2]
    assert StepsVerification(STEPS.steps[:1])


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


def test_assembly_text_is_loaded_like_an_image(tmp_path: Path) -> None:
    """Breaks when a kernel written by hand needs a step of its own before it can be run."""
    loaded = llmchip.load(ROOT / "examples" / "asm" / "softmax.s")
    y = loaded(x=np.ones((96, 200), np.float32))["y"]
    assert np.allclose(y, 1 / 200) and loaded.inputs[0].name == "x"
    (tmp_path / "bad.s").write_text("halp\n")
    with pytest.raises(llmchip.AssemblyError, match="did you mean 'halt'"):
        llmchip.load(tmp_path / "bad.s")


def test_a_profile_of_a_path_is_that_of_the_program(program: llmchip.Program, tmp_path: Path) -> None:
    write_image(program.image, tmp_path / "p.llmchip")
    assert llmchip.profile(tmp_path / "p.llmchip").cycles == llmchip.profile(program).cycles
    with pytest.raises(InputError, match="no program: int"):
        llmchip.profile(3)


def test_cells_are_text() -> None:
    """Breaks when a node's name becomes markup of the notebook."""
    assert "<b>" not in html_table(("<b>",), [("<b>",)], "<b>")


@pytest.mark.wide
def test_the_page_runs() -> None:
    """Breaks when docs/python.md shows what does not exist."""
    pytest.importorskip("pandas")
    pytest.importorskip("plotly")
    block = (ROOT / "docs" / "python.md").read_text().split("```")[1].removeprefix("python\n")
    exec(compile(block, "docs/python.md", "exec"), {})
