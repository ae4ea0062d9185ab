"""A graph, or a piece of one, that runs on the chip inside a PyTorch program: tensors in, tensors out."""

from collections.abc import Sequence
from functools import cached_property

from torch import Tensor

from compiler.frontend.capture import Captured
from compiler.options import Options
from compiler.pipeline import Compiled, compile_captured
from isa.chip import Chip
from isa.errors import Error, UnsupportedError
from runtime import cache
from runtime.executable import Executable
from runtime.tensors import bind, to_tensor
from runtime.weights import PackedCache


class Part:
    """Takes the captured graph's inputs, then its weights; packs the weights when they are new."""

    def __init__(self, captured: Captured, options: Options, chip: Chip) -> None:
        self._captured, self._options, self._chip = captured, options, chip
        if cache.find(cache.key_of(captured, options, chip)) is None:
            self.compiled  # noqa: B018 - now, so that a graph that the chip cannot run is refused in time
        self._names = [weight.name for weight in captured.weights]
        self._inputs = len(captured.inputs)
        self._kept = False
        self._packed = PackedCache(self._pack)

    @cached_property
    def compiled(self) -> Compiled:
        return _compiled(self._captured, self._options, self._chip)

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        executable = self._packed.get(tensors[self._inputs :])
        entry = executable.image.entry()
        results = executable(bind(entry.inputs, tensors[: self._inputs]))
        return tuple(to_tensor(results[spec.name], spec.dtype) for spec in entry.outputs)

    def _pack(self, weights: Sequence[Tensor]) -> Executable:
        named = {name: tensor.detach() for name, tensor in zip(self._names, weights, strict=True)}
        key = None if self._kept else cache.key_of(self._captured, self._options, self._chip, named)
        self._kept = True  # weights that change again and again would only fill the disk
        return Executable(cache.image_of(key, lambda: self.compiled.image(named)))


def _compiled(captured: Captured, options: Options, chip: Chip) -> Compiled:
    """A graph that the compiler stumbles over is one that it does not support: it must not take the user's program down."""
    try:
        return compile_captured(captured, options, chip)
    except Error:
        raise
    except Exception as error:
        raise UnsupportedError(
            f"the compiler failed with {type(error).__name__}: {error}", hint="this is a bug in llmchip, please report it"
        ) from error
