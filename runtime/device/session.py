"""Sessions: texts that a decoder goes on with, each with its own caches over one set of weights.

session = program.new_session()
logits = session.prefill(prompt)          [batch, tokens given, vocabulary]; again for each chunk or turn
logits = session.decode(tokens)           one more token of each sequence
text = session.generate(prompt, 20)       what is given, then 20 new tokens
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Generic, TypeVar

import numpy as np

from isa.errors import InputError
from runtime.device import session_file
from runtime.device.arrays import Array
from runtime.device.decoder import Decoder, Rows

T = TypeVar("T")
Choose = Callable[[Array, Array], Array]  # all tokens so far [B, n] and logits [B, vocabulary]: the next tokens [B]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How new tokens are chosen, and which of them end a text."""

    choose: Choose
    ends: tuple[int, ...]
    pad: int


# Of the texts so far [B, n], padded on the left by so many [B], and the new tokens at most; with the user's options.
Sample = Callable[..., Sampling]


def greedy(decoder: Decoder) -> Sample:
    """The most likely token; of equals the first. Other options need PyTorch."""

    def sample(_texts: Array, _padding: Array, _new: int, **options: object) -> Sampling:
        for name in options:
            raise InputError(
                f"'{name}' needs the model itself", hint="without it tokens are chosen greedily; use llmchip.compile"
            )
        return Sampling(lambda _texts, logits: logits.argmax(-1), decoder.ends, decoder.pad)

    return sample


class Session(Generic[T]):
    """Sequences of tokens and their caches. Errors leave it as it was."""

    def __init__(self, decoder: Decoder, give: Callable[[Array], T], sample: Sample) -> None:
        """`give` makes of an array what the user gets."""
        self._decoder, self._give, self._sample = decoder, give, sample
        self._texts: tuple[Array, ...] = (np.zeros(0, np.int32),) * decoder.batch
        self._parked: Rows = ()
        self._sources: tuple[int, ...] = ()  # tokens of each source, behind an encoder

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each sequence."""
        return tuple(len(text) for text in self._texts)

    @property
    def length(self) -> int:
        """Tokens of the longest sequence."""
        return max(self.lengths)

    @property
    def tokens(self) -> tuple[Array, ...]:
        """The tokens of each sequence, int32."""
        return tuple(text.copy() for text in self._texts)

    def prefill(self, input_ids: object, attention_mask: object = None) -> T:
        """Go on with `input_ids` [B, T], any number of tokens. Gives logits [B, T, vocabulary] float32.

        `attention_mask` [B, T] is 0 where sequences of different lengths are padded, on the left or right; padding
        takes no place in the cache, and its logits are 0. Raises InputError for what does not fit, before anything is
        written.
        """
        tokens = self._decoder.tokens(input_ids)
        return self._give(self._extend(tokens, counted(attention_mask, tokens.shape)))

    def decode(self, token_ids: object) -> T:
        """Go on with one token of each sequence, [B] or [B, 1]. Gives logits [B, 1, vocabulary] float32. Raises
        InputError for what does not fit."""
        array = np.asarray(token_ids)
        tokens = self._decoder.tokens(array[:, None] if array.ndim == 1 else array, "token_ids")
        if tokens.shape[1] != 1:
            raise InputError(f"{tokens.shape[1]} tokens for one step", hint="prefill takes several tokens")
        return self._give(self._extend(tokens))

    def advance(self, tokens: Mapping[int, object]) -> dict[int, T]:
        """Go on with some of the sequences, by their numbers: each with its own new tokens [n]. Gives logits
        [n, vocabulary] float32 for each of them; the others rest.

        With `drop` this is continuous batching: texts join where another has left, between any two steps. Raises
        InputError for what does not fit, before anything is written.
        """
        batch = self._decoder.batch
        rows = {number: np.asarray(row).reshape(1, -1) for number, row in tokens.items()}
        for number, row in rows.items():
            if not isinstance(number, int) or not 0 <= number < batch or not row.size:
                raise InputError(
                    f"sequence {number!r} with {row.size} tokens", hint=f"numbers 0 to {batch - 1}, a token at least"
                )
        if not rows:
            return {}
        longest = max(row.size for row in rows.values())
        given, real = np.zeros((batch, longest), np.int64), np.zeros((batch, longest), bool)
        for number, row in rows.items():
            given[number, : row.size], real[number, : row.size] = row, True
        logits = self._extend(self._decoder.tokens(given), real)
        return {number: self._give(logits[number, : row.size]) for number, row in rows.items()}

    def drop(self, sequence: int) -> None:
        """Forget all of one sequence, so that another text can begin in its place. Raises InputError for one that does
        not exist."""
        if not isinstance(sequence, int) or not 0 <= sequence < self._decoder.batch:
            raise InputError(f"sequence {sequence!r}", hint=f"numbers 0 to {self._decoder.batch - 1}")
        with self._decoder.executable.idle:
            texts = list(self._texts)
            texts[sequence] = texts[sequence][:0]
            self._texts = tuple(texts)

    def generate(self, input_ids: object, max_new_tokens: int, attention_mask: object = None, **sampling: object) -> T:
        """Go on with `input_ids` [B, T], then with up to `max_new_tokens` that the model chooses, greedily unless
        `sampling` says otherwise. Gives all of them, [B, T + n] int64; the session has them, too. Raises InputError for
        what does not fit."""
        tokens = self._decoder.tokens(input_ids)
        new = list(self.stream(tokens, max_new_tokens, attention_mask, **sampling))
        return self._give(np.concatenate([tokens, *(token[:, None] for token in new)], 1).astype(np.int64))

    def stream(
        self, input_ids: object, max_new_tokens: int, attention_mask: object = None, **sampling: object
    ) -> Iterator[Array]:
        """The new tokens of `generate`, [B] int32 each, as soon as they are known. Raises InputError for what does not
        fit, before anything is written."""
        tokens = self._decoder.tokens(input_ids)
        if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {max_new_tokens!r}", hint="a number of at least 1")
        real = counted(attention_mask, tokens.shape)
        self._decoder.plan(self.lengths, (real.sum(1) + max_new_tokens).tolist())  # all of them will fit
        texts = [np.concatenate([text, row[here]]) for text, row, here in zip(self._texts, tokens, real, strict=True)]
        context = self._aligned(texts)
        padding = np.array([context.shape[1] - len(text) for text in texts])
        return self._new(tokens, real, max_new_tokens, self._sample(context, padding, max_new_tokens, **sampling))

    def _new(self, tokens: Array, real: Array, count: int, sampling: Sampling) -> Iterator[Array]:
        ended = np.zeros(self._decoder.batch, bool)
        for _ in range(count):
            logits = self._extend(tokens, real)
            last = real.shape[1] - 1 - real[:, ::-1].argmax(1)
            chosen = sampling.choose(self._aligned(self._texts), logits[np.arange(len(last)), last]).astype(np.int32)
            chosen = np.where(ended, np.int32(sampling.pad), chosen)
            yield chosen
            tokens, ended = chosen[:, None], ended | np.isin(chosen, sampling.ends)
            real = np.ones(tokens.shape, bool)
            if ended.all():
                break
        self._extend(tokens, real)  # so that the session has them all

    def fork(self, onto: Decoder | None = None) -> "Session[T]":
        """A session that goes its own way from here, maybe on another decoder with caches of the same form."""
        twin = type(self)(onto or self._decoder, self._give, self._sample)
        with self._decoder.executable.idle:
            twin._texts, twin._parked, twin._sources = self._texts, self._live(), self._sources
        return twin

    def rollback(self, length: int) -> None:
        """Forget what each sequence has behind its first `length` tokens. Raises InputError for more than there are."""
        if not isinstance(length, int) or not 0 <= length <= self.length:
            raise InputError(f"rollback to {length!r}", hint=f"the session has {self.length} tokens")
        with self._decoder.executable.idle:
            self._texts = tuple(text[:length] for text in self._texts)

    def save(self, path: str | PathLike[str]) -> None:
        """Write tokens and caches to a file, for `load`. Raises InputError where it cannot be written."""
        with self._decoder.executable.idle:
            texts, sources, rows = self._texts, self._sources, self._live()
        session_file.write(path, self._decoder, texts, sources, rows)

    def load(self, path: str | PathLike[str]) -> None:
        """Become the session in a file. Raises InputError for a file that cannot be read, is damaged, or belongs to
        another program."""
        texts, sources, rows = session_file.read(path, self._decoder)
        self.adopt(texts, rows, sources)

    def adopt(self, texts: tuple[Array, ...], rows: Rows, sources: tuple[int, ...] = ()) -> None:
        """Become a session of these tokens, int32 for each sequence, whose caches have these first rows."""
        with self._decoder.executable.idle:
            self._decoder.release(self)
            self._texts, self._sources, self._parked = texts, sources, rows

    def park(self) -> None:
        """Copy the live rows out of STATE, where another session's are to go."""
        self._parked = self._decoder.rows(self.length, max(self._sources, default=0))

    def parked(self) -> Rows:
        """The live rows of a session that another has taken the place of."""
        return self._decoder.cut(self._parked, self.length, max(self._sources, default=0))

    def _live(self) -> Rows:
        """The live rows, wherever they are."""
        if self._decoder.has(self):
            self.park()
        return self.parked() or self._decoder.rows(0, 0)

    def _aligned(self, texts: Sequence[Array]) -> Array:
        """Texts [B, n], padded on the left."""
        longest = max(map(len, texts))
        aligned = np.full((len(texts), longest), self._decoder.pad, np.int32)
        for row, text in zip(aligned, texts, strict=True):
            row[longest - len(text) :] = text
        return aligned

    def _extend(self, tokens: Array, real: Array | None = None) -> Array:
        """Put the tokens that are `real` behind the texts: logits [B, T, vocabulary], 0 for the others."""
        decoder = self._decoder
        if decoder.source and not self._sources:
            raise InputError("the session has no source", hint="call encode first")
        real = np.ones(tokens.shape, bool) if real is None else real
        counts: list[int] = real.sum(1).tolist()
        with decoder.executable.idle:
            lengths = self.lengths
            steps = decoder.plan(lengths, counts)
            given = np.zeros((decoder.batch, sum(step.tokens for step, _ in steps)), np.int32)
            behind = np.arange(given.shape[1]) < np.array(counts)[:, None]
            given[behind] = tokens[real]  # row by row, so that they stay in order
            parts = []
            with decoder.turn(self):
                for step, first in steps:
                    positions = [n + min(first, count) for n, count in zip(lengths, counts, strict=True)]
                    part = given[:, first : first + step.tokens]
                    parts.append(decoder.run(step, part, positions, self._sources))
            self._texts = tuple(
                np.concatenate([text, row[here]]) for text, row, here in zip(self._texts, tokens, real, strict=True)
            )
        logits = np.zeros((*tokens.shape, decoder.vocabulary), np.float32)
        logits[real] = np.concatenate(parts, 1)[behind]
        return logits

    def __repr__(self) -> str:
        return f"Session({', '.join(map(str, self.lengths))} of {self._decoder.capacity} tokens)"


def counted(mask: object, shape: tuple[int, ...]) -> Array:
    """Which tokens [B, T] count, bool, of an attention mask (None: all). Raises InputError for a mask of another shape,
    of holes, or of a sequence without tokens."""
    if mask is None:
        return np.ones(shape, bool)
    real: Array = np.asarray(mask) != 0
    if real.shape != shape:
        raise InputError(
            f"attention_mask is {list(real.shape)}, input_ids {list(shape)}", hint="give one number a token"
        )
    starts = np.diff(real.astype(np.int8), axis=1, prepend=0) == 1
    if (starts.sum(1) != 1).any():
        raise InputError(
            "attention_mask has a sequence without tokens, or with padding between them",
            hint="pad on the left or on the right",
        )
    return real
