"""`llmcc quantize`: sensitivity, measurements, and a suggestion that does what it says."""

import json
from pathlib import Path

import msgspec
import pytest
from cli_harness import Result, call

from runtime.quantize.document import QuantizeDocument

pytest.importorskip("plotly")
pytestmark = pytest.mark.slow  # every layer of a model is compiled alone, and several whole models


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "texts.txt"
    path.write_text("a cat sits\na dog runs a good film\nbad </script> film\n")
    return path


@pytest.fixture(scope="module")
def made(classifier: Path, texts: Path) -> Result:
    words = ("--data", texts, "--schemes", "w8a8-static,bf16", "--target", "cosine=0.9", "--target", "argmax=0.5")
    return call("quantize", classifier, *words, "--report", texts.parent / "q.html", "--json")


def test_every_layer_is_measured_in_every_scheme(made: Result) -> None:
    """Breaks when a layer is missing, or a scheme is not that of the chip."""
    assert made.code == 0, made.out + made.err
    d = msgspec.convert({k: v for k, v in made.document.items() if k != "seconds_spent"}, QuantizeDocument)
    assert len(d.layers) == 14 and (d.output, d.samples) == ("logits", 3)
    for layer in d.layers:
        assert [choice.scheme for choice in layer.choices] == ["w8a8-dynamic", "w8a8-static", "bf16"]
        assert all(-1e-9 < choice.error < 0.01 and choice.cycles > 0 for choice in layer.choices)
    assert sum(layer.choices[0].error for layer in d.layers) > 0
    assert d.measured[0].quantization == "w8a8-dynamic" and d.suggestion in {m.quantization for m in d.measured}
    assert d.best is not None and d.best.cosine >= 0.9


def test_the_suggestion_is_an_option(made: Result, classifier: Path, texts: Path) -> None:
    """Breaks when what is suggested cannot be compiled, or is another program than was measured."""
    suggestion = made.document["suggestion"]
    calibration = ("--calibration", texts) if "smoothing" in suggestion or "static" in suggestion else ()
    option = ("--option", f"quantization={suggestion}")
    assert call("verify", classifier, "--seq", 8, "--batch", 3, *option, *calibration, "--json").document["bit_exact"]


def test_the_page_is_complete(made: Result, texts: Path) -> None:
    """Breaks when a plot has no place, or a text can end the script."""
    page = (texts.parent / "q.html").read_text()
    assert made.document["files"] == [str(texts.parent / "q.html")]
    assert all(f'id="{name}"' in page for name in ("layers", "models", "data"))
    data = page.partition('type="application/json">')[2].partition("</script>")[0]
    assert {*json.loads(data)} == {"layers", "models"} and "classifier" in page


def test_what_cannot_be_is_said(classifier: Path, texts: Path) -> None:
    """Breaks when an answer is no, and the exit code says yes."""
    for words, part in (
        (("--option", "quantization=w8a16"), "is what is to be found"),
        (("--schemes", "w9"), "none of"),
        (("--target", "cosine=2"), "from 0 to 1"),
        (("--smoothing", "7"), "neither"),
        (("--report", "-"), "both go to stdout"),
    ):
        assert part in call("quantize", classifier, "--data", texts, *words, "--json").error["what"], words
    few: tuple[object, ...] = ("--schemes", "w8a8-dynamic", "--target", "cosine=1", "--seq", 4, "--batch", 1)
    assert call("quantize", classifier, *few, "--json").code == 1
