"""config.json of a Hugging Face folder, read as plain values before transformers acts on it."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from isa.errors import ModelError
from isa.files import TEXT_BYTES, read_regular

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_CODE_KEYS = (
    "auto_map",
    "quantization_config",
    "transformers_weights",
)  # code of the folder's own, of a quantizer, another file of weights
_KERNEL = re.compile(r"_?(attn|experts)_implementation(_internal)?")
_MOST = 2**48
_MOST_OF = {
    re.compile(r".*_layers?|.*depth.*"): 1_000,
    re.compile(r"num_.*"): 10_000,
}  # modules: each takes time to make, however little it weighs


def read_config(folder: Path) -> Mapping[str, Any]:
    """The values, within bounds, none naming a kernel from elsewhere. Raises ModelError."""
    where, path = str(folder), folder / "config.json"
    if not path.exists():
        raise ModelError(
            "the folder has no config.json", where, "a Hugging Face folder holds config.json and the weights"
        )
    config = _object(path)
    for key, value in _walk(config):
        if _KERNEL.fullmatch(key) and isinstance(value, str) and not value.isidentifier():
            raise ModelError(
                f"config.json asks for the kernel '{value}'",
                where,
                "only implementations of transformers itself are used",
            )
        most = next((limit for names, limit in _MOST_OF.items() if names.fullmatch(key)), _MOST)
        if isinstance(value, int) and abs(value) > most:
            raise ModelError(f"config.json: {key} is larger than {most}", where, "no such model can be built")
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            "the folder holds an adapter, not a model", where, "merge it into its base model and save that"
        )
    for name in _INDEXES:
        if (folder / name).exists():
            _check_index(folder / name)
    return config


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_regular(path, TEXT_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        what = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())[:200]
        raise ModelError(f"cannot read {path.name}: {what}", str(path.parent), "it is JSON text in UTF-8") from error
    if not isinstance(found, dict):
        raise ModelError(
            f"{path.name} is no JSON object",
            str(path.parent),
            "a Hugging Face folder holds config.json and the weights",
        )
    return found


def _check_index(path: Path) -> None:
    """The files of weights that an index names lie beside it."""
    files = _object(path).get("weight_map")
    if not isinstance(files, dict) or not all(
        isinstance(name, str) and name == Path(name).name for name in files.values()
    ):
        raise ModelError(
            f"{path.name} names files that are not in the folder",
            str(path.parent),
            "weight_map gives the file of each weight",
        )


def code_in(folder: Path) -> str:
    """Why the folder is more than a config.json and safetensors, in a few words; "" if it is not."""
    key = next((key for key, _ in _walk(read_config(folder)) if key in _CODE_KEYS), None)
    if key:
        return f"its config.json has '{key}'"
    return "" if any((folder / name).is_file() for name in _WEIGHTS) else "it has no safetensors"


def largest(config: Mapping[str, Any]) -> int:
    """The largest whole number in it."""
    return max((value for _, value in _walk(dict(config)) if isinstance(value, int)), default=0)


def _walk(value: object) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner)
