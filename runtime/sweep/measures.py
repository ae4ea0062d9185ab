"""What is measured at a point: the figures with their units, and those that may be made small."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isa.errors import InputError


@dataclass(frozen=True, slots=True)
class Figure:
    """A number of a row: `unit` is for people, who see it `scale` times as large."""

    title: str
    unit: str
    scale: float = 1.0


FIGURES: Mapping[str, Figure] = {
    "cycles": Figure("cycles", ""),
    "seconds": Figure("latency", "ms", 1e3),
    "joules": Figure("energy", "mJ", 1e3),
    "watts": Figure("power", "W"),
    "mm2": Figure("area", "mm²"),
    "of_limit": Figure("of the limit", ""),
    "dram_bytes": Figure("DRAM", "MiB", 2**-20),
    "macs": Figure("multiply-adds", ""),
    "instructions": Figure("instructions", ""),
    "program_words": Figure("program words", ""),
}
OBJECTIVES: Mapping[str, str] = {
    "latency": "seconds",
    "energy": "joules",
    "area": "mm2",
}  # what may be made small, and its figure


def objectives(names: Sequence[str]) -> tuple[str, ...]:
    """Those of these names. Raises InputError for none, and for another."""
    if not names:
        raise InputError("nothing is to be made small", "--minimize", f"name some of {', '.join(OBJECTIVES)}")
    for name in names:
        if name not in OBJECTIVES:
            raise InputError(f"there is no objective '{name}'", "--minimize", f"they are {', '.join(OBJECTIVES)}")
    return tuple(dict.fromkeys(names))
