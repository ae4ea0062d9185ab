"""A graph, or a piece of one, that runs on the chip inside a PyTorch program: tensors in, tensors out."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from compiler.frontend.capture import Captured
from compiler.options import Options
from compiler.packing import Packing, Recipe, Store
from isa.chip import Chip
from isa.image.image import Image
from runtime.pytorch import cache
from runtime.pytorch.compilation import RECIPES, Compilation, Packed
from runtime.pytorch.tensors import bind, to_tensor
from runtime.pytorch.weights import PackedCache, Stamps, stamps


class Part:
    """Takes the captured graph's inputs, then its weights; packs the weights when they are new."""

    def __init__(self, captured: Captured, options: Options, chip: Chip) -> None:
        self._compilation = Compilation(captured, options, chip)
        self._names = [weight.name for weight in captured.weights]
        self._inputs = len(captured.inputs)
        self._first = self._prepared(captured)
        self._packing: Packing | None = None
        self._packed = PackedCache(self)

    def _prepared(self, captured: Captured) -> "_First | None":
        """What is there for the weights of the first call. Compiles now, so that a graph that the chip cannot run is
        refused in time."""
        examples = [captured.tensors[name] for name in self._names if name in captured.tensors]
        key = self._compilation.key() if len(examples) == len(self._names) else None
        image = cache.find(key)
        if image is None:
            self._compilation.compiled  # noqa: B018
        return None if key is None else _First(stamps(examples), key, image)

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        executable = self._packed.get(tensors[self._inputs :])
        entry = executable.image.entry()
        results = executable(bind(entry.inputs, tensors[: self._inputs]))
        return tuple(to_tensor(results[spec.name], spec.dtype) for spec in entry.outputs)

    def image(self, tensors: Sequence[Tensor], packed: Packed) -> tuple[Image, Sequence[Recipe]]:
        """See runtime.pytorch.weights.Packer."""
        named = self._named(tensors)
        first, self._first = self._first, None
        if first is not None and first.stamps == stamps(
            tensors
        ):  # only right after it was made: later, memory may be somebody else's
            image = first.image or self._compilation.stored(first.key, named, packed)
        else:
            image = self._compilation.stored(self._compilation.key(named), named, packed)
        recipes = [Recipe(text, tuple(weights)) for text, weights in image.metadata[RECIPES]]
        self._packing = self._compilation.forget()
        return replace(image, metadata={}), recipes

    def constants(self, tensors: Sequence[Tensor], only: Collection[int], store: Store) -> None:
        """See runtime.pytorch.weights.Packer."""
        if self._packing is None:
            self._compilation.lowered  # noqa: B018 - the image came from the cache
            self._packing = self._compilation.forget()
        assert self._packing is not None
        self._packing.run(self._named(tensors), store, only)

    def _named(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in zip(self._names, tensors, strict=True)}


@dataclass(frozen=True, slots=True)
class _First:
    """The weights that the graph was captured with, as they were then, and their image."""

    stamps: Stamps
    key: str
    image: Image | None
