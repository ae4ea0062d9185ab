"""A language model of transformers, compiled: a decoder alone, or one behind an encoder."""

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any

from compiler.frontend.calibration import Calibration, marked
from compiler.frontend.decoder_sources import has_encoder
from isa.chip import Chip
from runtime.calibration import calibration_of
from runtime.decoder_program import DecoderProgram, capture_steps, check_model
from runtime.encoder_decoder_program import EncoderDecoderProgram, capture_entries
from runtime.program import chosen, one_line


def compile_decoder(
    model: Any,
    example_inputs: Any,
    max_length: int,
    chip: str | PathLike[str] | Chip,
    options: Mapping[str, Any],
    cached: bool = True,
    calibration: Calibration | Iterable[Any] | None = None,
) -> DecoderProgram:
    """See runtime.api.compile. Raises what it raises."""
    selected, settings = chosen(chip, options)
    with one_line():
        check_model(model, max_length)
        kind, capture = (
            (EncoderDecoderProgram, capture_entries) if has_encoder(model) else (DecoderProgram, capture_steps)
        )
        known, steps = calibration_of(model, calibration), capture(model, example_inputs, max_length)
        steps = {name: marked(step, settings.quant_config, known) for name, step in steps.items()}
        program = kind(model, steps, settings, selected, cached)
        program.image  # noqa: B018 - packed now, with the weights as they are now
    return program
