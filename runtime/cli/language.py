"""Language models on the command line: their images, compiled for a context."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isa.errors import InputError
from isa.image.image import Image, write_image
from runtime.cli.common import Given, Stages, reply, say, size, stages
from runtime.device.memory import allowed, check_memory
from runtime.device.program_file import open_program
from runtime.models.models import Means, folder_of, kind_of


def language_image(model: str, given: Given, context: int | None, stage: Stages) -> Image:
    """The image in a file, or of a language model in GGUF or a folder. Raises InputError for models of other kinds, and for options
    that do not go with one."""
    kind = kind_of(model)
    if kind == "image":
        stage("load the image")
        given.check_for_image(model, **{"--context": context})
        image = open_program(model, given.wanted_chip)
    elif kind in ("gguf", "folder"):
        stage("load the model, or compile it")
        image = _compiled(model, kind, given, context)
    else:
        raise InputError(
            "only language models in GGUF or a folder, and their images, are given a prompt here",
            model,
            "from Python: llmchip.compile(model, ids, max_length=N).generate(...)",
        )
    check_memory(image, model, given.max_memory)
    return image


def _compiled(model: str, kind: str, given: Given, context: int | None) -> Image:
    from runtime.cli.session import make_options, recipe_for

    wrong: dict[str, object] = {"--seq": given.seq, "--batch": given.batch, "--calibration": given.calibration}
    if kind == "gguf":
        wrong["--class"] = given.class_name
    for flag, value in wrong.items():
        if value is not None:
            raise InputError(f"{flag} does not go with the steps of a language model", model, "leave it out")
    options = make_options(given)
    if kind == "gguf":
        from runtime.gguf_program import gguf_image

        return gguf_image(Path(folder_of(model)), model, context, options, given.target)
    from runtime.folder_program import folder_image

    means = Means(given.trust, allowed(given.max_memory))
    return folder_image(recipe_for(model, given), context, options, given.target, means)


def compile_language(
    model: str, output: str | None, given: Given, context: int | None, switches: Mapping[str, Any], as_json: bool
) -> int:
    """`llmcc compile` of a language model: one program for each of its steps. Raises InputError for switches that show
    one program's passes."""
    for name, value in switches.items():
        if value:
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag} does not go with the steps of a language model", model, "it has several programs")
    with stages("compile") as stage:
        image = language_image(model, given, context, stage)
        stage("write the image")
        write_image(image, str(output))
    count, entries = Path(str(output)).stat().st_size, {e.name: list(e.inputs[0].shape) for e in image.entries}
    document = {
        "file": output,
        "bytes": count,
        "model": model,
        "chip": image.chip.name,
        "words": image.words,
        "entries": entries,
        "seconds": stage.seconds,
    }
    steps = ", ".join(f"{name} {shape[1]}" for name, shape in entries.items())
    line = f"{output}: {size(count)}, {image.words} instructions, steps of tokens: {steps}"
    reply(document, as_json, lambda: say(line))
    return 0
