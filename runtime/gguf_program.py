"""A language model of a GGUF file as an image, from the cache if it was compiled before."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from compiler.options import Options
from isa.chip import load_chip
from isa.errors import InputError, ModelError
from isa.image.image import Image
from runtime.models.gguf_tokenizer import language
from runtime.models.models import import_transformers
from runtime.pytorch import cache

if TYPE_CHECKING:
    from compiler.frontend.gguf.file import GgufFile

CHUNK = 32  # tokens of a prefill step


def gguf_image(path: Path, name: str, context: int, options: Options) -> Image:
    """The image of one sequence of up to `context` tokens; its metadata have the tokenizer, and `name` as the model.

    Raises ModelError for a file that cannot be used, InputError for a context that the model does not have."""
    from compiler.frontend.gguf.file import open_gguf

    chip = load_chip(options.chip)
    try:
        key = cache.key_of_file(path, options, chip, context, CHUNK)
        image = cache.find(key)
        if image is None:
            start = time.perf_counter()
            with open_gguf(path) as file:
                texts = language(file.metadata, file.where)
                image = _compiled(file, context, options)
            image = replace(image, metadata={**image.metadata, **texts})
            cache.keep(key, image, time.perf_counter() - start)
    except OSError as error:
        raise ModelError(f"cannot read the file: {error.strerror or error}", str(path)) from error
    return replace(image, metadata={**image.metadata, "model": name})


def _compiled(file: "GgufFile", context: int, options: Options) -> Image:
    import_transformers()
    import torch

    from compiler.frontend.gguf.model import causal_lm
    from runtime.decoder_program import compile_decoder

    model = causal_lm(file)
    if context > (most := model.config.max_position_embeddings):
        raise InputError(f"a context of {context} tokens; the model has {most} positions", file.where)
    example = {"input_ids": torch.zeros(1, min(CHUNK, context), dtype=torch.int64)}
    others = {name: value for name, value in vars(options).items() if name != "chip"}
    return compile_decoder(model, example, context, options.chip, others).image
