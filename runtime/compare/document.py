"""What a comparison says, as plain values: `llmcc compare --json`; docs/schemas/comparison.json is made from the types.

Every figure is a pair: of A, and of B.
"""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

Pair = tuple[float, float]
Texts = tuple[str, str]


class Figure(Struct, frozen=True, kw_only=True):
    """One figure of the run, and the parts that add up to it. `name` is the key of the same figure of a change."""

    name: str
    total: Pair
    parts: Mapping[str, Pair]


class Change(Struct, frozen=True, kw_only=True):
    """A layer, or the nodes of one operator and source line of the model, in which A and B differ.

    `share` is the largest of the four differences, as a part of that figure's total in A. `a` and `b` name the nodes: one
    that has no partner is in one of them only.
    """

    name: str
    place: str = ""
    layers: tuple[str, ...] = ()
    a: tuple[str, ...] = ()
    b: tuple[str, ...] = ()
    share: float
    cycles: Pair
    energy_joules: Pair
    dram_bytes: Pair
    instructions: Pair
    waterfall: Mapping[str, Pair]

    @property
    def cause(self) -> str:
        """The part of the waterfall that moved most in the direction of the whole; "" if none did."""
        sign = -1 if self.cycles[1] < self.cycles[0] else 1
        cause = max(self.waterfall, key=lambda name: sign * difference(self.waterfall[name]), default="")
        return cause if cause and sign * difference(self.waterfall[cause]) > 0 else ""


class ComparisonDocument(Struct, frozen=True, kw_only=True):
    """`facts` are settings of compiler, model and chip that differ, and how many nodes are fused, views and so on.
    `layers` and `nodes` are those that differ by
    `threshold` or more, the largest first; of the others there are `left_out`."""

    document: Literal["llmchip comparison"] = "llmchip comparison"
    a: str
    b: str
    chips: Texts
    threshold: float
    facts: Mapping[str, Texts]
    waterfall_resource: str
    figures: tuple[Figure, ...]
    layers: tuple[Change, ...]
    nodes: tuple[Change, ...]
    left_out: Mapping[str, int]
    notes: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether nothing differs by the threshold or more: no figure, no layer, no node."""
        return (
            not self.layers
            and not self.nodes
            and not any(share(f.total) and share(f.total) >= self.threshold for f in self.figures)
        )


def difference(pair: Pair) -> float:
    return pair[1] - pair[0]


def share(pair: Pair) -> float:
    """The difference as a part of A's figure."""
    return abs(difference(pair)) / pair[0] if pair[0] else float(pair[0] != pair[1])
