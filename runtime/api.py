"""What `llmchip` offers, with PyTorch imported only by what needs it.

program = llmchip.compile(model, {"input_ids": ids}); program(input_ids=ids); program.save("model.llmchip")
llmchip.load("model.llmchip")(input_ids=ids.numpy())
"""

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, overload

from isa.chip import Chip
from isa.chip import load_chip as chip
from runtime.device.loaded import Loaded, load

if TYPE_CHECKING:
    from compiler.frontend.calibration import Calibration
    from compiler.pipeline import Compiled
    from isa.image.image import Image
    from runtime.decoder_program import DecoderProgram
    from runtime.program import Program
    from runtime.verify.verify import Verification

__all__ = ["Loaded", "chip", "compile", "load", "verify_image"]


@overload
def compile(
    model: Any,
    example_inputs: tuple[Any, ...] | Mapping[str, Any] | None = None,
    *,
    max_length: None = None,
    chip: str | PathLike[str] | Chip = "edge",
    calibration: "Calibration | Iterable[Any] | None" = None,
    **options: Any,
) -> "Program": ...


@overload
def compile(
    model: Any,
    example_inputs: tuple[Any, ...] | Mapping[str, Any],
    *,
    max_length: int,
    chip: str | PathLike[str] | Chip = "edge",
    calibration: "Calibration | Iterable[Any] | None" = None,
    **options: Any,
) -> "DecoderProgram": ...


def compile(
    model: Any,
    example_inputs: tuple[Any, ...] | Mapping[str, Any] | None = None,
    *,
    max_length: int | None = None,
    chip: str | PathLike[str] | Chip = "edge",
    calibration: "Calibration | Iterable[Any] | None" = None,
    **options: Any,
) -> "Program | DecoderProgram":
    """Compile a module for these example inputs: a tuple of positional or a dict of keyword arguments.

        program = llmchip.compile(model, {"input_ids": ids}, chip="server")

    The example fixes shapes and types, not values; weights are packed as they are now. `model` may also be a
    torch.export.ExportedProgram, which has its own example. `chip` is a stock name, the path of a chip file, or a Chip;
    `options` are those of `llmcc compile --option`. The image comes from the cache if it was made before.

    With `max_length` a causal language model of transformers becomes a program that generates: its caches stay on the
    chip, with room for so many tokens of each sequence. Prompts go through it in chunks as long as the example.

    `quantization` is a QuantConfig or its text (docs/quantization.md). Some take a `calibration`: inputs of the model,
    each a tuple, a dict or a tensor, on which it is run in float first; or what `llmchip.calibrate` gave.

    Raises UnsupportedError for what the chip does not have, with the model's line; InputError for a model, an example or
    an option that cannot be used; ChipError for a chip that is none.
    """
    if max_length is not None:
        from runtime.language_model import compile_decoder

        return compile_decoder(model, example_inputs, max_length, chip, options, calibration=calibration)
    from runtime.program import compile_model

    return compile_model(model, example_inputs, chip, options, calibration)


def verify_image(
    image: "Image", compiled: "Compiled", inputs: Mapping[str, Any], expected: Any = None
) -> "Verification":
    """Run the image's own code and compare every node it names with the lowered graph, run by PyTorch. See
    runtime.verify.verify."""
    from runtime.verify.verify import verify_image as run

    return run(image, compiled, inputs, expected)
