"""From model to image and back, by command line only."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkout import ROOT
from cli_harness import call, make_bert, spawn


@pytest.mark.wide
def test_compile_writes_the_same_bytes_again(bert: Path, image: Path, tmp_path: Path) -> None:
    """In another process: breaks when anything in an image depends on time, hash seeds or addresses, or progress is
    shown without a terminal."""
    again = tmp_path / "again.llmchip"
    result = spawn("compile", bert, "--seq", 8, "--batch", 2, "--task", "embed", "-o", again, "--json", patience=0.0)
    assert result.code == 0, result.err
    assert result.err == ""
    assert result.document["inputs"]["input_ids"] == [2, 8]
    assert again.read_bytes() == image.read_bytes()


def test_info_says_where_the_image_comes_from(image: Path, bert: Path) -> None:
    document = call("info", image, "--json").document
    assert (document["model"], document["chip"], document["recipe"]["task"]) == (str(bert), "edge", "embed")
    assert [spec["name"] for spec in document["entries"][0]["inputs"]] == [
        "input_ids",
        "attention_mask",
        "token_type_ids",
    ]
    assert document["sections"]["code"] == 16 * document["words"]
    assert all(len(value) == 64 for value in document["hashes"].values())
    assert call("info", image).code == 0


def test_a_moved_image_needs_neither_torch_nor_its_model(tmp_path: Path) -> None:
    """Breaks when running or reading an image imports torch or transformers, even where it could do without, or reads
    anything but the file itself."""
    model, there = make_bert(tmp_path / "model"), tmp_path / "elsewhere"
    there.mkdir()
    assert call("compile", model, "--seq", 8, "--task", "embed", "-o", tmp_path / "bert.llmchip").code == 0
    texts = ["--text", "a cat sits", "--text", "good film"]
    wanted = call("run", tmp_path / "bert.llmchip", *texts, "--json").document
    (tmp_path / "bert.llmchip").rename(there / "moved.llmchip")
    shutil.rmtree(model)
    script = f"""
import json, sys
asked = []
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "compiler"):
            asked.append(name)
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
from runtime.cli.main import main
codes = [main(args) for args in (
    ["run", "moved.llmchip", *{texts!r}, "--json"], ["disasm", "moved.llmchip", "-o", "p.s"], ["asm", "p.s", "-o", "q.llmchip"],
    ["disasm", "moved.llmchip"], ["info", "moved.llmchip"],
)]
assert codes == [0] * 5, codes
assert not asked, asked
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=there, env=environment)
    assert done.returncode == 0, done.stderr
    found, _ = json.JSONDecoder().raw_decode(done.stdout)
    assert found["embeddings"] == wanted["embeddings"] and found["similarity"] == wanted["similarity"]
    assert (there / "q.llmchip").read_bytes() == (there / "moved.llmchip").read_bytes()


def test_run_of_an_image_equals_run_of_its_model(image: Path, bert: Path) -> None:
    """Three texts in batches of two. Breaks when the last batch is padded wrongly, or padding changes a bit."""
    texts = [argument for text in ("a cat sits", "a dog runs a film", "good") for argument in ("--text", text)]
    of_image, of_model = call("run", image, *texts, "--json"), call("run", bert, *texts, "--json")
    assert (of_image.code, of_model.code) == (0, 0), of_image.err + of_model.err
    assert of_image.document["embeddings"] == of_model.document["embeddings"]
    table = np.array(of_image.document["similarity"])
    assert table.shape == (3, 3)
    assert np.allclose(np.diag(table), 1.0)  # of a vector with itself, for reading


def test_tensors_go_in_and_out_as_files(image: Path, tmp_path: Path) -> None:
    ids = np.array([[2, 4, 5, 3, 0, 0, 0, 0]] * 2)
    for name, array in {"ids": ids, "mask": (ids != 0).astype(np.int64), "types": np.zeros_like(ids)}.items():
        np.save(tmp_path / f"{name}.npy", array)
    inputs = [
        f"input_ids={tmp_path}/ids.npy",
        f"attention_mask={tmp_path}/mask.npy",
        f"token_type_ids={tmp_path}/types.npy",
    ]
    arguments = [part for given in inputs for part in ("--input", given)]
    result = call("run", image, *arguments, "--output", f"sentence_embedding={tmp_path}/out.npy")
    assert result.code == 0, result.err
    embedding = np.load(tmp_path / "out.npy")
    assert embedding.dtype == np.float32
    assert np.array_equal(embedding[0], embedding[1])
    assert abs(float(np.linalg.norm(embedding[0])) - 1) < 1e-5  # normalised on the chip


def test_verify_lowers_the_recorded_model_again(image: Path) -> None:
    result = call("verify", image, "--json")
    assert result.code == 0, result.out
    document = result.document
    keys = {
        "bit_exact",
        "outputs",
        "graph_nodes",
        "nodes",
        "skipped",
        "mismatched_nodes",
        "mismatched_elements",
        "first_divergence",
        "float",
    }
    assert keys <= set(document)
    assert document["bit_exact"] is True
    assert document["nodes"] + len(document["skipped"]) == document["graph_nodes"]
    assert set(document["float"]) >= {"cosine", "max_abs"}


def test_verify_prints_the_verdict(image: Path) -> None:
    result = call("verify", image, "--text", "a cat sits")
    assert result.code == 0, result.err
    assert "bit-exact" in result.out
    assert "0 differing bits" in result.out
    assert "distance to the float model" in result.out


def test_text_gives_back_the_very_bytes(image: Path, tmp_path: Path) -> None:
    listing = tmp_path / "program.s"
    assert call("disasm", image, "-o", listing).code == 0
    beside = call("disasm", image, "-o", "/dev/null")  # a device has no folder of its own for the data
    assert beside.code == 2 and "data files go beside the text" in beside.err
    assert call("asm", listing, "-o", tmp_path / "again.llmchip").code == 0
    assert (tmp_path / "again.llmchip").read_bytes() == image.read_bytes()


def test_disasm_on_stdout_is_code_only(image: Path) -> None:
    text = call("disasm", image).out
    assert "modeling_bert.py" in text
    assert ".region" not in text


def test_verify_finds_a_mutated_instruction(image: Path, tmp_path: Path) -> None:
    """GELU replaced by tanh in the binary: exit 1, and the first difference names the activation and its source
    line."""
    listing = tmp_path / "program.s"
    call("disasm", image, "-o", listing)
    text = listing.read_text()
    assert "f=gelu_erf" in text
    listing.write_text(text.replace("f=gelu_erf", "f=tanh", 1))
    mutant = tmp_path / "mutant.llmchip"
    assert call("asm", listing, "-o", mutant).code == 0
    result = call("verify", mutant, "--json")
    assert (result.code, result.document["bit_exact"]) == (1, False)
    assert result.document["first_divergence"]["node"].startswith("activation")
    assert "activations.py" in str(result.document["first_divergence"]["source"])
    assert result.document["mismatched_elements"] > 0
    assert "not bit-exact" in call("verify", mutant).out


def test_classifier_prints_labels(classifier: Path, tmp_path: Path) -> None:
    """The probabilities must be those of the chip's own logits."""
    image = tmp_path / "classifier.llmchip"
    assert call("compile", classifier, "--seq", 8, "--batch", 2, "-o", image).code == 0
    result = call(
        "run", image, "--text", "good film", "--text", "bad", "--output", f"logits={tmp_path}/logits.npy", "--json"
    )
    assert result.code == 0, result.err
    logits = np.load(tmp_path / "logits.npy").astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for row, answer in zip(expected, result.document["classification"], strict=True):
        assert answer["label"] == ("bad", "good", "dull")[int(row.argmax())]
        assert np.allclose(list(answer["probabilities"].values()), row)  # computed on the host, for reading
    assert "label" in call("run", image, "--text", "good film").out


def test_compile_prints_and_dumps_passes(bert: Path, tmp_path: Path) -> None:
    result = call(
        "compile",
        bert,
        "--seq",
        4,
        "--print-after",
        "quantize",
        "--stop-after",
        "quantize",
        "--dump-dir",
        tmp_path / "dump",
    )
    assert result.code == 0, result.err
    assert "after 04 quantize" in result.err.replace("after 4 ", "after 04 ") or "quantize" in result.err
    assert any("quantize" in path.name for path in (tmp_path / "dump").iterdir())
    passes = call("compile", "--list-passes", "--json").document
    assert "quantize" in [step["pass"] for step in passes]


def test_compile_prints_and_stops_at_tile_passes(bert: Path, tmp_path: Path) -> None:
    """Breaks if the switches know the passes on the graph alone, or a choice that leaves nothing behind is taken for a
    pass."""
    result = call(
        "compile",
        bert,
        "--seq",
        4,
        "--print-after",
        "fuse",
        "--stop-after",
        "schedule",
        "--dump-dir",
        tmp_path / "dump",
        "--json",
    )
    assert result.code == 0, result.err
    assert re.search(r"# after \d+ fuse\nk0 \[", result.err)
    assert sorted(path.name for path in (tmp_path / "dump").iterdir())[-1].endswith("-schedule.txt")
    assert {"fuse", "schedule"} <= result.document["seconds"].keys()
    passes = call("compile", "--list-passes", "--json").document
    assert [step["pass"] for step in passes if step["level"] == "tile"][-2:] == ["schedule", "place"]
    assert all(step["does"] for step in passes)
    refused = call("compile", bert, "--print-after", "search", "--dry-run")
    assert refused.code == 2 and "there is no pass 'search'" in refused.err


def test_dry_run_estimates_and_writes_nothing(bert: Path, tmp_path: Path) -> None:
    target = tmp_path / "never.llmchip"
    result = call("compile", bert, "--seq", 4, "--dry-run", "--time-passes", "-o", target, "--json")
    assert result.code == 0, result.err
    assert result.document["estimate"]["milliseconds"] > 0
    assert result.document["memory"]["sram"]["bytes"] <= result.document["memory"]["sram"]["capacity"]
    assert result.document["passes"]
    assert not target.exists()
