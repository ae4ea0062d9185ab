"""Sessions behind an encoder: texts that a decoder writes of a source.

session.encode(input_ids=source)          or what else the encoder takes; the texts begin anew
session.generate(source, 20)              the token that begins a text, and 20 more
"""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from isa.errors import InputError
from isa.image.records import TensorSpec
from isa.image.steps import ENCODE, TOKENS
from runtime.device.arrays import Array
from runtime.device.decoder import Decoder
from runtime.device.session import Session

T = TypeVar("T")
MASK = "attention_mask"


class SourceSession(Session[T]):
    """A session whose texts are of a source each. It has none before `encode`."""

    def encode(self, **inputs: object) -> None:
        """See a source for each text, and forget the texts that were there. Tokens are as many as the program has room
        for, or fewer; `attention_mask` is 0 where a shorter one is padded, on the right. Raises InputError for what does
        not fit."""
        given, counts = padded(self._decoder, inputs)
        with self._decoder.executable.idle:
            rows = self._decoder.encode(given)
            self._decoder.release(self)
            self._parked, self._sources = rows, counts
            self._texts = (np.zeros(0, np.int32),) * self._decoder.batch

    @property
    def sources(self) -> tuple[int, ...]:
        """Tokens of each source; of frames, as many as the layers see."""
        return self._sources

    def generate(self, input_ids: object, max_new_tokens: int, attention_mask: object = None, **sampling: object) -> T:
        """See a source, `input_ids` or what else the encoder takes first, and begin texts of it: the token that begins
        them and up to `max_new_tokens` more, [B, 1 + n] int64. Raises InputError for what does not fit."""
        first = names(self._decoder)[0]
        self.encode(**{first: input_ids, **({} if attention_mask is None else {MASK: attention_mask})})
        tokens = np.full((self._decoder.batch, 1), self._decoder.start, np.int32)
        new = list(self.stream(tokens, max_new_tokens, **sampling))
        return self._give(np.concatenate([tokens, *(token[:, None] for token in new)], 1).astype(np.int64))


def names(decoder: Decoder) -> tuple[str, ...]:
    """What an encoder takes, the source itself first."""
    return tuple(spec.name for spec in _inputs(decoder) if spec.name != MASK)


def _inputs(decoder: Decoder) -> tuple[TensorSpec, ...]:
    return decoder.image.entry(ENCODE).inputs


def padded(decoder: Decoder, given: Mapping[str, object]) -> tuple[dict[str, Array], tuple[int, ...]]:
    """The inputs of the encoder, tokens padded to the length that it has, and how many of them there are. Raises
    InputError for what does not fit."""
    if TOKENS not in names(decoder):
        return {name: np.asarray(value) for name, value in given.items()}, (decoder.source,) * decoder.batch
    if unknown := given.keys() - {TOKENS, MASK} or {TOKENS} - given.keys():
        raise InputError(f"input '{min(unknown)}' is unknown or missing", hint=f"the encoder takes {TOKENS} and {MASK}")
    tokens = np.asarray(given[TOKENS])
    mask = np.ones(tokens.shape, np.int64) if given.get(MASK) is None else np.asarray(given[MASK])
    if tokens.ndim != 2 or mask.shape != tokens.shape or len(tokens) != decoder.batch or tokens.dtype.kind not in "iu":
        raise InputError(
            f"the source is {tokens.dtype.name}{list(tokens.shape)}, its mask {list(mask.shape)}",
            hint=f"pass integers [{decoder.batch}, tokens]",
        )
    counts = (mask != 0).sum(1)
    if tokens.shape[1] > decoder.source:
        raise InputError(
            f"a source of {tokens.shape[1]} tokens; the program has room for {decoder.source}",
            hint="compile the model with a longer example",
        )
    if not counts.all() or ((np.arange(tokens.shape[1]) < counts[:, None]) != (mask != 0)).any():
        raise InputError("a source without tokens, or padded elsewhere than behind them", hint="pad on the right")
    room = ((0, 0), (0, decoder.source - tokens.shape[1]))
    return {TOKENS: np.pad(tokens, room), MASK: np.pad((mask != 0).astype(np.int64), room)}, tuple(counts.tolist())
