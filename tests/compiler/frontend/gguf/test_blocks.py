"""Block bytes to numbers, against the bits that ggml's own dequantization gave."""

import numpy as np
import pytest
from ggml_vectors import arrays, bits, vectors

from compiler.frontend.gguf.blocks import WEIGHT_TYPES, WeightType, pack_i4
from emulator.formats import unpack_i4

TYPES = pytest.mark.parametrize("kind", WEIGHT_TYPES.values(), ids=lambda kind: kind.name)


@TYPES
def test_dequantized_weights_have_ggmls_bits(kind: WeightType) -> None:
    """Breaks when a nibble, a high bit, a scale or a minimum is taken from another place."""
    data = arrays(kind.name)
    assert (kind.elements, kind.nbytes) == (data["block"].item(), data["block_bytes"].item())
    assert kind.activations.name == data["act"].item().upper()
    for name, rows in (("one", slice(None)), ("raw", slice(2))):
        assert np.array_equal(bits(kind.decode(data[f"{name}_w"][rows]).values()), data[f"{name}_wf"])


@TYPES
def test_codes_fit_the_storage_that_the_table_names(kind: WeightType) -> None:
    """Breaks when four bits are promised for codes that need more, or more than they need."""
    low, high = {"i4": (-8, 7), "u4": (0, 15), "e2m1": (-12, 12), "i8": (-128, 127)}[kind.product.storage]
    codes = np.concatenate([kind.decode(v.blocks).codes.ravel() for v in vectors() if v.type is kind])
    assert low <= codes.min() and codes.max() <= high
    if kind.product.storage == "i8":
        assert codes.min() < -8 or codes.max() > 15
    if kind.product.storage == "i4":
        assert np.array_equal(unpack_i4(pack_i4(codes[None], "i4").view(np.uint8), codes.size)[0], codes)


@TYPES
def test_a_row_that_ends_inside_a_block_is_refused(kind: WeightType) -> None:
    with pytest.raises(ValueError, match=f"{kind.name}: rows of"):
        kind.decode(np.zeros((2, kind.nbytes + 1), np.uint8))
    assert kind.decode(np.zeros((0, kind.nbytes), np.uint8)).values().shape == (0, kind.elements)
    assert kind.decode(np.zeros((3, 0), np.uint8)).values().shape == (3, 0)
