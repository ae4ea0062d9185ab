"""What a user says about quantization: its text, and what it means for a module."""

import pytest

from compiler.options import Options
from compiler.quantization import QuantConfig
from isa.errors import CompileError

FULL = QuantConfig("w8a8-static", smoothing=0.5, overrides={"layer.0.*": "float", "pooler": "w8a8"})


@pytest.mark.parametrize("config", [QuantConfig(), FULL, QuantConfig("w8a16", overrides=(("a[12]?", "bf16"),))])
def test_text_and_back(config: QuantConfig) -> None:
    """Breaks when an image does not record all that its compilation needs."""
    assert QuantConfig.parse(str(config)) == config == Options(quantization=str(config)).quant_config
    assert hash(config) == hash(QuantConfig.parse(str(config)))


def test_options_take_either() -> None:
    """Breaks when the old name, or a QuantConfig in place of its text, makes other options."""
    assert Options(quantization="w8a8") == Options() == Options.from_strings({"quantization": QuantConfig()})
    assert Options.from_strings({"quantization": FULL}).quantization == str(FULL)
    assert str(FULL) == "w8a8-static,smoothing=0.5,layer.0.*=float,pooler=w8a8-dynamic"


def test_the_first_pattern_that_fits_decides() -> None:
    """Breaks when patterns match in the middle of a name, or a later one wins."""
    config = QuantConfig("w8a16", overrides={"encoder.layer.1": "float", "layer.1.*": "bf16", "*.dense": "w4a8-g32"})
    found = {"encoder.layer.1": "float", "encoder.layer.1.dense": "bf16", "encoder.layer.11.dense": "w4a8-g32",
             "dense": "w8a16", "head": "w8a16", "": "w8a16", "mylayer.1.x": "w8a16"}  # fmt: skip
    assert {name: config.of(name) for name in found} == found


@pytest.mark.parametrize(
    "text", ["w9", "", "w8a8,", "w8a8,smoothing=2", "w8a8,smoothing=x", "w8a8,a=w9", "w8a8,=float", "w8a8,float"]
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(CompileError, match="quantization"):
        Options(quantization=text)


@pytest.mark.parametrize(
    ("config", "takes"),
    [(QuantConfig(), False), (QuantConfig(smoothing=0.0), True), (QuantConfig("w8a8-static"), True),
     (QuantConfig(overrides={"a": "w8a8-static"}), True), (QuantConfig(overrides={"a": "float"}), False)],
)  # fmt: skip
def test_which_take_a_calibration(config: QuantConfig, takes: bool) -> None:
    assert config.calibrated is takes
