"""Language models on their way to an image with several steps: what the API and torch.compile share."""

import time
from collections.abc import Callable, Mapping
from typing import Final

from torch import nn

from compiler.frontend.capture import Captured
from compiler.frontend.decoder import capture_decoder, within
from compiler.options import Options
from isa.chip import Chip
from isa.image.image import Image
from runtime.pytorch import cache
from runtime.pytorch.tensors import weights_sha256

REACHES: Final = 1 << 10, 1 << 13  # tokens: a program of its own for sequences that are no longer, if caches hold more


def steps_of(model: nn.Module, batch: int, chunk: int, capacity: int) -> dict[str, Captured]:
    """The steps of a language model, by the names of their entries: prefill takes `chunk` tokens, caches have room for
    `capacity`. Raises what `capture_decoder` raises."""
    prefill = {"prefill": capture_decoder(model, batch, chunk, capacity)} if chunk > 1 else {}
    decode = capture_decoder(model, batch, 1, capacity)
    short = {f"decode_{reach}": within(decode, reach) for reach in REACHES if 2 * reach <= capacity}
    return {**prefill, **short, "decode": decode}


def stored_image(key: str | None, make: Callable[[], Image]) -> Image:
    """The image as the cache has it under this key, or as it is made."""
    image = cache.find(key)
    if image is None:
        start = time.perf_counter()
        image = make()
        cache.keep(key, image, time.perf_counter() - start)
    return image


def image_key(steps: Mapping[str, Captured], options: Options, chip: Chip) -> str | None:
    """The name of the steps' image in the cache; None if it cannot have one."""
    if cache.folder() is None:
        return None
    weights = weights_sha256(
        {
            f"{entry} {weight.name}" if weight.kind == "constant" else weight.name: step.tensors[weight.name]
            for entry, step in steps.items()
            for weight in step.weights
        }
    )
    keys = [cache.key_of(step, options, chip, weights) for step in steps.values()]
    return None if None in keys else cache.joined(keys, list(steps))
