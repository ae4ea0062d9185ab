"""A language model of a GGUF file as an image, from the cache if it was compiled before."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from compiler.options import Options
from isa.chip import Chip
from isa.errors import InputError, ModelError
from isa.image.image import Image
from runtime.models.gguf_tokenizer import language
from runtime.models.models import import_transformers
from runtime.pytorch import cache

if TYPE_CHECKING:
    from compiler.frontend.gguf.file import GgufFile

CHUNK = 32  # tokens of a prefill step
CONTEXT = 1024


def gguf_image(path: Path, name: str, context: int | None, options: Options, chip: Chip) -> Image:
    """The image of one sequence of up to `context` tokens (default: CONTEXT, or what the model has); its metadata have
    the tokenizer, and `name` as the model.

    Raises ModelError for a file that cannot be used, InputError for a context that the model does not have."""
    from compiler.frontend.gguf.file import open_gguf

    try:
        with open_gguf(path) as file:
            most = _positions(file)
            if context is not None and context > most:
                raise InputError(f"a context of {context} tokens; the model has {most} positions", file.where)
            image = _kept(path, file, min(context or CONTEXT, most), options, chip)
    except OSError as error:
        raise ModelError(f"cannot read the file: {error.strerror or error}", str(path)) from error
    return replace(image, metadata={**image.metadata, "model": name})


def _positions(file: "GgufFile") -> int:
    """Tokens that a text may have."""
    found = file.metadata.get(f"{file.metadata.get('general.architecture')}.context_length")
    if not isinstance(found, int) or found < 1:
        raise ModelError("the file does not say how many tokens a text may have", file.where)
    return found


def _kept(path: Path, file: "GgufFile", context: int, options: Options, chip: Chip) -> Image:
    key = cache.key_of_file(path, options, chip, context, CHUNK)
    image = cache.find(key)
    if image is None:
        start = time.perf_counter()
        texts = language(file.metadata, file.where)
        image = _compiled(file, context, options, chip)
        image = replace(image, metadata={**image.metadata, **texts})
        cache.keep(key, image, time.perf_counter() - start)
    return image


def _compiled(file: "GgufFile", context: int, options: Options, chip: Chip) -> Image:
    import_transformers()
    import torch

    from compiler.frontend.gguf.model import causal_lm
    from runtime.language_model import compile_decoder

    model = causal_lm(file)
    example = {"input_ids": torch.zeros(1, min(CHUNK, context), dtype=torch.int64)}
    others = {name: value for name, value in vars(options).items() if name != "chip"}
    return compile_decoder(model, example, context, chip, others, cached=False).image  # kept under the file's name
