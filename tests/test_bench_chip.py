"""The stored table of `make bench-chip`."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from checkout import ROOT

from benchmarks.history import History
from isa.chip import load_chip


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_chip", ROOT / "benchmarks" / "bench_chip.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_chip"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_page_is_made_of_the_figures(bench: ModuleType) -> None:
    """Breaks when chip.md is edited by hand, or the table changes and is not written again."""
    assert bench.table(bench.stored()) == (bench.RESULTS / "chip.md").read_text()


def test_figures_are_consistent(bench: ModuleType) -> None:
    """Breaks when a program beats its limit or its chip's memory, or a cycle has no cause."""
    rows = json.loads((bench.RESULTS / "chip.json").read_text())
    assert set(rows) <= {case.name for case in bench.CASES}
    for name, full in rows.items():
        for row in (full, *full["without"].values()):
            if "failed" not in row:
                assert (
                    row["limit_cycles"]
                    == max(row["limits"].values())
                    <= row["cycles"]
                    == sum(row["waterfall"].values())
                )
                assert row["sram_lower_bound"] <= row["sram_bytes"] <= load_chip(name.split()[-1]).sram.bytes


def test_small_case_is_measured(bench: ModuleType) -> None:
    """A GEMM of 256³ in place of 4096³: breaks when a step of the benchmark does."""
    case = bench.Case("gemm", 256, 1, "edge", 0.0)
    row = bench.measure(bench.lowered(case), case, ())
    assert row["limits"]["mxu"] == 2 * 2 * 256
    assert row["cycles"] >= row["limit_cycles"]
    assert bench.measure(bench.lowered(case), case, ("schedule",))["limits"] == row["limits"]


def test_history_keeps_and_compares_what_has_changed(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks when the same program gets a second line, or one that has changed is not compared with its last line."""
    case = bench.Case("gemm", 256, 1, "edge", 0.0)
    graph, path = bench.lowered(case), tmp_path / "history.jsonl"
    for without in ((), (), ("schedule",)):
        bench.measure(graph, case, without, History(path))
    lines = History(path).lines
    assert [line.name for line in lines] == [case.name, case.name]
    assert lines[0].profile.code_sha256 != lines[1].profile.code_sha256 and not lines[0].profile.nodes
    assert f"A {case.name} at " in capsys.readouterr().out
