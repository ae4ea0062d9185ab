"""Inputs that fit an image, made up from a seed. Needs no torch, and no model."""

from collections.abc import Iterator

import numpy as np

from isa.architecture import WORD_BYTES
from isa.codec import IllegalInstruction
from isa.errors import Error
from isa.image.image import Image
from runtime.device.arrays import Array, host_dtype


def draw_inputs(image: Image, seed: int) -> dict[str, Array]:
    """Inputs that fit an image, without its model: ids that are in every table, masks padded on the right, normal
    floats."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, Array] = {}
    limit = min(_tables(image), default=2)
    for spec in image.entry().inputs:
        if spec.name == "attention_mask" and len(spec.shape) == 2:
            lengths = rng.integers((spec.shape[1] + 1) // 2, spec.shape[1] + 1, (spec.shape[0], 1))
            value: Array = np.arange(spec.shape[1]) < lengths
        elif spec.dtype == "bfloat16":
            value = (rng.standard_normal(spec.shape, np.float32).view(np.uint32) >> np.uint32(16)).astype(np.uint16)
        elif spec.storage.is_float:
            value = rng.standard_normal(spec.shape, np.float32)
        else:
            value = rng.integers(0, max(limit, 1), spec.shape)
        drawn[spec.name] = value.astype(host_dtype(spec.dtype))
    return drawn


def _tables(image: Image) -> Iterator[int]:
    """The number of rows of every table that the program gathers from."""
    for pc in range(0, len(image.code), WORD_BYTES):
        try:
            inst = image.inst(pc)
        except (IllegalInstruction, Error):
            continue
        if inst.mnemonic == "gather":
            yield inst.named()["limit"]
