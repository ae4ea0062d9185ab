"""A compiled language model: called like the model, and it generates; its caches stay on the chip.

program = llmchip.compile(model, {"input_ids": ids}, max_length=1024)
program(input_ids=ids).logits          program.generate(ids, 20)          program.new_session()
"""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from compiler.entries import CompiledEntries, compile_entries
from compiler.frontend.capture import Captured
from compiler.options import Options
from isa.chip import Chip
from isa.errors import CompileError, InputError
from isa.image.image import Image, write_image
from isa.image.steps import ENDS, PAD, TOKENS
from runtime.device.decoder import Decoder
from runtime.device.executable import Executable
from runtime.device.session import Session
from runtime.inspected import Inspected
from runtime.profile.profile import Profile, profile, timing
from runtime.pytorch.decoder_image import image_key, steps_of, stored_image
from runtime.pytorch.sampling import ends_of, sampler
from runtime.pytorch.tensors import to_tensor, weights_sha256
from runtime.pytorch.weights import stamps
from runtime.verify.steps import StepsVerification, verify_steps
from runtime.version import __version__

CHUNK = 256  # tokens of a prefill step at most: its intermediate values must fit, and what is shorter is padded


class DecoderProgram(Inspected):
    """`program(input_ids=ids).logits` runs on the emulated chip, for any number of tokens up to the capacity."""

    def __init__(
        self, model: nn.Module, steps: Mapping[str, Captured], options: Options, chip: Chip, cached: bool = True
    ) -> None:
        """`cached`: the image is kept in the cache."""
        self.options, self.chip, self._model, self._steps = options, chip, model, dict(steps)
        self._cached = cached
        self._weights = self._stamps()

    @property
    def captured_steps(self) -> Mapping[str, Captured]:
        """The graphs of its steps."""
        return self._steps

    @cached_property
    def compiled(self) -> CompiledEntries:
        """What the compiler made: one program for each step."""
        return compile_entries(self._steps, self.options, self.chip)

    @cached_property
    def image(self) -> Image:
        """Programs, packed weights, interface and debug map, from the cache if they were compiled before; `save` writes
        it."""
        key = image_key(self._steps, self.options, self.chip) if self._cached else None
        return replace(stored_image(key, lambda: self.compiled.image()), metadata=self._metadata())

    @cached_property
    def _decoder(self) -> Decoder:
        return Decoder(Executable(self.image))

    def new_session(self) -> Session[Tensor]:
        """An empty session. All sessions of a program share its weights and take turns on its chip."""
        return Session(self._decoder, lambda array: to_tensor(array, array.dtype.name), sampler(self._model))

    def __call__(self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **options: Any) -> Any:
        """What the model returns, with `logits` [B, T, vocabulary] float32 and nothing else, in a session of its own.

        Raises InputError for what does not fit, and for other options of the model.
        """
        from transformers.modeling_outputs import CausalLMOutputWithPast

        for name, value in options.items():
            if value is not None and (name, value) not in (("use_cache", False), ("return_dict", True)):
                raise InputError(f"unknown input '{name}'", hint="the inputs are input_ids and attention_mask")
        if input_ids is None:
            raise InputError("input 'input_ids' is missing")
        return CausalLMOutputWithPast(logits=self.new_session().prefill(input_ids, attention_mask))

    def generate(
        self, input_ids: Tensor, max_new_tokens: int, attention_mask: Tensor | None = None, **sampling: Any
    ) -> Tensor:
        """`input_ids` [B, T] and up to `max_new_tokens` more, [B, T + n] int64, as `model.generate` with the same
        options would choose them on these logits; in a session of their own. Raises InputError for what does not
        fit."""
        return self.new_session().generate(input_ids, max_new_tokens, attention_mask, **sampling)

    def save(self, path: str | PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Write the image file. `metadata` is added to what the image records of its origin."""
        self._check_unchanged()
        own = {"weights_sha256": weights_sha256(self._model.state_dict())}
        write_image(replace(self.image, metadata={**self.image.metadata, **own, **(metadata or {})}), path)

    def verify(self, input_ids: Tensor, max_new_tokens: int = 8) -> StepsVerification:
        """Prefill and greedy steps on the chip and in PyTorch: logits, most likely tokens and caches, bit for bit, after
        every step. Raises InputError for what does not fit."""
        self._check_unchanged()
        lowered = {name: compiled.lowered for name, compiled in self.compiled.programs.items()}
        return verify_steps(self.image, lowered, input_ids, max_new_tokens)

    def profile(self, entry: str | None = None, scalars: Mapping[str, int] | None = None) -> Profile:
        """Where the cycles and the energy of a step go (default: the first entry), with these scalars, as
        {"positions.0": 100}; others take their maximum. Raises InputError for an entry or a scalar that it does not
        have."""
        names = [found.name for found in self.image.entries]
        if entry is not None and entry not in names:
            raise InputError(f"there is no entry '{entry}'", hint=f"the entries are {', '.join(names)}")
        known = {scalar.name: scalar for scalar in self.image.entry(entry).scalars}
        for name, value in (scalars or {}).items():
            if name not in known:
                raise InputError(f"there is no scalar '{name}'", hint=f"the scalars are {', '.join(known)}")
            low, high = known[name].minimum, known[name].maximum
            if not low <= value <= high:
                raise InputError(f"scalar '{name}' is {value}", hint=f"it goes from {low} to {high}")
        with timing("the program"):
            return profile(self.image, entry=entry, values=scalars)

    def _stamps(self) -> Any:
        return stamps(tensor for step in self._steps.values() for tensor in step.tensors.values())

    def _check_unchanged(self) -> None:
        """The image has the weights of the moment when it was made; comparing it with others would mislead."""
        if self._stamps() != self._weights:
            raise CompileError("the model's weights have changed since it was compiled", hint="compile it again")

    def _metadata(self) -> dict[str, Any]:
        options = {
            name: list(value) if isinstance(value, tuple) else value for name, value in vars(self.options).items()
        }
        config: Any = getattr(self._model, "generation_config", None)
        ends = ends_of(getattr(config, "eos_token_id", None))
        pad = getattr(config, "pad_token_id", None)
        return {
            "model": type(self._model).__name__,
            "options": options,
            "versions": {"llmchip": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
            ENDS: list(ends),
            PAD: pad if pad is not None else ends[0] if ends else 0,
        }

    def __repr__(self) -> str:
        decoder = self._decoder
        tokens = ", ".join(dict.fromkeys(str(step.tokens) for step in decoder.steps))
        return (
            f"DecoderProgram({type(self._model).__name__}, batch {decoder.batch}, {decoder.capacity} tokens, "
            f"in steps of {tokens}, chip {self.chip.name})"
        )


def capture_steps(model: Any, example_inputs: Any, max_length: int) -> dict[str, Captured]:
    """The steps of a language model, by the names of their entries: batch and chunk are those of the example, caches
    have room for `max_length` tokens. Raises InputError for arguments that do not fit, UnsupportedError for the
    model."""
    check_model(model, max_length)
    batch, tokens = _example(example_inputs)
    chunk = min(tokens, CHUNK)
    if chunk > max_length:
        raise InputError(
            f"the example has {tokens} tokens, max_length is {max_length}", hint="give a larger max_length"
        )
    return steps_of(model, batch, chunk, max_length)


def check_model(model: object, max_length: object) -> None:
    """Raise InputError for what is no language model, or no length."""
    if not isinstance(model, nn.Module) or not hasattr(model, "generation_config"):
        raise InputError(
            f"max_length is given, but {type(model).__name__} is no language model of transformers",
            hint="pass an AutoModelForCausalLM, or leave max_length out",
        )
    if isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 1:
        raise InputError(f"max_length is {max_length!r}", hint="a number of tokens, at least 1")


def _example(given: Any) -> Sequence[int]:
    ids = given.get(TOKENS) if isinstance(given, Mapping) else given[0] if isinstance(given, (tuple, list)) else given
    if not isinstance(ids, Tensor) or ids.dim() != 2 or not ids.numel() or ids.is_floating_point():
        raise InputError(
            "a language model is compiled for example tokens", hint='pass {"input_ids": ids}, integers [batch, tokens]'
        )
    return tuple(ids.shape)
