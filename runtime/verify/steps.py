"""Decoders against PyTorch: the frozen graphs of all steps over one set of caches, and the chip beside them.

Logits, the most likely token, and every byte of the caches, after every step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from html import escape
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from compiler.entries import Kind, constant_kinds
from compiler.frontend.capture import STATE
from compiler.lower import Lowered
from isa.architecture import Dtype
from isa.image.image import Image
from isa.image.steps import ENCODE, Step
from runtime.device.arrays import Array, comparable
from runtime.device.decoder import Decoder
from runtime.device.executable import Executable
from runtime.device.source_session import padded
from runtime.pytorch.tensors import to_array
from runtime.tables import frame, html_table

if TYPE_CHECKING:
    import pandas

_ROWS = 20  # of the steps that a notebook shows unasked


@dataclass(frozen=True, slots=True)
class StepDifference:
    """One step: how many values of the logits and of the caches have other bits, and of how many; and how many
    sequences have another most likely token."""

    entry: str
    positions: tuple[int, ...]
    logits: int
    argmax: int
    cache: int
    values: int

    @property
    def bit_exact(self) -> bool:
        return not (self.logits or self.argmax or self.cache)


@dataclass(frozen=True, repr=False)
class StepsVerification:
    """What the comparison of a language model found, step by step."""

    steps: tuple[StepDifference, ...]

    @property
    def bit_exact(self) -> bool:
        """Whether no bit of any step differs."""
        return all(step.bit_exact for step in self.steps)

    @property
    def first_divergence(self) -> StepDifference | None:
        """The first step with another bit."""
        return next((step for step in self.steps if not step.bit_exact), None)

    def as_dict(self) -> dict[str, Any]:
        """What was found, ready for JSON."""
        return {"bit_exact": self.bit_exact, "steps": [asdict(step) for step in self.steps]}

    def to_json(self) -> str:
        """The same as text; docs/schemas/steps-verification.json describes it."""
        return msgspec.json.encode(StepsDocument(bit_exact=self.bit_exact, steps=self.steps)).decode()

    def to_pandas(self) -> "pandas.DataFrame":
        """A row for each step. Raises InputError without pandas."""
        return frame(self.as_dict()["steps"])

    def __bool__(self) -> bool:
        return self.bit_exact

    def __repr__(self) -> str:
        values = sum(step.values for step in self.steps)
        found = f"differs in {self.first_divergence.entry}" if self.first_divergence else "bit-exact"
        return f"StepsVerification({found}: {len(self.steps)} steps, {values:,} values compared)"

    def _repr_html_(self) -> str:
        """The steps; what is counted are values that differ."""
        names = [one.name for one in fields(StepDifference)]
        rows = [[getattr(step, name) for name in names] for step in self.steps[:_ROWS]]
        return f"<p>{escape(repr(self))}</p>" + html_table(names, rows)

    def __str__(self) -> str:
        values, wrong = sum(step.values for step in self.steps), self.first_divergence
        if wrong is None:
            return f"{len(self.steps)} steps, {values} values of logits and caches: all bits are equal"
        return f"the first difference is in step {wrong.entry} at {list(wrong.positions)}: {wrong}"


class StepsDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What the comparison of a language model found: for each step how many values of logits and caches differ."""

    bit_exact: bool
    steps: tuple[StepDifference, ...]


class StepReference:
    """The frozen graphs of a decoder's steps, run by PyTorch. Weights and caches are there once, as on the chip."""

    def __init__(self, lowered: Mapping[str, Lowered]) -> None:
        self._lowered = lowered
        shared: dict[Kind, Tensor] = {}
        self._constants: dict[str, list[Tensor]] = {}
        self.states: dict[str, Tensor] = {}
        for name, one in lowered.items():
            kinds = constant_kinds(one)
            new = [number for number, kind in enumerate(kinds) if kind not in shared]

            def keep(number: int, value: Any, kinds: Sequence[Kind] = kinds) -> None:
                shared[kinds[number]] = value

            one.pack_into(keep, only=new)
            weights, recipes = one.captured.weights, one.packing.recipes
            for number in new:
                if any(weights[at].kind == STATE for at in recipes[number].weights):
                    own = torch.zeros_like(shared[kinds[number]])  # the captured model's stay as they are
                    self.states[one.constants[number].name] = shared[kinds[number]] = own
            self._constants[name] = [shared[kind] for kind in kinds]

    def run(self, entry: str, tokens: Array, positions: Sequence[int], sources: Sequence[int] = ()) -> Tensor:
        """Logits [B, T, vocabulary] of a step; the caches are changed in place."""
        counts = (positions, [count - 1 for count in sources]) if sources else (positions,)
        given = torch.from_numpy(np.array(tokens, np.int32)), *(torch.tensor(n, dtype=torch.int32) for n in counts)
        return self._lowered[entry].run(given, self._constants[entry])[0]

    def encode(self, inputs: Mapping[str, Array]) -> dict[str, Tensor]:
        """What an encoder makes of its inputs, by name; it becomes the state of the steps."""
        lowered = self._lowered[ENCODE]
        given = [torch.from_numpy(inputs[info.name]).to(info.dtype) for info in lowered.inputs]
        found = dict(
            zip((info.name for info in lowered.outputs), lowered.run(given, self._constants[ENCODE]), strict=True)
        )
        for name, value in found.items():
            self.states[name].copy_(value)
        return found


class _Both:
    """The chip and PyTorch, step by step."""

    def __init__(self, image: Image, lowered: Mapping[str, Lowered]) -> None:
        self.decoder, self.reference = Decoder(Executable(image)), StepReference(lowered)
        self.sources: tuple[int, ...] = ()

    def encode(self, inputs: Mapping[str, Array], sources: tuple[int, ...]) -> StepDifference:
        """What differs of an encoder's results; they become the state of the steps."""
        self.sources, states = sources, self.decoder.image.states
        found, expected = self.decoder.encode(inputs), self.reference.encode(inputs)
        parts = [(spec, rows) for spec, rows in zip(states, found, strict=True) if spec.name in expected]
        for spec, rows in parts:
            self.decoder.executable.put_rows(spec, rows)
        wrong = sum(_different(rows, to_array(expected[spec.name]), spec.storage) for spec, rows in parts)
        return StepDifference(ENCODE, (), 0, 0, wrong, sum(rows.size for _, rows in parts))

    def run(self, step: Step, tokens: Array, positions: Sequence[int]) -> tuple[StepDifference, Array]:
        """What differs, and the chip's logits."""
        image, executable = self.decoder.image, self.decoder.executable
        logits = self.decoder.run(step, tokens, positions, self.sources)
        expected = to_array(self.reference.run(step.entry, tokens, positions, self.sources))
        caches = [(executable.tensor(s), to_array(self.reference.states[s.name]), s.storage) for s in image.states]
        return StepDifference(
            step.entry,
            tuple(positions),
            _different(logits, expected, Dtype.F32),
            int((logits.argmax(-1) != expected.argmax(-1)).sum()),
            sum(_different(*cache) for cache in caches),
            logits.size + sum(cache.size for cache, _, _ in caches),
        ), logits


def _different(found: Array, expected: Array, dtype: Dtype) -> int:
    return int((comparable(found, dtype) != comparable(expected, dtype)).sum())


def verify_steps(image: Image, lowered: Mapping[str, Lowered], input_ids: object, new: int) -> StepsVerification:
    """Prefill with `input_ids` [B, T], then `new` greedy steps, on the chip and in PyTorch. Raises InputError for what
    does not fit."""
    both = _Both(image, lowered)
    return StepsVerification(tuple(_greedy(both, both.decoder.tokens(input_ids), new)))


def verify_source(
    image: Image, lowered: Mapping[str, Lowered], inputs: Mapping[str, object], new: int
) -> StepsVerification:
    """Encode a source, then `new` greedy steps of the texts that begin behind it, on the chip and in PyTorch. Raises
    InputError for what does not fit."""
    both = _Both(image, lowered)
    encoded = both.encode(*padded(both.decoder, inputs))
    start = np.full((both.decoder.batch, 1), both.decoder.start, np.int32)
    return StepsVerification((encoded, *_greedy(both, start, new)))


def _greedy(both: _Both, tokens: Array, new: int) -> list[StepDifference]:
    decoder, found = both.decoder, list[StepDifference]()
    batch, count = tokens.shape
    decoder.plan((0,) * batch, (count + new,) * batch)
    logits = np.zeros((batch, 1, decoder.vocabulary), np.float32)
    for _ in range(new + 1):
        length = count - tokens.shape[1]
        for step, first in decoder.plan((length,) * batch, (tokens.shape[1],) * batch):
            part = tokens[:, first : first + step.tokens]
            padded = np.pad(part, ((0, 0), (0, step.tokens - part.shape[1])))
            difference, logits = both.run(step, padded, (length + first,) * batch)
            found.append(difference)
            last = part.shape[1] - 1
        tokens, count = logits[:, last].argmax(-1)[:, None].astype(np.int32), count + 1
    return found
