"""Images of decoders: each entry is one step of a language model over caches in STATE.

    input_ids [B, T] int, scalars positions.0 … positions.B-1 -> logits [B, T, vocabulary] float32

The caches are tensors [B, heads, capacity, …] of STATE; `positions` says how many tokens of each sequence they hold.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from isa.image.image import Image
from isa.image.records import Entry

TOKENS = "input_ids"
POSITIONS = "positions"
ENDS = "eos"  # in an image's metadata: tokens that end a text
PAD = "pad"  # and the token that stands behind an end


@dataclass(frozen=True, slots=True)
class Step:
    """An entry that takes `tokens` new tokens of each of `batch` sequences, which have at most `reach` then."""

    entry: str
    batch: int
    tokens: int
    reach: int
    vocabulary: int


def scalar(sequence: int) -> str:
    """The name of the scalar that says how many tokens of a sequence are in the caches."""
    return f"{POSITIONS}.{sequence}"


def steps(image: Image) -> tuple[Step, ...]:
    """What the entries of a decoder's image do, the most tokens first, of as many those that reach furthest. Empty for
    an image of another kind."""
    found = [_step(entry) for entry in image.entries]
    known = [step for step in found if step is not None]
    if len(known) < len(found) or len({(s.batch, s.vocabulary) for s in known}) != 1 or not image.states:
        return ()
    form = known[0].batch, capacity(known)
    if not all(state.shape[0:1] + state.shape[2:3] == form for state in image.states):
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
    if [s.name for s in entry.scalars] != [scalar(number) for number in range(batch)]:
        return None
    ranges = {(s.minimum, s.maximum) for s in entry.scalars}
    if len(ranges) != 1 or min(ranges)[0] != 0:
        return None
    return Step(entry.name, batch, tokens, min(ranges)[1] + tokens, logits.shape[2])
