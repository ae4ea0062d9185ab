"""`--calibration`: texts on which the float model is run before it is quantized."""

from pathlib import Path

from cli_harness import call

SMOOTH = ("--option", "quantization=w8a8-static,smoothing=0.5,pooler.*=float")
SIZES = ("--seq", 8, "--batch", 1)


def test_an_image_remembers_its_calibration(bert: Path, tmp_path: Path) -> None:
    """Breaks when the image does not record the texts, or verifying it takes others in silence."""
    texts, image = tmp_path / "texts.txt", tmp_path / "bert.llmchip"
    texts.write_text("a cat sits\na dog runs a good film\n")
    made = call("compile", bert, *SMOOTH, *SIZES, "--calibration", texts, "-o", image, "--json")
    assert made.code == 0, made.out + made.err
    options = call("info", image, "--json").document["options"]
    assert options["calibration"]["file"] == str(texts) and len(options["calibration"]["sha256"]) == 64
    assert call("verify", image, "--json").document["bit_exact"]
    texts.write_text("another film\n")
    error = call("verify", image, "--json").error
    assert error["what"] == "these are not the texts that the image was calibrated on"


def test_what_does_not_fit_is_said(bert: Path, tmp_path: Path) -> None:
    """Breaks when a calibration that is missing, or not wanted, is no error."""
    texts = tmp_path / "texts.txt"
    texts.write_text("a cat sits\n")
    missing = call("run", bert, *SMOOTH, *SIZES, "--json").error
    assert "takes a calibration" in missing["what"] and "--calibration FILE" in missing["hint"]
    useless = call("run", bert, *SIZES, "--calibration", texts, "--json").error
    assert useless["what"] == "quantization 'w8a8-dynamic' takes no calibration"
