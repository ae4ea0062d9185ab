"""A decoder on the device: the steps of its image, and whose caches lie in its STATE.

Sessions take turns: the one that runs has its caches in STATE, all others keep a copy of their live rows.
"""

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Protocol

import numpy as np

from emulator.formats import STORAGE
from isa.errors import InputError
from isa.image.image import Image
from isa.image.steps import ENCODE, ENDS, LAST, PAD, START, TOKENS, Step, capacity, is_source, scalar, steps
from runtime.device.arrays import Array
from runtime.device.executable import Executable

PADDING = 8  # a step of T tokens is used for less than that only while there are at least T / PADDING

Rows = tuple[Array, ...]  # of each tensor in STATE the first rows, [B, heads, n, …]; never written to


class Owner(Protocol):
    """Who has caches: a session."""

    def park(self) -> None:
        """Copy your caches out of STATE, where another's are to go."""

    def parked(self) -> Rows:
        """The copy."""


class Decoder:
    """An image whose entries are steps of a language model."""

    def __init__(self, executable: Executable) -> None:
        """Raises InputError for an image of another kind."""
        self.executable, self.steps = executable, steps(executable.image)
        if not self.steps:
            raise InputError(
                "the image has no steps of a decoder", hint="compile a causal language model with max_length"
            )
        first = self.steps[0]
        self.batch, self.capacity, self.vocabulary = first.batch, capacity(self.steps), first.vocabulary
        self.source = first.source  # tokens of a source at most; 0 where there is no encoder
        self._current: weakref.ref[Owner] | None = None

    @property
    def image(self) -> Image:
        return self.executable.image

    @cached_property
    def program_hash(self) -> bytes:
        """sha256 of what a session depends on: the image without its metadata."""
        return replace(self.image, metadata={}).hash

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end a text, if the image says so."""
        found = self.image.metadata.get(ENDS)
        return tuple(token for token in found if isinstance(token, int)) if isinstance(found, list) else ()

    @property
    def pad(self) -> int:
        """What stands behind the end of a text."""
        found = self.image.metadata.get(PAD)
        return found if isinstance(found, int) and 0 <= found < self.vocabulary else 0

    @property
    def start(self) -> int:
        """The token with which a text behind an encoder begins."""
        found = self.image.metadata.get(START)
        return found if isinstance(found, int) and 0 <= found < self.vocabulary else self.pad

    @contextmanager
    def turn(self, owner: Owner) -> Iterator[None]:
        """While it lasts, STATE is the owner's."""
        with self.executable.idle:
            current = self._current() if self._current else None
            if current is not owner:
                if current is not None:
                    current.park()
                self._current = None  # nobody's, should we be interrupted now
                for spec, rows in zip(self.image.states, owner.parked(), strict=False):
                    self.executable.put_rows(spec, rows)
                self._current = weakref.ref(owner)
            yield

    def has(self, owner: Owner) -> bool:
        """Whether the owner's caches lie in STATE."""
        return self._current is not None and self._current() is owner

    def rows(self, count: int, source: int) -> Rows:
        """Copies of the first `count` rows of every cache in STATE, and of the first of what an encoder made."""
        return tuple(rows.copy() for rows in self.cut(map(self.executable.tensor, self.image.states), count, source))

    def cut(self, rows: Iterable[Array], count: int, source: int) -> Rows:
        """The first rows of each tensor in STATE."""
        states = zip(rows, self.image.states, strict=False)
        return tuple(array[:, :, : source if is_source(spec) else count] for array, spec in states)

    def encode(self, inputs: Mapping[str, Array]) -> Rows:
        """What the encoder makes of its inputs, as rows of STATE whose caches are empty. Raises InputError for inputs
        that do not fit."""
        found = self.executable(inputs, ENCODE)
        empty = (np.zeros((*s.shape[:2], 0, *s.shape[3:]), STORAGE[s.storage]) for s in self.image.states)
        return tuple(found.get(spec.name, rows) for spec, rows in zip(self.image.states, empty, strict=True))

    def release(self, owner: Owner) -> None:
        """The owner's caches in STATE are of no use any more."""
        if self.has(owner):
            self._current = None

    def run(self, step: Step, tokens: Array, positions: Sequence[int], sources: Sequence[int] = ()) -> Array:
        """Launch a step: logits [B, T, vocabulary] float32 of `tokens` [B, T], behind sources of so many tokens."""
        scalars = {scalar(number): position for number, position in enumerate(positions)}
        scalars |= {scalar(number, LAST): count - 1 for number, count in enumerate(sources)}
        (logits,) = self.executable({TOKENS: tokens}, step.entry, scalars).values()
        return logits

    def tokens(self, given: object, what: str = TOKENS) -> Array:
        """Tokens [B, T] int32, checked. Raises InputError for another form or batch, for none, and for a token outside
        the vocabulary."""
        try:
            array = np.asarray(given)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{what} is no array: {error}", hint="pass integers [batch, tokens]") from error
        if array.ndim != 2 or (array.size and array.dtype.kind not in "iu"):
            raise InputError(
                f"{what} is {array.dtype.name}{list(array.shape)}", hint=f"pass integers [{self.batch}, tokens]"
            )
        if array.shape[0] != self.batch:
            raise InputError(
                f"{what} has {array.shape[0]} sequences; the program was compiled for {self.batch}",
                hint="compile the model for this batch",
            )
        if not array.size:
            raise InputError("the prompt is empty", hint="give at least one token")
        wrong = np.argwhere((array < 0) | (array >= self.vocabulary))
        if len(wrong):
            raise InputError(
                f"{what} holds {int(array[tuple(wrong[0])])} at {wrong[0].tolist()}; the vocabulary has "
                f"{self.vocabulary} tokens",
                hint="check that the tokenizer belongs to this model",
            )
        return array.astype(np.int32)

    def plan(self, lengths: Sequence[int], counts: Sequence[int]) -> list[tuple[Step, int]]:
        """The steps that put `counts` new tokens behind the `lengths` of the sequences, and the first token of each.

        The last may be longer than what is left, if the caches have room for the padding. Raises InputError where they
        have no room for the tokens.
        """
        for number, (length, count) in enumerate(zip(lengths, counts, strict=True)):
            if length + count > self.capacity:
                raise InputError(
                    f"sequence {number} has {length} tokens and would have {length + count}; the cache has room for "
                    f"{self.capacity}",
                    hint="compile with a larger max_length, or roll back",
                )
        planned, first, end = [], 0, max(counts)
        while first < end:
            longest = max(length + min(first, count) for length, count in zip(lengths, counts, strict=True))
            step = _choose([step for step in self.steps if longest + step.tokens <= step.reach], end - first)
            if step is None:
                raise InputError(
                    f"a sequence of {longest} tokens has no room for the padding of a step; the cache has {self.capacity}",
                    hint="give sequences of one length, or compile with a larger max_length",
                )
            planned.append((step, first))
            first += step.tokens
        return planned


def _choose(fitting: Sequence[Step], left: int) -> Step | None:
    """The shortest step that takes all that is left, unless most of it were padding; else the longest that is full. Of
    those that are alike, the one that reaches least far: it is planned for short sequences."""
    padded = [step for step in fitting if left <= step.tokens <= PADDING * left]
    full = [step for step in fitting if step.tokens <= left]
    full = [step for step in full if step.tokens == full[0].tokens][::-1]
    return padded[-1] if padded else full[0] if full else fitting[-1] if fitting else None
