"""Axes, rows of the store, and what limits a point, as an outside user tried them."""

import sqlite3
from pathlib import Path

import pytest
import torch

import llmchip
from isa.chip import load_chip
from isa.errors import ChipError
from runtime.sweep.axes import axis, check_apart, chip_at
from runtime.sweep.figures import limited_by
from runtime.sweep.store import Store


def test_axes_that_contradict_each_other_are_refused() -> None:
    """Breaks if a row says one size and its chip has another."""
    for given in ({"mxu.rows+mxu.cols": 64, "mxu.cols": 32}, {"mxu.rows+mxu.rows": 32}):
        with pytest.raises(ChipError, match="is given a value twice"):
            check_apart([axis(key, value) for key, value in given.items()])
    check_apart([axis("mxu.rows+mxu.cols", 64), axis("sram.bytes", "1MiB")])


def test_joined_parameters_of_different_units() -> None:
    """Breaks if the first parameter's unit is given to the others."""
    for key in ("mxu.rows+clock_hz", "clock_hz+mxu.rows"):
        assert chip_at(load_chip(), {key: axis(key, 64).values[0]}).mxu.rows == 64
    with pytest.raises(ChipError, match="made of names and files"):
        axis("chip", [load_chip("edge")])


@pytest.mark.parametrize("row", ["{}", "[1]", "null", "not json"])
def test_a_damaged_row_is_measured_again(row: str, tmp_path: Path) -> None:
    """Breaks if what another program wrote into the store ends a sweep."""
    Store(tmp_path / "s.sqlite").close()
    with sqlite3.connect(tmp_path / "s.sqlite") as database:
        database.execute("INSERT INTO points VALUES ('key', ?, 1.0)", (row,))
    assert Store(tmp_path / "s.sqlite").get("key") is None


def test_bytes_that_bursts_add_are_no_lack_of_scratchpad() -> None:
    """Breaks if an image that is loaded element by element is said to need a larger scratchpad."""
    torch.manual_seed(0)

    class Columns(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.t().softmax(-1)

    found = llmchip.compile(Columns().eval(), (torch.randn(128, 256),)).profile()
    assert found.dram_bytes > 2 * found.limit.by_resource["dram"] * 100 and limited_by(found) != "sram"
