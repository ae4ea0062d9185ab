"""`llmcc lint` and `llmcc profile`, on files, assembly text and models."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
from checkout import ROOT
from cli_harness import call, spawn

from emulator.timing.waterfall import CAUSES

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


def test_profile_with_the_model_knows_its_limit(bert: Path, image: Path) -> None:
    """The model's own limit is lower than what the program's words need, and the timing is the same."""
    alone = call("profile", image, "--json").document
    known = call("profile", image, "--model", bert, "--json").document
    assert (known["cycles"], known["limit_source"]) == (alone["cycles"], "graph")
    assert known["nodes"] and [row["layer"] for row in known["nodes"]] == [row["layer"] for row in alone["nodes"]]
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


def test_page_and_assembly_lead_to_each_other(image: Path, tmp_path: Path) -> None:
    """Breaks when the page's rows do not lead to the assembly beside it, wherever both are."""
    (tmp_path / "a b").mkdir()
    page, code = tmp_path / "p.html", tmp_path / "a b" / "code#1.html"
    result = spawn("profile", image, "--html", page, "--disasm", code, "--json")
    assert (result.code, result.document["files"]) == (0, [str(page), str(code)])
    assert '"listing":"a%20b/code%231.html"' in page.read_text()
    assert "assembly" in code.read_text()
    alone = call("profile", image, "--disasm", code, "--json")
    assert (alone.code, alone.error["kind"]) == (2, "input") and "--html" in alone.error["what"]
    same = call("profile", image, "--disasm", code, "--html", code, "--json")
    assert (same.code, same.error["kind"]) == (2, "input")


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


def test_profile_of_a_layer_or_some_nodes(image: Path) -> None:
    """Breaks when a node of another layer is counted, the order is another, or a name that nothing has goes unnoticed."""
    nodes = call("profile", image, "--json").document["nodes"]
    mine = [row for row in nodes if row["layer"] == "model_encoder_layer_1"]
    found = call("profile", image, "--layer", 1, "--json").document
    assert found["nodes"] == mine and mine
    names = {row["name"] for row in mine}
    assert found["stalls"] and all(stall["before"]["node"] in names for stall in found["stalls"])
    cycles = sum(row["cycles"] for row in mine)
    text = call("profile", image, "--layer", 1, "--causes", "--top", 5).out
    assert text.startswith(f"{cycles:,} cycles of {found['cycles']:,}") and "fill and drain" in text
    some = call("profile", image, "--node", "softmax*", "--layer", "*_0", "--json").document["nodes"]
    assert [row["name"] for row in some] == ["softmax"]
    path = "model.encoder.layer.1.attention"  # a module, with all that is inside it
    inside = call("profile", image, "--layer", path, "--json").document["nodes"]
    assert inside == [row for row in nodes if f"{row['module']}.".startswith(f"{path}.")] and len(inside) < len(mine)
    result = call("profile", image, "--layer", 7, "--json")
    assert result.code == 2 and "model_encoder_layer_0" in result.error["hint"]


def test_tables_as_csv(image: Path, tmp_path: Path) -> None:
    """Breaks when a row or a figure is missing, the order is not the one that was asked for, or stdout has more."""
    rows = call("profile", image, "--json").document["nodes"]
    result = spawn("profile", image, "--csv", "-", "--sort", "dram")
    found = list(csv.DictReader(io.StringIO(result.out)))
    assert len(found) == len(rows)
    moved = [int(row["dram_bytes"]) for row in found]
    assert moved == sorted((row["dram_bytes"] for row in rows), reverse=True)
    for row in found:
        assert sum(int(row[name]) for name in CAUSES) == int(row["cycles"])
    path = tmp_path / "layers.csv"
    assert call("profile", image, "--table", "layers", "--csv", path, "--top", 0).out.endswith(f"wrote {path}\n")
    assert "model_encoder_layer_1" in path.read_text()
    assert call("profile", image, "--csv", "-", "--json").code == 2


def test_stalls_say_who_waited_for_what(image: Path) -> None:
    """Breaks when the longest idle time is not named, or its causes do not add up to it."""
    first = call("profile", image, "--json").document["stalls"][0]
    text = call("profile", image, "--stalls", 1).out
    row = next(line for line in text.splitlines() if f"at {first['from']:,} " in line)
    assert f"{first['before']['node']} {first['before']['word']}" in row and "waits for" in row
    assert f"at {first['from']:,} " not in call("profile", image, "--stalls", 0).out


GOLDEN = """\
3,282 cycles, 3.3 µs a launch, 304,692.3 launches/s on chip edge
limit 1,393 cycles (dram), of the program's own instructions (--model MODEL takes the model's): reached 0.424
47 instructions executed of 19, 2,097,152 MACs, 136.0 KiB of DRAM at 42.4 GB/s, 15.1 MACs per byte
busy: ldw 32.2%, lda 4.6%, sto 30.1%, mxu 15.6% (limit 512), vec 3.9% (limit 128), act 0.0% (limit 0), dram 42.5% (limit 1,393), macs 3.9%
waterfall         cycles   share
limit              1,393   42.4%  █████████████████
beyond the limit       1    0.0%
waits for dram       370   11.3%  █████
waits for mxu        256    7.8%  ███
waits for vec         32    1.0%
waits for act          0    0.0%
dependence            32    1.0%
dispatch               4    0.1%
fill and drain     1,194   36.4%  ███████████████
total              3,282  100.0%

node       cycles  share  dram works  fill and drain  for dram  for mxu  dependence  for vec  dispatch
gemm.s:50   1,450  44.2%                       1,194        256
gemm.s:52   1,196  36.4%         988                   208
gemm.s:49     416  12.7%         254                   162
(16 more)     220   6.7%

 stall  cycles  share  until          because
at 249     476  14.5%  gemm.s:49 ldw  fill and drain 286 (gemm.s:50 mm), waits for dram 126 (gemm.s:49 ldw), waits for mxu 64 (gemm.s:50 mm)
"""


def test_golden_text_of_a_small_program(tmp_path: Path) -> None:
    """Breaks when a figure, a name or a column changes; as a user runs it. Update GOLDEN when that is meant."""
    (tmp_path / "gemm.s").write_text(GEMM.read_text())
    result = spawn("profile", "gemm.s", "--top", 3, "--causes", "--table", "nodes", "--stalls", 1, cwd=tmp_path)
    assert result.code == 0, result.err
    lines = [re.sub(r" +", " ", line) for line in result.out.splitlines() if not re.search(r" mJ, |^energy: ", line)]
    assert lines == [re.sub(r" +", " ", line) for line in GOLDEN.splitlines()]
