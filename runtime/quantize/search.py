"""Which scheme for which layer: the cheapest choice whose errors, added up, stay within a budget.

Errors of layers alone add up about, as those of independent causes do; what a whole model really does is measured
afterwards, and the budget lowered if that was too optimistic.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """A scheme of a layer: what it costs in accuracy, and in cycles."""

    scheme: str
    error: float
    cycles: int


def cheapest(layers: Mapping[str, Sequence[Option]], budget: float) -> dict[str, Option] | None:
    """For each layer one of its options, so that the errors' sum is at most `budget` and cycles are few; None where even
    the least errors are more.

    From the cheapest options up, each time by the step that saves most error for its cycles; then down again wherever
    that leaves room. Ties go to the layer, and the option, that comes first.
    """
    if sum(min(option.error for option in options) for options in layers.values()) > budget:
        return None
    chosen = {name: min(options, key=lambda o: (o.cycles, o.error)) for name, options in layers.items()}
    while _error(chosen) > budget:
        steps = [
            ((option.cycles - chosen[name].cycles) / (chosen[name].error - option.error), name, option)
            for name, options in layers.items()
            for option in options
            if option.error < chosen[name].error
        ]
        _, name, option = min(steps, key=lambda step: step[0])
        chosen[name] = option
    for name in sorted(layers, key=lambda name: -chosen[name].cycles):
        for option in sorted(layers[name], key=lambda o: (o.cycles, o.error)):
            trial = {**chosen, name: option}
            if option.cycles < chosen[name].cycles and _error(trial) <= budget:
                chosen = trial
                break
    return chosen


def _error(chosen: Mapping[str, Option]) -> float:
    return sum(option.error for option in chosen.values())
