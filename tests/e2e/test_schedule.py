"""Chips, tile sizes and tile passes change the schedule, never a bit."""

from functools import cache

import msgspec
import pytest
import torch
from berts import Case

import llmchip
from isa.chip import Acc, Chip, Lanes, Mxu, Sram, load_chip

CASE = Case("BertModel", 4, 8, 2, 70, 50, "gelu", "sdpa", False, 2, 33, "right", False, 3)
EDGE = load_chip("edge")


def variant(**fields: object) -> Chip:
    return msgspec.structs.replace(EDGE, name="variant", **fields)


CHIPS = {
    "edge": EDGE,
    "server": load_chip("server"),
    "small array": variant(mxu=Mxu(rows=16, cols=8, weight_rows_per_cycle=1)),
    "few lanes": variant(vec=Lanes(8), act=Lanes(4)),
    "64 KiB": variant(sram=Sram(64 << 10), acc=Acc(16 << 10)),
    "24 KiB": variant(sram=Sram(24 << 10), acc=Acc(4 << 10)),
}


@cache
def compiled(name: str, disable: str) -> llmchip.Program:
    return llmchip.compile(CASE.model(), CASE.inputs(), chip=CHIPS[name], disable=disable)


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    return run("edge")


def run(name: str, disable: str = "") -> dict[str, torch.Tensor]:
    return dict(compiled(name, disable)(**CASE.inputs()))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k].view(torch.int32), b[k].view(torch.int32)) for k in a)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=() if name == "few lanes" else pytest.mark.slow if name == "24 KiB" else pytest.mark.wide
        )
        for name in CHIPS
        if name != "edge"
    ],
)
def test_another_chip_gives_the_same_bits(name: str, expected: dict[str, torch.Tensor]) -> None:
    """Breaks if array size, lanes or memory sizes reach the arithmetic."""
    assert same(run(name), expected)


@pytest.mark.parametrize("disabled", ["fuse", "schedule", "fuse,schedule"])
def test_tile_passes_change_no_bit(disabled: str, expected: dict[str, torch.Tensor]) -> None:
    """Breaks if fusing or reordering changes what is computed."""
    assert same(run("edge", disabled), expected)


def test_small_scratchpads_really_tile_differently() -> None:
    """Breaks if the tests above compare a program with itself."""
    assert len({compiled(name, "").image.words for name in ("edge", "64 KiB", "small array")}) == 3


def test_a_scratchpad_too_small_is_an_error_that_names_sizes() -> None:
    """Breaks if the compiler loops forever, or says only 'out of memory'."""
    with pytest.raises(llmchip.CompileError, match=r"bytes of SRAM.*chip 'variant' has"):
        llmchip.compile(CASE.model(), CASE.inputs(), chip=variant(sram=Sram(256), acc=Acc(64)))
