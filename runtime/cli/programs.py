"""From an argument to a program: a file is opened, a model is compiled. What lint and profile do first."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from isa.errors import InputError
from isa.image.image import Image
from isa.image.records import Entry
from runtime.cli.common import Given, Stages
from runtime.device.memory import check_memory
from runtime.device.program_file import is_assembly, open_program
from runtime.models.models import kind_of
from runtime.models.recorded import record_of

if TYPE_CHECKING:
    from runtime.pytorch.compilation import Compilation


def open_any(
    argument: str, given: Given, stage: Stages, model: str | None = None
) -> "tuple[Image, Compilation | None]":
    """The image, and what the compiler knows of it: nothing for a file, unless `model` is the model that it was
    compiled from. Raises InputError for `model` without a file, and what opening or building raises."""
    if is_assembly(argument) or kind_of(argument) == "image":
        given.check_for_image(argument)
        stage("load the program")
        image = open_program(argument, given.wanted_chip)
        check_memory(image, argument, given.max_memory)
        return image, None if model is None else _compiled(image, argument, model, given, stage)
    if model is not None:
        raise InputError("--model only goes with a file", argument, "leave it out")
    from runtime.cli.session import open_model

    session = open_model(argument, given, stage)
    stage("compile")
    compiled = session.compile()
    stage("pack the weights")
    return compiled.image(metadata=session.metadata()), compiled


def entry_of(image: Image, name: str, path: str) -> Entry:
    """The entry of this name. Raises InputError."""
    for entry in image.entries:
        if entry.name == name:
            return entry
    raise InputError(
        f"there is no entry '{name}'", path, f"its entries are {', '.join(entry.name for entry in image.entries)}"
    )


def scalars_of(entry: Entry, given: Mapping[str, str], path: str) -> dict[str, int]:
    """The scalar arguments of a launch from `NAME=VALUE` options. Raises InputError for one that is missing, unknown, no
    number or out of its range."""
    for name in given:
        if name not in [scalar.name for scalar in entry.scalars]:
            listed = ", ".join(scalar.name for scalar in entry.scalars) or "none"
            raise InputError(f"entry '{entry.name}' has no scalar '{name}'", path, f"its scalars: {listed}")
    found = {}
    for scalar in entry.scalars:
        hint = f"give --scalar {scalar.name}=VALUE, {scalar.minimum} to {scalar.maximum}"
        text = given.get(scalar.name)
        if text is None:
            raise InputError(f"entry '{entry.name}' needs scalar '{scalar.name}'", path, hint)
        if not text.isascii() or not text.isdigit() or not scalar.minimum <= int(text) <= scalar.maximum:
            raise InputError(f"scalar '{scalar.name}' cannot be '{text}'", path, hint)
        found[scalar.name] = int(text)
    return found


def _compiled(image: Image, path: str, model: str, given: Given, stage: Stages) -> "Compilation":
    """The image's model, compiled again for the same shapes."""
    from runtime.cli.session import open_model
    from runtime.cli.verify_verb import recipe_of

    recipe = recipe_of(image, path, model, given)
    session = open_model(recipe.argument, given, stage, recipe, record_of(image, path).options)
    stage("compile")
    compiled = session.compile(image.chip)
    theirs, ours = (
        [(spec.name, tuple(spec.shape)) for spec in specs] for specs in (image.entry().inputs, compiled.lowered.inputs)
    )
    if theirs != ours:
        raise InputError(
            f"the inputs of '{model}' are {ours}, those of the program {theirs}",
            path,
            "name the model that it was compiled from",
        )
    return compiled
