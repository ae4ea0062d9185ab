"""From arguments to a compiled model with inputs: what compile, run and verify do first. Imports torch inside functions
only."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from isa.chip import Chip
from isa.errors import Error, InputError, ModelError
from isa.image.image import Image
from runtime.cli.common import Given, Stages
from runtime.cli.tensors import read_inputs
from runtime.device.arrays import Array
from runtime.device.memory import allowed
from runtime.models.config_json import read_config
from runtime.models.examples import TEXT_INPUTS, draw
from runtime.models.models import Built, Means, Recipe, build, folder_of, kind_of
from runtime.models.texts import read_texts
from runtime.models.tokenize import Tokens, read_tokenizer, tokenize

if TYPE_CHECKING:
    from torch import Tensor

    from compiler.frontend.capture import Captured
    from compiler.options import Options
    from runtime.pytorch.compilation import Compilation


_MOST_INT = 2**63 - 1
_MOST_TEXTS = 512  # of a calibration


@dataclass(frozen=True)
class CalibrationFile:
    """Texts to calibrate on, and how an image remembers them."""

    path: str
    sha256: str
    texts: tuple[str, ...]

    @classmethod
    def of(cls, path: str) -> "CalibrationFile":
        """Raises InputError for a file without texts."""
        texts, _ = read_texts(path, _MOST_TEXTS)
        return cls(path, hashlib.sha256("\n".join(texts).encode()).hexdigest(), texts)

    def as_dict(self) -> dict[str, str]:
        return {"file": self.path, "sha256": self.sha256}


@dataclass(frozen=True)
class Session:
    """A model, captured, with the inputs that the user gave or that were drawn."""

    built: Built
    captured: "Captured"
    options: "Options"
    chip: Chip
    inputs: "Mapping[str, Tensor]"
    calibration: CalibrationFile | None = None

    def arrays(self) -> dict[str, Array]:
        """The inputs by the names that the program gives them."""
        from runtime.pytorch.tensors import to_array

        tensors = self.captured.flatten((), self.inputs)
        return {info.name: to_array(tensor) for info, tensor in zip(self.captured.inputs, tensors, strict=True)}

    def expected(self) -> "list[Tensor]":
        """What the original model computes, in float."""
        import torch
        from torch.utils import _pytree as pytree

        exported = not isinstance(self.built.model, torch.nn.Module)
        built: Any = self.built.model
        model: Any = built.module(check_guards=False) if exported else built
        args, kwargs = (), self.inputs
        if (
            exported and self.captured.signature is not None
        ):  # positional arguments of an exported program have no other way in
            bound = self.captured.signature.bind(**self.inputs)
            args, kwargs = bound.args, bound.kwargs
        with torch.no_grad():
            return [leaf for leaf in pytree.tree_leaves(model(*args, **kwargs)) if isinstance(leaf, torch.Tensor)]

    @cached_property
    def compilation(self) -> "Compilation":
        from runtime.pytorch.compilation import Compilation

        return Compilation(self.captured, self.options, self.chip)

    def compile(self, chip: Chip | None = None) -> "Compilation":
        """The model for this chip (default: its own). The graph is lowered when it is asked for, the image is in
        the cache or made."""
        from runtime.pytorch.compilation import Compilation

        return self.compilation if chip is None else Compilation(self.captured, self.options, chip)

    def image(self) -> Image:
        """The image, from the cache if it was compiled before."""
        return self.compilation.image(metadata=self.metadata())

    def weights_sha256(self) -> str:
        return self.compilation.weights_sha256()

    def metadata(self) -> dict[str, Any]:
        """What an image records about where it came from."""
        import torch

        from isa.architecture import ISA_VERSION
        from runtime.version import __version__

        options = {name: value for name, value in asdict(self.options).items() if name != "chip"}
        if self.calibration is not None:
            options["calibration"] = self.calibration.as_dict()
        versions = {"llmchip": __version__, "isa": str(ISA_VERSION), "torch": torch.__version__.partition("+")[0]}
        if kind_of(self.built.recipe.argument) == "folder":
            import transformers

            versions["transformers"] = transformers.__version__
        return {
            "model": self.built.recipe.argument,
            "recipe": self.built.recipe.as_dict(),
            "options": options,
            "weights_sha256": self.weights_sha256(),
            "tokenizer": read_tokenizer(folder_of(self.built.tokenizer)) if self.built.tokenizer else "",
            "labels": list(self.built.labels),
            "versions": versions,
        }


def open_model(
    argument: str, given: Given, stage: Stages, recipe: Recipe | None = None, record: Mapping[str, Any] | None = None
) -> Session:
    """Build and capture a model. `recipe` and `record` (options) are those of an image that is verified."""
    options, chip = make_options(given, record), given.target
    stage("load the model")
    example = given_inputs(argument, given)
    built = build(
        recipe or recipe_for(argument, given),
        example,
        texts=bool(given.texts),
        means=Means(given.trust, allowed(given.max_memory)),
    )
    inputs = example if example is not None else draw(built.example, given.seed, built.limits)
    check_limits(inputs, built.limits)
    file = calibration_file(options, given, record)
    stage("capture")
    captured = capture_model(built)
    if options.quant_config.calibrated:
        captured = _marked(captured, built, given, options, file, stage)
    return Session(built, captured, options, chip, inputs, file)


def calibration_file(
    options: "Options", given: Given, record: Mapping[str, Any] | None = None
) -> CalibrationFile | None:
    """The texts that the quantization takes: those of `--calibration`, else those that an image records. Raises
    InputError for a file that is not wanted, cannot be read, or has changed."""
    known = (record or {}).get("calibration")
    if not options.quant_config.calibrated:
        if given.calibration is not None:
            raise InputError(
                f"quantization '{options.quantization}' takes no calibration", given.calibration,
                "leave --calibration out, or add --option quantization=w8a8-dynamic,smoothing=0.5",
            )  # fmt: skip
        return None
    path = given.calibration or (known or {}).get("file")
    if path is None:
        return None  # whoever marks the graph says so
    found = CalibrationFile.of(path)
    if known is not None and found.sha256 != known.get("sha256"):
        raise InputError(
            "these are not the texts that the image was calibrated on", path, "name them with --calibration FILE"
        )
    return found


def _marked(
    captured: "Captured", built: Built, given: Given, options: "Options", file: CalibrationFile | None, stage: Stages
) -> "Captured":
    """The captured model with what its quantization knows of the texts. Raises InputError, and what `marked` raises."""
    import torch

    from compiler.frontend.calibration import marked
    from runtime.calibration import calibrate

    calibration = None
    if file is not None:
        stage("calibrate")
        argument, names = built.recipe.argument, list(built.example)
        texts = (tokenize_for(argument, replace(given, texts=(text,), seq=None, batch=None)) for text in file.texts)
        inputs = (
            {name: torch.from_numpy(array) for name, array in tokens.inputs(TEXT_INPUTS).items() if name in names}
            for tokens in texts
        )
        calibration = calibrate(built.model, inputs)
    return marked(captured, options.quant_config, calibration)


def recipe_for(argument: str, given: Given) -> Recipe:
    """How a MODEL is built, as the user said."""
    return Recipe(argument, given.class_name, given.random_weights, given.task, given.seq, given.batch, given.seed)


def make_options(given: Given, record: Mapping[str, Any] | None = None) -> "Options":
    from compiler.options import Options

    known = {
        key: value for key, value in (record or {}).items() if key in Options.__dataclass_fields__ and key != "chip"
    }  # the image has its own
    base = Options.from_strings(known) if known else Options()
    return Options.from_strings(given.option or {}, replace(base, chip=given.chip or base.chip))


def capture_model(built: Built) -> "Captured":
    """The model's graph. Raises ModelError for an exported program on which PyTorch's own passes fail."""
    from torch import nn

    from compiler.frontend.capture import capture, from_exported

    if isinstance(built.model, nn.Module):
        return capture(built.model, (), built.example)
    try:
        return from_exported(built.model)
    except Error:
        raise
    except Exception as error:  # whatever a graph that no export made raises in PyTorch's own passes
        what = " ".join(str(error).split())[:200]
        raise ModelError(
            f"the exported program cannot be used: {type(error).__name__}: {what}",
            built.recipe.argument,
            "is it of this PyTorch?",
        ) from error


def given_inputs(argument: str, given: Given) -> "dict[str, Tensor] | None":
    """The inputs of `--text` or `--input` as tensors, or None. Raises InputError for both, and for files that do not
    fit the model."""
    import torch

    if given.texts and given.inputs:
        raise InputError("--text and --input do not go together", hint="give texts or tensors")
    if given.texts:
        tokens = tokenize_for(argument, given)
        return {name: torch.from_numpy(array) for name, array in tokens.inputs(text_inputs(argument, given)).items()}
    if given.inputs:
        arrays = read_inputs(given.inputs)
        return {name: torch.from_numpy(_signed(name, array)) for name, array in arrays.items()}
    return None


def _signed(name: str, array: Array) -> Array:
    """PyTorch does little with unsigned integers of more than 8 bits."""
    if array.dtype.kind != "u" or array.dtype == np.uint8:
        return array
    if array.size and int(array.max()) > _MOST_INT:
        raise InputError(
            f"input '{name}' holds {int(array.max())}, more than {_MOST_INT}", hint="the chip keeps integers in 32 bits"
        )
    return array.astype(np.int64)


def text_inputs(argument: str, given: Given) -> tuple[str, ...]:
    """Which of the tokenizer's results the model takes."""
    return TEXT_INPUTS


def tokenize_for(argument: str, given: Given) -> Tokens:
    """The texts as token ids. Raises ModelError for what has no tokenizer, InputError for texts that do not fit."""
    if kind_of(argument) != "folder":
        raise ModelError(
            "only a Hugging Face folder has a tokenizer", argument, "give tensors with --input NAME=FILE.npy"
        )
    folder = folder_of(argument)
    try:
        limit = int(read_config(folder).get("max_position_embeddings") or 0)
    except (ModelError, ValueError, TypeError):
        limit = 0  # the model loader says what is wrong with config.json
    if given.batch and given.batch < len(given.texts):
        raise InputError(f"{len(given.texts)} texts do not fit --batch {given.batch}", hint="leave --batch out")
    return tokenize(read_tokenizer(folder), given.texts, given.seq, limit, given.batch)


def check_limits(inputs: "Mapping[str, Tensor]", limits: Mapping[str, int]) -> None:
    """Raises InputError for ids that are in no table, before the reference trips over them."""
    for name, limit in limits.items():
        tensor = inputs.get(name)
        if tensor is None or not limit or tensor.is_floating_point() or not tensor.numel():
            continue
        low, high = int(tensor.min()), int(tensor.max())
        if low < 0 or high >= limit:
            bad = low if low < 0 else high
            raise InputError(
                f"input '{name}' holds {bad}, outside 0 to {limit - 1}", hint="are the ids from this model's tokenizer?"
            )


def image_tokenizer(image: Image, path: str) -> str:
    """The text of the tokenizer.json that an image holds. Raises InputError when there is none."""
    text = image.metadata.get("tokenizer")
    if not isinstance(text, str) or not text:
        raise InputError("the image holds no tokenizer", path, "give token ids with --input NAME=FILE.npy")
    return text
