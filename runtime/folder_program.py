"""A language model in a Hugging Face folder as an image that has its tokenizer."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from compiler.options import Options
from isa.chip import Chip
from isa.errors import InputError, ModelError
from isa.files import TEXT_BYTES, read_regular
from isa.image.image import Image
from runtime.gguf_program import CHUNK, CONTEXT
from runtime.models.examples import part_of
from runtime.models.language import SPECIAL, TEMPLATE, TOKENIZER
from runtime.models.models import Means, Recipe, folder_of, language_model
from runtime.models.tokenize import read_tokenizer


def folder_image(recipe: Recipe, context: int | None, options: Options, chip: Chip, means: Means) -> Image:
    """The image of one sequence of up to `context` tokens (default: CONTEXT, or what the model has); its metadata have
    the tokenizer, if the folder has one, and the folder as the model.

    Raises ModelError for what is no language model, InputError for a context that the model does not have."""
    import torch

    from runtime.language_model import compile_decoder

    model: Any = language_model(recipe, means)
    if not model.can_generate():
        raise ModelError(
            f"{type(model).__name__} is no language model", recipe.argument, "leave the prompt or context out"
        )
    most = int(part_of(model.config, "max_position_embeddings", 0)) or (context or CONTEXT)
    if context is not None and context > most:
        raise InputError(f"a context of {context} tokens; the model has {most} positions", recipe.argument)
    context = min(context or CONTEXT, most)
    example = {"input_ids": torch.zeros(1, min(CHUNK, context), dtype=torch.int64)}
    others = {name: value for name, value in vars(options).items() if name != "chip"}
    image = compile_decoder(model, example, context, chip, others).image
    texts = texts_of(folder_of(recipe.argument))
    return replace(image, metadata={**image.metadata, **texts, "model": recipe.argument})


def texts_of(folder: Path) -> dict[str, Any]:
    """What an image records of a folder's texts (see runtime.models.language); nothing if it has no tokenizer."""
    if not (folder / "tokenizer.json").is_file():
        return {}
    config, template = {}, folder / "chat_template.jinja"
    if (folder / "tokenizer_config.json").is_file():
        config = _object(folder / "tokenizer_config.json")
    text = _text(template) if template.is_file() else config.get("chat_template")
    special = {}
    for name in ("bos_token", "eos_token"):
        token = config.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            special[name] = token
    return {TOKENIZER: read_tokenizer(folder), TEMPLATE: text if isinstance(text, str) else "", SPECIAL: special}


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"cannot read {path.name}: {' '.join(str(error).split())[:200]}", str(path.parent)) from error
    if not isinstance(found, dict):
        raise ModelError(f"{path.name} holds no object", str(path.parent))
    return found


def _text(path: Path) -> str:
    try:
        return str(read_regular(path, TEXT_BYTES), "utf-8")
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())[:200]
        raise ModelError(f"cannot read {path.name}: {what}", str(path.parent)) from error
