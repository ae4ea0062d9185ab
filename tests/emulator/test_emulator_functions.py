"""The functions against the vectors of docs/numerics.md and, loosely, against the mathematics."""

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
from checkout import ROOT
from emulator_harness import Array, f32, same_bits

from emulator.functions import FUNCTIONS
from isa.spec import ACT

DOCUMENT = ROOT / "docs" / "numerics.md"
ROWS = re.findall(r"^\| (\w+) \| ((?:[0-9A-F]{8} >> [0-9A-F]{8}(?:, )?)+) \|$", DOCUMENT.read_text(), re.MULTILINE)
VECTORS = {name: re.findall(r"([0-9A-F]{8}) >> ([0-9A-F]{8})", text) for name, text in ROWS}


def test_every_function_of_the_table_exists_and_has_vectors() -> None:
    """Breaks when a function is added without an implementation or without worked vectors."""
    assert set(FUNCTIONS) == set(ACT) == set(VECTORS)


@pytest.mark.parametrize("name", ACT)
def test_documented_vectors(name: str) -> None:
    """Breaks on any other bit than the contract's; alone and beside numbers of every size, as selections are sometimes
    skipped."""
    pairs = np.array([[int(word, 16) for word in pair] for pair in VECTORS[name]], np.uint32)
    source, want = pairs[:, 0].view(np.float32), pairs[:, 1].view(np.float32)
    with np.errstate(all="ignore"):
        for x, y in zip(source, want, strict=True):
            assert same_bits(FUNCTIONS[name](f32(x)), f32(y)), hex(int(x.view(np.uint32)))
        assert same_bits(FUNCTIONS[name](source.copy()), want)


TRUE: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "tanh": np.tanh,
    "erf": np.vectorize(math.erf),
    "sqrt": np.sqrt,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "recip": lambda x: 1 / x,
    "rsqrt": lambda x: 1 / np.sqrt(x),
}


@pytest.mark.parametrize("name", sorted(TRUE))
def test_functions_are_close_to_the_mathematics(name: str) -> None:
    """Breaks on a wrong branch or coefficient; the bound is loose, the contract states the measured one."""
    x = np.random.default_rng(0).uniform(-8, 8, 5000).astype(np.float32)
    x = np.abs(x) + np.float32(1e-3) if name in ("sqrt", "rsqrt", "recip") else x
    got, want = FUNCTIONS[name](x.copy()).astype(np.float64), TRUE[name](x.astype(np.float64))
    assert np.all(np.abs(got - want) <= 4 * np.spacing(np.abs(want).astype(np.float32)))
