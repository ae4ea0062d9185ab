"""Entries: several captured steps of one model as programs of one image, which share weights and state.

prefill, decode → two programs, one set of constants, one cache
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from compiler.codegen.image import build_image, region_sizes
from compiler.frontend.capture import Captured, Weight
from compiler.lower import Lowered, lower
from compiler.options import Options
from compiler.pipeline import Compiled, finish
from compiler.tile.kernel_graph import Shared
from compiler.tile.storage import ALIGN
from compiler.types import flat_bytes
from isa.architecture import IMAGE_REGIONS, Region
from isa.chip import Chip, load_chip
from isa.image.image import Image

Kind = tuple[str, tuple[str, ...], tuple[int, ...], str]  # what a constant is: its recipe, of which weights; its form


@dataclass(frozen=True)
class CompiledEntries:
    """The programs of an image by the names of their entries, the first first."""

    programs: Mapping[str, Compiled]
    chip: Chip

    def image(self, metadata: Mapping[str, object] | None = None) -> Image:
        """The image. Weights that several programs have are packed once."""
        known: set[Kind] = set()
        parts = []
        for name, compiled in self.programs.items():
            kinds = constant_kinds(compiled.lowered)
            parts.append(compiled.part(name, only=[n for n, kind in enumerate(kinds) if kind not in known]))
            known.update(kinds)
        return build_image(parts, self.chip, metadata or {})


def compile_entries(
    steps: Mapping[str, Captured], options: Options | None = None, chip: Chip | None = None
) -> CompiledEntries:
    """Compile captured steps of one model, by the names of their entries. Raises UnsupportedError, CompileError."""
    options = options or Options()
    chip = chip or load_chip(options.chip)
    programs: dict[str, Compiled] = {}
    for name, captured in steps.items():
        lowered = lower(captured, options)
        programs[name] = finish(lowered, options, chip, shared=_shared(list(programs.values()), lowered))
    return CompiledEntries(programs, chip)


def constant_kinds(lowered: Lowered) -> list[Kind]:
    """What each constant of a graph is; equal in two graphs of one model where it is the same tensor."""
    names = [_identity(weight, lowered.captured.tensors[weight.name]) for weight in lowered.captured.weights]
    return [
        (recipe.text, tuple(names[number] for number in recipe.weights), info.shape, str(info.dtype))
        for recipe, info in zip(lowered.packing.recipes, lowered.constants, strict=True)
    ]


def _identity(weight: Weight, tensor: Tensor) -> str:
    """Steps of one model have the same weights by the same names. Names of constants that the code writes are only
    counted, in each step anew: their content says which they are."""
    if weight.kind != "constant":
        return weight.name
    return hashlib.sha256(flat_bytes(tensor).numpy().tobytes()).hexdigest()


def _shared(programs: Sequence[Compiled], lowered: Lowered) -> Shared:
    """Where the constants of a graph are already, by name, and what is free behind those of all programs."""
    there: dict[Kind, int] = {}
    free = dict.fromkeys((*IMAGE_REGIONS, Region.STATE), 0)
    for compiled in programs:
        tensors = compiled.tiled.constants
        there |= {kind: t.offset for kind, t in zip(constant_kinds(compiled.lowered), tensors, strict=True)}
        sizes = region_sizes(compiled.tiled, compiled.placement)
        free = {region: max(end, -(-sizes[region] // ALIGN) * ALIGN) for region, end in free.items()}
    kinds = zip(lowered.constants, constant_kinds(lowered), strict=True)
    return Shared({info.name: there[kind] for info, kind in kinds if kind in there}, free)
