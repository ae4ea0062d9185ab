"""A graph, or a piece of one, that runs on the chip inside a PyTorch program: tensors in, tensors out."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from compiler.frontend.capture import Captured
from compiler.options import Options
from isa.chip import Chip
from isa.image import Image
from runtime import cache
from runtime.compilation import Compilation
from runtime.executable import Executable
from runtime.tensors import bind, to_tensor
from runtime.weights import PackedCache, Stamps, stamps


class Part:
    """Takes the captured graph's inputs, then its weights; packs the weights when they are new."""

    def __init__(self, captured: Captured, options: Options, chip: Chip) -> None:
        self._compilation = Compilation(captured, options, chip)
        self._names = [weight.name for weight in captured.weights]
        self._inputs = len(captured.inputs)
        self._first = self._prepared(captured)
        self._again = False
        self._packed = PackedCache(self._pack)

    def _prepared(self, captured: Captured) -> "_First | None":
        """What is there for the weights of the first call. Compiles now, so that a graph that the chip cannot run is refused in time."""
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

    def _pack(self, weights: Sequence[Tensor]) -> Executable:
        named = {name: tensor.detach() for name, tensor in zip(self._names, weights, strict=True)}
        first, self._first, again, self._again = self._first, None, self._again, True
        if first is not None and first.stamps == stamps(weights):  # only right after it was made: later, memory may be somebody else's
            return Executable(first.image or self._compilation.stored(first.key, named))
        key = None if again else self._compilation.key(named)  # weights that change again and again would only fill the disk
        return Executable(self._compilation.stored(key, named))


@dataclass(frozen=True, slots=True)
class _First:
    """The weights that the graph was captured with, as they were then, and their image."""

    stamps: Stamps
    key: str
    image: Image | None

