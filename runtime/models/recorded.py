"""What an image says of its model. It is shown; it is acted on only where that is data alone and runs no code: a bundled
name, a folder of config.json and safetensors, a .pt2 in which nothing is pickled but tensors and numbers.

Everything else (module:factory, folders and .pt2 files that bring code or pickles) is used only when the user names it
on the command line.
"""

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from isa.errors import ImageError, ModelError
from isa.image.image import Image
from runtime.models.config_json import code_in
from runtime.models.exported import check_exported
from runtime.models.models import BUNDLED, Recipe

_AT_FAULT = "the program that wrote this image is at fault; compile the model again"
_MOST = 2**63


class Record(Struct, frozen=True):
    """The metadata of an image that something here reads, in their types."""

    model: str = ""
    recipe: dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    weights_sha256: str | None = None
    tokenizer: str | None = None
    labels: tuple[str, ...] | None = None
    versions: dict[str, str] | None = None


def record_of(image: Image, path: str) -> Record:
    """Raises ImageError for metadata of other types."""
    try:
        return msgspec.convert(image.metadata, Record)
    except msgspec.ValidationError as error:
        raise ImageError(f"section metadata: {error}", path, _AT_FAULT) from error


def recorded_recipe(image: Image, path: str) -> Recipe | None:
    """How the image's model was built, in the types of a Recipe; None if it is not recorded. Raises ImageError for a
    record of other types."""
    record = record_of(image, path).recipe
    if not record:
        return None
    try:
        recipe = msgspec.convert(
            {name: value for name, value in record.items() if name in Recipe.__dataclass_fields__}, Recipe
        )
    except msgspec.ValidationError as error:
        raise ImageError(f"section metadata: recipe: {error}", path, _AT_FAULT) from error
    if not all(0 <= (number or 0) < _MOST for number in (recipe.random_weights, recipe.seed)):
        raise ImageError("section metadata: recipe: a seed is no number of 63 bits", path, _AT_FAULT)
    return recipe


def check_recorded(
    argument: str, path: str, remedy: str = "if you trust that model, name it on the command line with --model MODEL"
) -> None:
    """Raise ModelError unless what is recorded can be used without running anything that comes with it."""
    if argument in BUNDLED:
        return
    try:
        if Path(argument).suffix == ".pt2":
            check_exported(argument)
            return
        reason = code_in(Path(argument)) if Path(argument).is_dir() else "it is no folder"
    except ModelError as error:
        reason = error.what
    if reason:
        raise ModelError(
            f"the image records the model '{argument}', which is not loaded on its word: {reason}", path, remedy
        )
