"""A captured model on its way to an image: what llmcc, the API and torch.compile share.

Graph passes, program and image are each made when first asked for. The image comes from the cache where it is there,
and then there is no program: who only compares or measures an image needs the graph alone.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from torch import Tensor

from compiler.frontend.capture import Captured
from compiler.graph.fx_copy import as_written
from compiler.lower import Lowered, lower
from compiler.options import Options
from compiler.packing import Bytes, Packing, Recipe
from compiler.pipeline import Compiled, finish
from isa.chip import Chip, load_chip
from isa.image.image import Image
from runtime.pytorch import cache
from runtime.pytorch.tensors import weights_sha256
from runtime.pytorch.weights import Stamps, stamps

# What an image in the cache records beside its own:
HEIGHTS = "heights"  # bytes and lower bound of each memory's plan
RECIPES = "recipes"  # how each constant is made (compiler.packing.Recipe)

Packed = Callable[[Sequence[Recipe]], Mapping[int, Bytes]]


class Compilation:
    """One model, one chip, one set of options."""

    def __init__(self, captured: Captured, options: Options | None = None, chip: Chip | None = None) -> None:
        self.captured, self.options = captured, options or Options()
        self.chip = chip or load_chip(self.options.chip)
        self._passes: dict[str, float] = {}
        self._spent = 0.0
        self._hash: tuple[Stamps, str] | None = None

    @cached_property
    def lowered(self) -> Lowered:
        start = time.perf_counter()
        with as_written():
            lowered = lower(self.captured, self.options)
        self._passes["graph passes"] = time.perf_counter() - start
        self._spent += self._passes["graph passes"]
        return lowered

    @cached_property
    def compiled(self) -> Compiled:
        """The program. Raises UnsupportedError for what the chip cannot do, CompileError for what does not fit."""
        lowered, start = self.lowered, time.perf_counter()
        compiled = finish(lowered, self.options, self.chip, self._passes)
        self._spent += time.perf_counter() - start
        return compiled

    def image(self, tensors: Mapping[str, Tensor] | None = None, metadata: Mapping[str, Any] | None = None) -> Image:
        """The image with these weights (by name; default: those that were captured). The metadata are the caller's
        own."""
        return replace(self.stored(self.key(tensors), tensors), metadata=dict(metadata or {}))

    def stored(
        self, key: str | None, tensors: Mapping[str, Tensor] | None = None, packed: Packed | None = None
    ) -> Image:
        """The image as the cache has it, or would have it under this key; None keeps it out of the cache.

        `packed` may give constants, by number, that are packed already.
        """
        image = cache.find(key)
        if image is None:
            compiled, start = self.compiled, time.perf_counter()
            recipes = self.lowered.packing.recipes
            facts = {
                HEIGHTS: compiled.placement.heights,
                RECIPES: [(recipe.text, recipe.weights) for recipe in recipes],
            }
            image = compiled.image(tensors, facts, packed(recipes) if packed else None)
            cache.keep(key, image, self._spent + time.perf_counter() - start)
        return image

    def key(self, tensors: Mapping[str, Tensor] | None = None) -> str | None:
        """The name of the image in the cache; None if it cannot have one."""
        if cache.folder() is None:
            return None
        digest = self.weights_sha256() if tensors is None else weights_sha256(tensors)
        return cache.key_of(self.captured, self.options, self.chip, digest)

    def forget(self) -> Packing | None:
        """Free what the compiler made (it is made again when it is asked for), but for what packs weights, if that is
        there."""
        lowered: Lowered | None = self.__dict__.pop("lowered", None)
        self.__dict__.pop("compiled", None)
        return lowered.packing if lowered else None

    def weights_sha256(self) -> str:
        """The hash of the captured weights as they are now; computed again only if one has changed."""
        now = stamps(self.captured.tensors.values())
        if self._hash is None or self._hash[0] != now:
            self._hash = now, weights_sha256(self.captured.tensors)
        return self._hash[1]


Known = Compilation | Compiled  # what knows the graph of an image
