"""`--set`: parameters of the chip on the command line."""

from pathlib import Path

import pytest
import torch
from cli_harness import call
from decoders import decoder

import llmchip
from isa.chip import read_toml


@pytest.mark.wide
def test_every_verb_with_a_chip_takes_settings(bert: Path, tmp_path: Path) -> None:
    """Breaks when a verb compiles for the stock chip and says nothing, or an image for another chip is taken."""
    path, sized = tmp_path / "m.llmchip", ("--seq", 8, "--set", "mxu.rows=64", "--set", "sram.bytes=4MiB")
    assert call("compile", bert, *sized, "-o", path, "--json").document["chip"] == "edge mxu.rows=64 sram.bytes=4MiB"
    for verb in ("run", "verify", "lint", "profile"):
        result = call(verb, bert, *sized, "--json")
        assert result.code == 0, result.err
        assert result.document.get("chip") == "edge mxu.rows=64 sram.bytes=4MiB", verb
    assert call("run", path, "--set", "mxu.rows=64", "--set", "sram.bytes=4MiB").code == 0
    refused = call("run", path, "--set", "mxu.rows=32", "--json")
    assert refused.code == 2 and "built for chip" in refused.error["what"]


def test_a_changed_chip_is_printed() -> None:
    """Breaks when what is printed is not the chip that was asked for."""
    chip = read_toml(call("chips", "server", "--set", "dram.bytes_per_second=2TB/s").out, "x")
    assert (chip.dram.bytes_per_second, chip.mxu.weight_rows_per_cycle) == (2 * 10**12, 16)


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ("mxu.rows=0", "mxu.rows: 0 is not within 1 to 65536"),
        ("mxu.row=1", "a chip has no parameter 'mxu.row'"),
        ("64", "'64' is not KEY=VALUE"),
    ],
)
def test_bad_settings_are_one_line(bert: Path, setting: str, what: str) -> None:
    """Breaks when a setting that no chip can have ends in a traceback, or is passed over."""
    result = call("profile", bert, "--set", setting, "--json")
    assert result.code == 2 and what in result.error["what"]


@pytest.mark.wide
def test_a_decoder_is_compiled_for_the_chip_that_was_given() -> None:
    """Breaks when a language model is compiled for the stock chip whose name the given one has."""
    chip = llmchip.chip("edge").replace(name="edge", mxu={"rows": 64})
    program = llmchip.compile(
        decoder("Llama"), {"input_ids": torch.zeros(1, 4, dtype=torch.int64)}, max_length=8, chip=chip
    )
    assert program.image.chip == chip
