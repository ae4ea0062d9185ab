"""A compiled encoder-decoder: translation, summaries, speech. The encoder is an entry of its own; what the layers of
the decoder see of its result stays on the chip.

program = llmchip.compile(model, {"input_ids": source}, max_length=128)
program(input_ids=source, decoder_input_ids=ids).logits          program.generate(source, 20)
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compiler.frontend.capture import Captured
from compiler.frontend.decoder import capture_decoder, capture_source
from isa.errors import InputError
from isa.image.steps import DECODER_TOKENS, ENCODE, START
from runtime.decoder_program import DecoderProgram
from runtime.device.source_session import SourceSession
from runtime.pytorch.sampling import sampler
from runtime.pytorch.tensors import to_tensor
from runtime.verify.steps import StepsVerification, verify_source


class EncoderDecoderProgram(DecoderProgram):
    """`program(input_ids=source, decoder_input_ids=ids).logits` runs on the emulated chip."""

    def new_session(self) -> SourceSession[Tensor]:
        """A session without a source. All sessions of a program share its weights and take turns on its chip."""
        return SourceSession(self._decoder, lambda array: to_tensor(array, array.dtype.name), sampler(self._model))

    def __call__(self, decoder_input_ids: Tensor | None = None, **inputs: Any) -> Any:  # type: ignore[override]
        """What the model returns, with `logits` [B, T, vocabulary] float32 and nothing else, in a session of its own.
        Inputs are given by name. Raises InputError for what does not fit."""
        from transformers.modeling_outputs import Seq2SeqLMOutput

        if decoder_input_ids is None:
            raise InputError(f"input '{DECODER_TOKENS}' is missing")
        session = self.new_session()
        session.encode(**{name: value for name, value in inputs.items() if value is not None})
        return Seq2SeqLMOutput(logits=session.prefill(decoder_input_ids))

    def generate(
        self, input_ids: Tensor, max_new_tokens: int, attention_mask: Tensor | None = None, **sampling: Any
    ) -> Tensor:
        """Texts of a source, `input_ids` or what else the encoder takes first: [B, 1 + n] int64, with up to
        `max_new_tokens` as `model.generate` with the same options would choose them on these logits. Raises InputError
        for what does not fit."""
        return self.new_session().generate(input_ids, max_new_tokens, attention_mask, **sampling)

    def verify(self, inputs: Tensor | Mapping[str, Tensor], max_new_tokens: int = 8) -> StepsVerification:
        """The encoder and greedy steps behind it on the chip and in PyTorch: its results, logits, most likely tokens and
        caches, bit for bit, after every step. Raises InputError for what does not fit."""
        self._check_unchanged()
        lowered = {name: compiled.lowered for name, compiled in self.compiled.programs.items()}
        given = inputs if isinstance(inputs, Mapping) else {lowered[ENCODE].inputs[0].name: inputs}
        return verify_source(self.image, lowered, given, max_new_tokens)

    def _metadata(self) -> dict[str, Any]:
        config: Any = self._model.config
        start = getattr(config, "decoder_start_token_id", None)
        own = super()._metadata()
        return {**own, START: start if start is not None else own["pad"]}


def capture_entries(model: nn.Module, example: object, max_length: int) -> dict[str, Captured]:
    """The encoder and the steps of an encoder-decoder, by the names of their entries: sources are as long as the
    example's, texts go through in chunks as long as its `decoder_input_ids`. Raises InputError for an example that does
    not fit."""
    if not isinstance(example, Mapping) or not all(isinstance(x, Tensor) for x in example.values()):
        raise InputError("an encoder-decoder is compiled for named tensors", hint='pass {"input_ids": ids}')
    source, encode = capture_source(model, example)
    ids = example.get(DECODER_TOKENS, torch.zeros(len(source.pairs[0][0]), 1))
    batch, tokens = ids.shape
    if tokens > max_length:
        raise InputError(f"the example has {tokens} tokens, max_length is {max_length}", hint="give a larger one")
    prefill = {"prefill": capture_decoder(model, batch, tokens, max_length, source)} if tokens > 1 else {}
    return {ENCODE: encode, **prefill, "decode": capture_decoder(model, batch, 1, max_length, source)}
