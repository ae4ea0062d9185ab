"""A compiled model: called like the model, saved as an image, verified against PyTorch."""

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from os import PathLike
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from compiler.frontend.calibration import Calibration, marked
from compiler.frontend.capture import Captured, capture, from_exported
from compiler.graph.fx_copy import as_written
from compiler.lower import Lowered
from compiler.ops.expand import expand_reference
from compiler.options import Options
from compiler.pipeline import Compiled
from isa.chip import Chip, load_chip
from isa.errors import CompileError, Error, InputError
from isa.image.image import Image, image_bytes, read_image, write_image
from runtime.calibration import calibration_of
from runtime.device.executable import Executable
from runtime.inspected import Inspected
from runtime.profile.profile import Profile, profile, timing
from runtime.pytorch.compilation import Compilation
from runtime.pytorch.export_lock import alone
from runtime.pytorch.fallback import as_error
from runtime.pytorch.stored import Stored
from runtime.pytorch.tensors import bind, to_tensor
from runtime.pytorch.weights import stamps
from runtime.verify.verify import Verification, verify_image
from runtime.version import __version__


class Program(Inspected):
    """A model that `compile` has made a program of.

    `program(*args, **kwargs)` takes what the model takes, runs on the emulated chip and returns what the model would
    return. It can be copied, pickled, saved and asked how right and how fast it is.
    """

    def __init__(self, captured: Captured, options: Options, chip: Chip, model: Any = None) -> None:
        self.captured, self.options, self.chip = captured, options, chip
        self._model = model
        self._compilation = Compilation(captured, options, chip)
        self._weights = stamps(captured.tensors.values())

    @property
    def compiled(self) -> Compiled:
        """What the compiler made; not needed, and not made, while the image is in the cache."""
        return self._compilation.compiled

    @cached_property
    def image(self) -> Image:
        """Program, packed weights, interface and debug map; `save` writes it."""
        return self._compilation.image(metadata=self._metadata())

    @cached_property
    def executable(self) -> Executable:
        return Executable(self.image)

    @cached_property
    def reference(self) -> "Reference":
        """The frozen graph in stock PyTorch operations only: what the chip must equal, bit for bit."""
        self._check_unchanged()
        return Reference(self._compilation.lowered)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run on the emulated chip. Tensors have the shapes and types of the example. Raises InputError for others,
        and Trap for a fault of the program."""
        captured, entry = self.captured, self.image.entry()
        results = self.executable(bind(entry.inputs, captured.flatten(args, kwargs)))
        return captured.unflatten([to_tensor(results[spec.name], spec.dtype) for spec in entry.outputs])

    def save(self, path: str | PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Write the image file. `metadata` is added to what the image records of its origin."""
        self._check_unchanged()
        own = {"weights_sha256": self._compilation.weights_sha256()}
        write_image(replace(self.image, metadata={**self.image.metadata, **own, **(metadata or {})}), path)

    def verify(self, *args: Any, **kwargs: Any) -> Verification:
        """Run these inputs on the chip and in PyTorch, and compare every node's bits; distance to the float model
        beside it."""
        self._check_unchanged()
        arrays = bind(self.image.entry().inputs, self.captured.flatten(args, kwargs))
        return verify_image(self.image, self._compilation, arrays, self._float_outputs(args, kwargs))

    def profile(self) -> Profile:
        """Where its cycles and its energy go, by the rules of docs/timing.md; the limit is that of the model. Raises
        InputError for a program that cannot be timed."""
        with timing("the program"):
            return profile(self.image, self._compilation)

    def __copy__(self) -> "Program":
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, Any]) -> "Program":
        """A program that can run beside this one. What both only read (graph, weights, image) is shared."""
        twin = Program.__new__(Program)
        twin.__dict__.update({name: value for name, value in self.__dict__.items() if name != "executable"})
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (Stored.of(self.captured), self.options, self.chip, self._model, image_bytes(self.image))

    def _check_unchanged(self) -> None:
        """The image has the weights of the moment when it was made; comparing it with others would mislead."""
        if stamps(self.captured.tensors.values()) != self._weights:
            raise CompileError("the model's weights have changed since it was compiled", hint="compile it again")

    def _float_outputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor] | None:
        if self._model is None:
            return None
        try:
            with as_written():
                return [leaf for leaf in pytree.tree_leaves(self._model(*args, **kwargs)) if isinstance(leaf, Tensor)]
        except (IndexError, RuntimeError) as error:
            raise InputError(
                f"the model itself refuses these inputs: {error}", hint="a token id outside the vocabulary, for example"
            ) from error

    def _metadata(self) -> dict[str, Any]:
        options = {
            name: list(value) if isinstance(value, tuple) else value for name, value in vars(self.options).items()
        }
        versions = {"llmchip": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
        return {
            "model": type(self._model).__name__ if self._model is not None else "",
            "options": options,
            "versions": versions,
        }

    def __repr__(self) -> str:
        inputs = ", ".join(f"{i.name}: {list(i.shape)}" for i in self.captured.inputs)
        outputs = ", ".join(f"{o.name}: {list(o.shape)}" for o in self.captured.outputs)
        return f"Program({inputs} -> {outputs}, chip {self.chip.name})"


def _restored(stored: Stored, options: Options, chip: Chip, model: Any, image: bytes) -> Program:
    """A program that was pickled."""
    program = Program(stored.captured(), options, chip, model)
    program.__dict__["image"] = read_image(image, "the pickled program")
    return program


class Reference:
    """The lowered graph with every chip operator expanded, called like the model and run eagerly.

    Attributes of the graph module (`graph`, `code`, `print_readable` …) are available here too.
    """

    def __init__(self, lowered: Lowered) -> None:
        self._captured = lowered.captured
        with as_written():
            self.graph_module = expand_reference(lowered.main)
        self.constants = lowered.pack_weights()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        inputs = self._captured.flatten(args, kwargs)
        for info, tensor in zip(self._captured.inputs, inputs, strict=True):
            if tuple(tensor.shape) != info.shape:
                raise InputError(
                    f"input '{info.name}' has shape {list(tensor.shape)}, the program was compiled for {list(info.shape)}"
                )
        with as_written():
            return self._captured.unflatten(self.graph_module(*inputs, *self.constants))

    def __getattr__(self, name: str) -> Any:
        if name == "graph_module":  # not set yet
            raise AttributeError(name)
        return getattr(self.graph_module, name)


def compile_model(
    model: Any,
    example_inputs: Sequence[Any] | Mapping[str, Any] | None,
    chip: str | PathLike[str] | Chip,
    options: Mapping[str, Any],
    calibration: Calibration | Iterable[Any] | None = None,
) -> Program:
    """See runtime.api.compile. Raises what it raises."""
    selected, settings = chosen(chip, options)
    with one_line():
        known = calibration_of(model, calibration)
        captured = marked(captured_model(model, example_inputs), settings.quant_config, known)
        program = Program(captured, settings, selected, None if isinstance(model, ExportedProgram) else model)
        program.image  # noqa: B018 - packed now, with the weights as they are now
    return program


def chosen(chip: str | PathLike[str] | Chip, options: Mapping[str, Any]) -> tuple[Chip, Options]:
    """Chip and options as the user names them. Raises what `load_chip` and `Options.from_strings` raise."""
    selected = load_chip(chip)
    return selected, Options.from_strings({**options, "chip": chip if isinstance(chip, str) else selected.name})


@contextmanager
def one_line() -> Iterator[None]:
    """While a model is captured and compiled: alone. Raises an Error whatever goes wrong: the user gets one line, and
    the traceback behind it."""
    try:
        with alone():
            yield
    except Error:
        raise
    except Exception as error:
        raise as_error(error)  # noqa: B904  (it knows its cause)


def captured_model(model: Any, example_inputs: Sequence[Any] | Mapping[str, Any] | None) -> Captured:
    """A module with its example inputs, or an exported program, as a graph. Raises InputError for anything else, and what
    capturing raises."""
    if isinstance(model, ExportedProgram):
        return from_exported(model)
    if not isinstance(model, torch.nn.Module):
        raise InputError(
            f"the model is a {type(model).__name__}", hint="pass a torch.nn.Module or a torch.export.ExportedProgram"
        )
    if example_inputs is None:
        raise InputError("example inputs are missing", hint="pass a tuple of positional or a dict of keyword arguments")
    if isinstance(example_inputs, Mapping):
        return capture(model, (), dict(example_inputs))
    if isinstance(example_inputs, (tuple, list)):
        return capture(model, tuple(example_inputs))
    raise InputError(
        f"example inputs are a {type(example_inputs).__name__}",
        hint="pass a tuple of positional or a dict of keyword arguments",
    )
