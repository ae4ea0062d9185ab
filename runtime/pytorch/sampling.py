"""How a language model chooses tokens: transformers' own configuration and logits processors, on the chip's logits.

The model says what it does by default (`generation_config`), the user's options go before; `generator` is a
torch.Generator for `do_sample`, else PyTorch's own is used, as `model.generate` does.
"""

from typing import Any

import numpy as np
import torch
from torch import nn

from isa.errors import InputError
from runtime.device.arrays import Array
from runtime.device.decoder import Decoder
from runtime.device.session import Sample, Sampling
from runtime.pytorch.tensors import to_array

_ALONE = ("num_beams", "num_beam_groups", "num_return_sequences")  # more than one needs a search, not a choice


def sampler(model: nn.Module) -> Sample:
    """What sessions of this model (a PreTrainedModel) choose tokens by."""

    def sample(
        texts: Array, padding: Array, new: int, generator: torch.Generator | None = None, **options: Any
    ) -> Sampling:
        config = _config(model, {**options, "max_new_tokens": new})
        count = texts.shape[1]
        mask = torch.from_numpy(np.arange(count) >= padding[:, None]).long()
        config.max_length = count + new
        given = {"input_ids_seq_length": count, "device": "cpu", "model_kwargs": {"attention_mask": mask}}
        try:
            model._prepare_special_tokens(config, True, device="cpu")  # type: ignore[operator]
            processors = model._get_logits_processor(config, **given)  # type: ignore[operator]
        except (TypeError, ValueError) as error:
            raise InputError(f"these options of sampling cannot be used: {str(error).splitlines()[0]}") from error

        def choose(texts: Array, logits: Array) -> Array:
            scores = processors(torch.from_numpy(texts).long(), torch.from_numpy(logits).clone())
            return _drawn(scores, generator) if config.do_sample else to_array(scores.argmax(-1))

        pad = config._pad_token_tensor
        return Sampling(choose, ends_of(config.eos_token_id), 0 if pad is None else int(pad))

    return sample


def drawing(decoder: Decoder, temperature: float, top_k: int | None, top_p: float | None, seed: int) -> Sample:
    """The same without the model: tokens are drawn from an image's logits, as `model.generate(do_sample=True)` with these
    options draws them after `torch.manual_seed(seed)`. One generator for all answers of a conversation."""
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    processors = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    processors += [TopKLogitsWarper(top_k)] if top_k is not None else []
    processors += [TopPLogitsWarper(top_p)] if top_p is not None else []
    generator = torch.Generator().manual_seed(seed)

    def choose(texts: Array, logits: Array) -> Array:
        return _drawn(processors(torch.from_numpy(texts).long(), torch.from_numpy(logits).clone()), generator)

    def sample(_texts: Array, _padding: Array, _new: int) -> Sampling:
        return Sampling(choose, decoder.ends, decoder.pad)

    return sample


def _drawn(scores: torch.Tensor, generator: torch.Generator | None) -> Array:
    """A token [B] of scores [B, vocabulary], each with its probability."""
    return to_array(torch.multinomial(torch.softmax(scores, -1), 1, generator=generator)[:, 0])


def ends_of(eos: int | list[int] | None) -> tuple[int, ...]:
    """The tokens that end a text, of a configuration's `eos_token_id`."""
    return () if eos is None else tuple(eos) if isinstance(eos, (list, tuple)) else (int(eos),)


def _config(model: nn.Module, options: dict[str, Any]) -> Any:
    try:
        config, unused = model._prepare_generation_config(None, **options)  # type: ignore[operator]
    except (TypeError, ValueError) as error:
        raise InputError(f"these options of sampling cannot be used: {str(error).splitlines()[0]}") from error
    if unused:
        raise InputError(f"'{min(unused)}' is no option of generate", hint="temperature, top_k, top_p, do_sample, …")
    for name in _ALONE:
        if (getattr(config, name, None) or 1) != 1:
            raise InputError(f"{name} is {getattr(config, name)}", hint="fork sessions to follow several texts")
    return config
