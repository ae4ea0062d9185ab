"""The notebooks run as they stand, in a kernel, as Jupyter would run them.

They are stored without outputs: figures of plotly are megabytes, differ in every run, and hide what a change has
changed; README.md has the pictures. What a cell claims it asserts."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} == {"first_steps", "choosing_a_chip", "kernel_by_hand"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path: Path) -> None:
    """Breaks when somebody's run is committed, or the cells are too long to be read."""
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"]] == []
    assert max(len("".join(cell["source"]).splitlines()) for cell in cells) <= 30


LONG = {"choosing_a_chip"}  # sweeps


@pytest.mark.wide
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in LONG else []) for path in NOTEBOOKS],
)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a cell raises, prints a warning, or shows no table or plot where it should."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("pandas")
    pytest.importorskip("plotly")
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("LLMCHIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert {"text/html", "application/vnd.plotly.v1+json"} <= kinds
    assert _longest(outputs) < 40_000, "a cell shows raw fields"


def _longest(outputs: list[Any]) -> int:
    """Characters of the longest text or table; plots have a script of their own."""
    shown = [output.get("data", {}) for output in outputs]
    return max(
        len(data.get("text/html", data.get("text/plain", "")))
        for data in shown
        if "application/vnd.plotly.v1+json" not in data
    )
