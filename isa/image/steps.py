"""Images of decoders: each entry is one step of a language model over caches in STATE.

    input_ids [B, T] int, scalars positions.0 … positions.B-1 -> logits [B, T, vocabulary] float32

The caches are tensors [B, heads, capacity, …] of STATE; `positions` says how many tokens of each sequence they hold.

An encoder-decoder has one entry more, whose results are the state that is only read: tensors [B, heads, S, …] of the
same names. Scalars last_source.0 … say where each source ends.

    encode: what the encoder takes -> source_keys_0, source_keys_0_scales, …
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from isa.image.image import Image
from isa.image.records import Entry, Scalar, TensorSpec

TOKENS = "input_ids"
DECODER_TOKENS = "decoder_input_ids"  # what users call them, where there is an encoder, too
POSITIONS = "positions"
ENCODE, SOURCE = "encode", "source_"  # the entry of an encoder; how the names of its results begin
LAST = "last_source"  # the place of the last token of each source
START = "start"  # in the metadata: the token with which an encoder-decoder's text begins
ENDS = "eos"  # in an image's metadata: tokens that end a text
PAD = "pad"  # and the token that stands behind an end


@dataclass(frozen=True, slots=True)
class Step:
    """An entry that takes `tokens` new tokens of each of `batch` sequences, which have at most `reach` then; behind
    sources of at most `source` tokens, if it is an encoder-decoder's."""

    entry: str
    batch: int
    tokens: int
    reach: int
    vocabulary: int
    source: int = 0


def scalar(sequence: int, name: str = POSITIONS) -> str:
    """The name of the scalar that says how many tokens of a sequence are in the caches, or another number of it."""
    return f"{name}.{sequence}"


def is_source(state: TensorSpec) -> bool:
    """Whether an encoder fills this tensor of STATE."""
    return state.name.startswith(SOURCE)


def steps(image: Image) -> tuple[Step, ...]:
    """What the entries of a decoder's image do, the most tokens first, of as many those that reach furthest. Empty for
    an image of another kind."""
    found = [_step(entry) for entry in image.entries if entry.name != ENCODE]
    known = [step for step in found if step is not None]
    if len(known) < len(found) or len({(s.batch, s.vocabulary, s.source) for s in known}) != 1 or not image.states:
        return ()
    batch, source = known[0].batch, known[0].source
    for state in image.states:
        if state.shape[0:1] + state.shape[2:3] != (batch, source if is_source(state) else capacity(known)):
            return ()
    filled = {(spec.name, spec.shape) for entry in image.entries if entry.name == ENCODE for spec in entry.outputs}
    if filled != {(state.name, state.shape) for state in image.states if is_source(state)}:
        return ()
    return tuple(sorted(known, key=lambda step: (-step.tokens, -step.reach)))


def capacity(known: Iterable[Step]) -> int:
    """How many tokens of a sequence the caches hold."""
    return max(step.reach for step in known)


def _step(entry: Entry) -> Step | None:
    if [spec.name for spec in entry.inputs] != [TOKENS] or len(entry.outputs) != 1:
        return None
    (given,), (logits,) = entry.inputs, entry.outputs
    if len(given.shape) != 2 or given.storage.is_float or logits.dtype != "float32" or len(logits.shape) != 3:
        return None
    batch, tokens = given.shape
    if min(batch, tokens) < 1 or logits.shape[:2] != given.shape:
        return None
    places, lasts = entry.scalars[:batch], entry.scalars[batch:]
    most = [_most(part, name, batch) for part, name in ((places, POSITIONS), (lasts, LAST)) if part]
    if not most or None in most:
        return None
    reach, *source = [number for number in most if number is not None]
    return Step(entry.name, batch, tokens, reach + tokens, logits.shape[2], source[0] + 1 if source else 0)


def _most(scalars: Sequence[Scalar], name: str, batch: int) -> int | None:
    """The largest value of scalars that go from 0, one for each sequence; None if they are others."""
    if [s.name for s in scalars] != [scalar(number, name) for number in range(batch)]:
        return None
    ranges = {(s.minimum, s.maximum) for s in scalars}
    return min(ranges)[1] if len(ranges) == 1 and min(ranges)[0] == 0 else None
