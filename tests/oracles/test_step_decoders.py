"""Random decoders at random positions, in program order and with engines that overlap: see `fuzz.decoders`."""

import random
from collections.abc import Mapping
from typing import Any

import pytest
from choice import few

from fuzz.decoders import VOCABULARY, make, run
from runtime.device.arrays import Array
from runtime.device.executable import Executable


@pytest.mark.parametrize("seed", few(range(3)))
def test_random_decoders_equal_the_reference(seed: int) -> None:
    """Breaks when a bit of logits or caches differs at some position, the engines' order shows in them, or lint does
    not prove a program for all positions."""
    run(make(random.Random(seed)))


@pytest.mark.wide
def test_a_decoder_that_differs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when the fuzzer compares nothing: here the device is given other tokens."""
    launch = Executable.__call__

    def wrong(self: Executable, inputs: Mapping[str, Array], **given: Any) -> dict[str, Array]:
        return launch(self, {name: (ids + 1) % VOCABULARY for name, ids in inputs.items()}, **given)

    monkeypatch.setattr(Executable, "__call__", wrong)
    with pytest.raises(AssertionError, match="logits differ"):
        run(make(random.Random(0)))
