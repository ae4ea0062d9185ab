"""`llmcc report`: a page for a colleague, made in a process of its own and opened in a browser that has no network."""

import json
import re
import shlex
from pathlib import Path

import pytest
from cli_harness import Result, call, spawn
from read_harness import dom, said

pytest.importorskip("plotly")

pytestmark = pytest.mark.wide  # each compiles a model or more


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "my texts.txt"
    path.write_text("the cat sits\n\na kitten </script> rests\nthe cat\nstocks fell\n")
    return path


@pytest.fixture(scope="module")
def made(classifier: Path, texts: Path) -> tuple[Result, Path]:
    page = texts.parent / "report.html"
    words = ("--data", texts, "--samples", 3, "--batch", 2, "--set", "sram.bytes=1MiB")
    return spawn("report", classifier, "-o", page, *words, "--json"), page


def test_the_report_has_every_figure(made: tuple[Result, Path], classifier: Path, texts: Path) -> None:
    """Breaks when a figure is missing, or is not that of verify and profile."""
    result, page = made
    d = result.document
    assert (result.code, d["files"]) == (0, [str(page)]), result.err
    assert d["verification"]["bit_exact"] and d["verification"]["nodes"] > 10
    accuracy = d["accuracy"]
    assert (accuracy["samples"], accuracy["left_out"], accuracy["source"]) == (3, 1, str(texts))
    (logits,) = accuracy["outputs"]
    assert logits["name"] == "logits" and 0.9 < logits["cosine"] <= 1 and logits["choices"] == 3
    assert {sample["text"] for sample in accuracy["worst"]} == {"the cat sits", "a kitten </script> rests", "the cat"}
    seq = d["model"]["inputs"][0]["shape"][1]
    sizes = ("--seq", seq, "--batch", 2, "--set", "sram.bytes=1MiB", "--json")
    profile = call("profile", classifier, *sizes).document
    assert {**d["profile"], "program": 0} == {name: profile[name] for name in d["profile"]} | {"program": 0}
    assert d["model"]["architecture"] == "BertForSequenceClassification" and d["model"]["parameters"] > 1000
    assert d["area_mm2"]["mxu"] > 0 and d["versions"]["llmchip"] and len(d["hashes"]["image"]) == 64


def test_the_command_makes_it_again(made: tuple[Result, Path], tmp_path: Path) -> None:
    """Breaks when an option is missing from the command, or is not quoted."""
    result, page = made
    words = shlex.split(result.document["command"])
    assert words[:2] == ["llmcc", "report"] and str(page) in words
    again = tmp_path / "again.html"
    words[words.index(str(page))] = str(again)
    assert call(*words[1:], "--json").document["profile"] == result.document["profile"]
    assert again.read_text() == page.read_text().replace(str(page), str(again))


@pytest.mark.parametrize("width", [800, 1440])
def test_a_browser_shows_it(made: tuple[Result, Path], width: int) -> None:
    """Breaks when the page needs another file, a text becomes part of it, or it does not fit the window."""
    result, page = made
    text = page.read_text()
    own = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert not re.search(r"https?://|\bsrc=|<link|@import|url\(", own) and "{{" not in own
    assert "a kitten &lt;/script&gt; rests" in own and "a kitten </script>" not in text
    script = """
      const out = {wide: document.documentElement.scrollWidth - innerWidth, tables: document.querySelectorAll("table.plain").length};
      out.glance = document.querySelector(".glance").textContent; out.bits = document.getElementById("bits").textContent;
      out.origin = document.getElementById("origin").textContent; out.area = document.getElementById("area").textContent;
      for (let i = 0; i < 100 && !document.querySelector(".tabulator-row"); i++) await new Promise(r => setTimeout(r, 20));
      selection.set("node", 0, {show: true}); out.details = document.getElementById("details").textContent;
      document.body.dataset.result = JSON.stringify(out);
    """
    found = json.loads(said(dom(page, script=script, width=width), "result"))
    assert found["wide"] <= 0
    assert "bit-exact" in found["glance"] and "mm²" in found["glance"] and "Bit-exact" in found["bits"]
    assert result.document["command"] in found["origin"] and result.document["hashes"]["image"] in found["origin"]
    assert "sram" in found["area"] and "µJ" in found["details"]


def test_a_report_without_texts(bert: Path, tmp_path: Path) -> None:
    """Breaks when a model has no tokenizer to speak of: inputs are drawn then."""
    page = tmp_path / "r.html"
    result = call("report", bert, "--seq", 8, "--samples", 2, "--task", "model", "-o", page)
    assert result.code == 0 and "2 samples, drawn" in result.out and f"wrote {page}" in result.out
    assert "inputs drawn from a seed" in page.read_text()


@pytest.mark.slow
def test_a_report_of_a_language_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a model of several programs has no report, or its logits are compared at another place."""
    from language_files import language_file

    from runtime.pytorch import cache

    monkeypatch.setattr(cache, "folder", lambda: tmp_path)
    model, page, data = tmp_path / "small.gguf", tmp_path / "r.html", tmp_path / "t.txt"
    model.write_bytes(language_file(kind="Q8_0"))
    data.write_text("the cat sat\nwhy is the sky blue\n")
    result = call("report", model, "--data", data, "--context", 96, "-o", page, "--json")
    d = result.document
    assert result.code == 0 and d["steps"]["bit_exact"] and len(d["steps"]["steps"]) >= 3 and d["verification"] is None
    (logits,) = d["accuracy"]["outputs"]
    assert logits["name"] == "logits" and logits["cosine"] > 0.99 and logits["choices"] > 5
    ours, theirs = d["accuracy"]["perplexity"]
    assert ours == pytest.approx(theirs, rel=0.1)
    assert d["profile"]["entry"] == "decode" and [point["tokens"] for point in d["context"]][-1] == 96
    script = """
      open("context"); for (let i = 0; i < 100 && !document.querySelector("#pane-context .tabulator-row"); i++) await new Promise(r => setTimeout(r, 20));
      document.body.dataset.result = document.getElementById("bits").textContent + document.querySelectorAll("#pane-context .tabulator-row").length;
    """
    found = said(dom(page, script=script), "result")
    assert "every byte of the caches" in found and found.endswith(str(len(d["context"])))


FACTORY = """
import torch
class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(24, 40), torch.nn.Linear(40, 8)
    def forward(self, x):
        h = torch.relu(self.a(x))
        return self.b(h), h.argmax(-1)
def make():
    torch.manual_seed(0)
    return Two().eval(), {"x": torch.randn(6, 24)}
"""


@pytest.mark.slow
def test_a_report_of_a_factory(tmp_path: Path) -> None:
    """Breaks when a model without a config, a mask or a tokenizer has no report."""
    (tmp_path / "mine.py").write_text(FACTORY)
    result = spawn("report", "mine:make", "--samples", 2, "-o", "r.html", "--json", cwd=tmp_path)
    d = result.document
    assert result.code == 0 and d["model"]["parameters"] == 24 * 40 + 40 + 40 * 8 + 8
    floats, choices = d["accuracy"]["outputs"]
    assert floats["cosine"] > 0.99 and choices["cosine"] is None and choices["choices"] == 12
    assert "Two on chip edge" in (tmp_path / "r.html").read_text()
    (tmp_path / "t.txt").write_text("a text\n")
    refused = spawn("report", "mine:make", "--data", "t.txt", "-o", "r.html", "--json", cwd=tmp_path)
    assert refused.code == 2 and "tokenizer" in refused.error["what"] and "--data" in refused.error["hint"]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("minilm", "--context", "9"), "--context"),
        (("nothing-like-this",), "nothing-like-this"),
        (("minilm", "--data", "no such file"), "no such file"),
    ],
)
def test_what_cannot_be_reported(words: tuple[str, ...], what: str, tmp_path: Path) -> None:
    result = call("report", *words, "-o", tmp_path / "r.html", "--json")
    assert result.code == 2 and what in json.dumps(result.error)
    assert not (tmp_path / "r.html").exists()


def test_an_image_is_no_model(image: Path, tmp_path: Path) -> None:
    result = call("report", image, "-o", tmp_path / "r.html", "--json")
    assert (result.code, result.error["kind"]) == (2, "input") and "model" in result.error["hint"]
