"""A comparison in words: what terminal and page call things."""

import re
from collections.abc import Iterable, Sequence

from runtime.compare.document import Change, difference

SHOWN = {  # of each figure: its title, and what it is multiplied by
    "cycles": ("cycles", 1.0),
    "energy_joules": ("energy, µJ", 1e6),
    "dram_bytes": ("DRAM, KiB", 1 / 1024),
    "instructions": ("instructions", 1.0),
}
UNNAMED = "(none)"  # what belongs to no layer
_NUMBER = re.compile(r"^(.*?)(\d+)$")


def signed(value: float) -> str:
    return f"{round(value):+,}" if round(value) else "0"


def joined(layers: Sequence[Change]) -> list[tuple[str, list[Change]]]:
    """Layers that differ by number alone, and in one direction, are one line: `encoder_layer_0-5`."""
    found: dict[tuple[str, bool], list[Change]] = {}
    for change in layers:
        stem = match[1] if (match := _NUMBER.match(change.name)) else change.name
        found.setdefault((stem, difference(change.cycles) > 0), []).append(change)
    rows = [(f"{stem}{_ranges(c.name[len(stem) :] for c in changes)}", changes) for (stem, _), changes in found.items()]
    return sorted(rows, key=lambda row: -abs(sum(difference(change.cycles) for change in row[1])))


def _ranges(numbers: Iterable[str]) -> str:
    """`0-3,5` of 0, 1, 2, 3 and 5; nothing of no numbers."""
    runs: list[list[int]] = []
    for number in sorted(int(text) for text in numbers if text):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)


def title_of(nodes: Change) -> str:
    """Operator, how many, line of the model, and whether they are in one of the two only."""
    count = max(len(nodes.a), len(nodes.b))
    only = "" if nodes.a and nodes.b else "only in A" if nodes.a else "only in B"
    return " ".join(filter(None, (nodes.name, f"×{count}" if count > 1 else "", nodes.place, only)))
