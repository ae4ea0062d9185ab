"""A saved program, without PyTorch: named numpy arrays in, named numpy arrays out."""

from os import PathLike
from typing import Any

from emulator.budget import DEFAULT
from isa.chip import Chip
from isa.errors import InputError
from isa.image.image import Image
from isa.image.records import TensorSpec
from isa.image.steps import DECODER_TOKENS, TOKENS, steps
from runtime.device.arrays import Array
from runtime.device.decoder import Decoder
from runtime.device.executable import Executable
from runtime.device.program_file import open_program
from runtime.device.session import Session, greedy
from runtime.device.source_session import SourceSession
from runtime.inspected import Inspected


class Loaded(Inspected):
    """An image ready to run: `loaded(input_ids=ids)["last_hidden_state"]`."""

    def __init__(self, image: Image, max_instructions: int | None = DEFAULT) -> None:
        self.image = image
        self._executable = Executable(image, max_instructions=max_instructions)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Name, shape and type of each input."""
        return self.image.entry().inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Name, shape and type of each output."""
        return self.image.entry().outputs

    @property
    def metadata(self) -> dict[str, Any]:
        """Where the image came from: model, options, hash of the weights, versions."""
        return self.image.metadata

    def __call__(self, *given: Array, **arrays: Array) -> dict[str, Array]:
        """Run on the emulated chip, inputs in order or by name. bfloat16 arrays are uint16 bit patterns.

        Raises InputError for inputs that are missing, unknown, too many or of another type or shape.
        """
        names = [spec.name for spec in self.inputs]
        if len(given) > len(names):
            raise InputError(
                f"{len(given)} inputs are given", hint=f"the program takes {len(names)}: {_signature(self.inputs)}"
            )
        placed = dict(zip(names, given, strict=False))
        if twice := placed.keys() & arrays.keys():
            raise InputError(f"input '{min(twice)}' is given twice", hint="by place and by name")
        return self._executable({**placed, **arrays})

    def __repr__(self) -> str:
        return f"Loaded({_signature(self.inputs)} -> {_signature(self.outputs)})"


class LoadedDecoder(Loaded):
    """A language model's image: `loaded(input_ids=ids)["logits"]`, `loaded.generate(ids, 20)`, `loaded.new_session()`.

    Tokens are chosen greedily: sampling needs PyTorch (`llmchip.compile`).
    """

    def __init__(self, image: Image, max_instructions: int | None = DEFAULT) -> None:
        super().__init__(image, max_instructions)
        self._decoder = Decoder(self._executable)

    def __call__(self, *given: Array, **arrays: Array) -> dict[str, Array]:
        """Logits [B, T, vocabulary] float32 of `input_ids` [B, T], any number of tokens up to the capacity, in a fresh
        session; `attention_mask` may say which count. Raises InputError for what does not fit."""
        names = (TOKENS, "attention_mask")
        placed = dict(zip(names, given, strict=False))
        for name in (*arrays, *("a third input" for _ in given[2:])):
            if name in placed or name not in names:
                raise InputError(f"input '{name}' is unknown or given twice", hint=f"the inputs are {', '.join(names)}")
        placed |= arrays
        if TOKENS not in placed:
            raise InputError(f"input '{TOKENS}' is missing")
        return {"logits": self.new_session().prefill(placed[TOKENS], placed.get("attention_mask"))}

    def new_session(self) -> Session[Array]:
        """An empty session."""
        return Session(self._decoder, lambda array: array, greedy(self._decoder))

    def generate(self, input_ids: Array, max_new_tokens: int, attention_mask: Array | None = None) -> Array:
        """`input_ids` [B, T] and up to `max_new_tokens` more, [B, T + n] int64, in a session of their own. Raises
        InputError for what does not fit."""
        return self.new_session().generate(input_ids, max_new_tokens, attention_mask)

    def __repr__(self) -> str:
        decoder = self._decoder
        return (
            f"{type(self).__name__}(batch {decoder.batch}, {decoder.capacity} tokens, vocabulary {decoder.vocabulary})"
        )


class LoadedEncoderDecoder(LoadedDecoder):
    """An encoder-decoder's image: `loaded.generate(source, 20)`, `loaded.new_session()`."""

    def __call__(self, *given: Array, **arrays: Array) -> dict[str, Array]:
        """Logits [B, T, vocabulary] float32 of `decoder_input_ids` [B, T] behind what the encoder takes, by name, in a
        fresh session. Raises InputError for what does not fit."""
        if given or DECODER_TOKENS not in arrays:
            raise InputError(f"input '{DECODER_TOKENS}' is missing", hint="inputs are given by name")
        session = self.new_session()
        session.encode(**{name: array for name, array in arrays.items() if name != DECODER_TOKENS})
        return {"logits": session.prefill(arrays[DECODER_TOKENS])}

    def new_session(self) -> SourceSession[Array]:
        """A session without a source."""
        return SourceSession(self._decoder, lambda array: array, greedy(self._decoder))


def _signature(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{spec.name}: {spec.dtype}{list(spec.shape)}" for spec in specs)


def load(path: str | PathLike[str], chip: Chip | str | None = None, max_instructions: int | None = DEFAULT) -> Loaded:
    """Load an image file, or assemble a text that ends in `.s` or `.asm`. With `chip`, one built for another chip is
    refused. Raises ImageError for a file that is damaged or of another version or chip, AssemblyError for a bad text,
    InputError for a limit below 1.

    A launch of more than `max_instructions` ends with OverBudget (None: without a limit).
    """
    if max_instructions is not None and (not isinstance(max_instructions, int) or max_instructions < 1):
        raise InputError(
            f"max_instructions is {max_instructions!r}", hint="a number of at least 1, or None for no limit"
        )
    image = open_program(path, chip)
    known = steps(image)
    kind = Loaded if not known else LoadedEncoderDecoder if known[0].source else LoadedDecoder
    return kind(image, max_instructions)
