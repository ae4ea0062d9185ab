"""`llmcc lint` and `llmcc profile`, on files, assembly text and models."""

import json
import re
from pathlib import Path

import pytest
from checkout import ROOT
from cli_harness import call

GEMM = ROOT / "examples" / "asm" / "gemm.s"
KEYS = "cycles seconds limit_cycles limits utilisation waterfall energy_joules instructions macs dram_bytes"


@pytest.fixture
def racy(tmp_path: Path) -> Path:
    """The worked example with every dependence count removed."""
    path = tmp_path / "racy.s"
    path.write_text(re.sub(r" @ [^;\n]*", " ", GEMM.read_text()))
    return path


def test_lint_accepts_what_the_compiler_emits(image: Path) -> None:
    """Breaks when the compiler emits a race, or lint reports one that is not there."""
    result = call("lint", image, "--json")
    document = result.document
    assert (result.code, document["errors"], document["complete"]) == (0, 0, True)
    assert [finding for finding in document["findings"] if finding["severity"] == "error"] == []


def test_lint_of_a_model_compiles_it(bert: Path) -> None:
    document = call("lint", bert, "--seq", 8, "--chip", "server", "--json").document
    assert (document["errors"], document["chip"]) == (0, "server")


def test_lint_names_both_instructions_of_a_race(racy: Path) -> None:
    """Breaks when a finding does not say who conflicts with whom."""
    result = call("lint", racy, "--json")
    races = [finding for finding in result.document["findings"] if finding["kind"] == "race"]
    assert result.code == 1
    assert result.document["errors"] >= len(races) > 0
    assert all(race["instruction"] and race["other_instruction"] and race["message"] for race in races)
    assert all(race["other"] != race["pc"] or race["other_instruction"] == race["instruction"] for race in races)
    text = call("lint", racy)
    assert text.code == 1
    assert races[0]["other_instruction"] in text.out
    assert f"at {races[0]['pc']:#06x}" in text.out


def test_warnings_alone_are_no_failure(tmp_path: Path) -> None:
    path = tmp_path / "unreachable.s"
    path.write_text("halt\nnop\n")
    result = call("lint", path, "--json")
    assert (result.code, result.document["errors"], result.document["warnings"]) == (0, 0, 1)
    assert result.document["findings"][0]["kind"] == "unreachable"


def test_lint_refuses_what_does_not_go_with_a_file(image: Path) -> None:
    result = call("lint", image, "--seq", 4, "--json")
    assert (result.code, result.error["kind"]) == (2, "input")


def test_profile_of_a_file_adds_up(image: Path) -> None:
    """Breaks when a cycle is lost on the way to the document, or a promised key is."""
    result = call("profile", image, "--json")
    document = result.document
    assert result.code == 0
    assert set(KEYS.split()) <= set(document)
    assert (
        sum(document["waterfall"].values())
        == document["cycles"]
        >= document["limit_cycles"]
        == max(document["limits"].values())
    )
    for name in ("nodes", "lines", "layers"):
        assert sum(row["cycles"] for row in document[name]) == document["cycles"]
    assert document["limit_source"] == "program"


def test_profile_with_the_model_knows_limit_and_layers(bert: Path, image: Path) -> None:
    """The model's own limit is lower than what the program's words need, and the timing is the same."""
    alone = call("profile", image, "--json").document
    known = call("profile", image, "--model", bert, "--json").document
    assert (known["cycles"], known["limit_source"]) == (alone["cycles"], "graph")
    assert known["limit_cycles"] <= alone["limit_cycles"]
    assert len(known["layers"]) > 2
    compiled = call("profile", bert, "--seq", 8, "--batch", 2, "--task", "embed", "--json").document
    assert {**compiled, "program": 0, "seconds_spent": 0} == {**known, "program": 0, "seconds_spent": 0}


def test_profile_as_text(image: Path) -> None:
    result = call("profile", image, "--top", 3)
    assert result.code == 0
    cycles = call("profile", image, "--json").document["cycles"]
    assert f"{cycles:,} cycles" in result.out
    assert "modeling_bert.py" in result.out and " more)" in result.out
    assert "modeling_bert.py" not in call("profile", image, "--top", 0).out


def test_profile_writes_trace_and_page(tmp_path: Path) -> None:
    """Breaks when assembly text, which has no nodes and no lines, cannot be shown."""
    trace, page = tmp_path / "t.json", tmp_path / "p.html"
    result = call("profile", GEMM, "--trace", trace, "--html", page, "--json")
    assert (result.code, result.document["files"]) == (0, [str(trace), str(page)])
    assert json.loads(trace.read_text())["traceEvents"]
    assert f"{result.document['cycles']:,}" in page.read_text()


@pytest.mark.parametrize("flag", ["--trace", "--html"])
def test_missing_folder_is_named_before_any_work(flag: str, tmp_path: Path) -> None:
    result = call("profile", "minilm", flag, tmp_path / "no" / "x", "--json")
    assert (result.code, result.error["kind"]) == (2, "input")
    assert "folder" in result.error["what"]


def test_program_that_cannot_be_timed(tmp_path: Path) -> None:
    """Breaks when a faulty program ends in an internal error, or in a figure."""
    path = tmp_path / "bad.s"
    path.write_text(".word 0xffffffffffffffffffffffffffffffff\nhalt\n")
    result = call("profile", path, "--json")
    assert result.code in (1, 2)
    assert result.error["kind"] != "internal", result.error


def test_model_option_needs_a_file(bert: Path) -> None:
    result = call("profile", bert, "--model", "minilm", "--json")
    assert (result.code, result.error["kind"]) == (2, "input")
