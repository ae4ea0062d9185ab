"""Images of decoders are told from others by what their entries take and give."""

from dataclasses import replace

import pytest

from isa.architecture import Dtype, Region
from isa.image.image import Image
from isa.image.records import Entry, Scalar, TensorSpec
from isa.image.steps import steps


def entry(name: str, tokens: int, capacity: int = 16, batch: int = 2) -> Entry:
    return Entry(
        name,
        0,
        (TensorSpec("input_ids", (batch, tokens), "int32", Dtype.I32, Region.IN),),
        (TensorSpec("output", (batch, tokens, 9), "float32", Dtype.F32, Region.OUT),),
        tuple(Scalar(f"positions.{number}", 4 * number, 0, capacity - tokens) for number in range(batch)),
    )


CACHE = TensorSpec("keys_0", (2, 1, 16, 4), "int8", Dtype.I8, Region.STATE)
DECODER = Image(b"", entries=(entry("decode", 1), entry("prefill", 4)), states=(CACHE,))


def test_the_most_tokens_come_first() -> None:
    """Breaks when a step's numbers are not those of its entry."""
    found = steps(DECODER)
    assert [(s.entry, s.batch, s.tokens, s.reach, s.vocabulary) for s in found] == [
        ("prefill", 2, 4, 16, 9),
        ("decode", 2, 1, 16, 9),
    ]


@pytest.mark.parametrize(
    "other",
    [
        replace(DECODER, states=()),
        replace(DECODER, states=(TensorSpec("keys_0", (2, 1, 8, 4), "int8", Dtype.I8, Region.STATE),)),
        replace(DECODER, states=(TensorSpec("keys_0", (2,), "int8", Dtype.I8, Region.STATE),)),
        replace(DECODER, entries=(entry("decode", 1), entry("prefill", 4, capacity=17))),
        replace(DECODER, entries=(entry("decode", 1), Entry("main"))),
        replace(DECODER, entries=(entry("decode", 1), entry("prefill", 4, batch=3))),
        replace(DECODER, entries=(entry("decode", 0),)),
        Image(b""),
    ],
)
def test_what_does_not_fit_is_no_decoder(other: Image) -> None:
    """Breaks when an image is taken for a decoder whose steps do not belong to one another, or to its caches."""
    assert steps(other) == ()
