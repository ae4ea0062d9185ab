"""Which rows of a profile are wanted, and in what order."""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from isa.errors import InputError
from runtime.profile.document import Row

_LISTED = 8  # names in an error

SORTS: dict[str, Callable[[Row], float]] = {  # what is large comes first
    "cycles": lambda row: row.cycles,
    "mxu": lambda row: row.busy.get("mxu", 0),
    "vec": lambda row: row.busy.get("vec", 0),
    "act": lambda row: row.busy.get("act", 0),
    "macs": lambda row: row.macs,
    "dram": lambda row: row.dram_bytes,
    "energy": lambda row: row.energy_joules,
    "instructions": lambda row: row.instructions,
    "order": lambda row: 0,  # as they come first in the program
}


def select(rows: Sequence[Row], layers: Sequence[str], nodes: Sequence[str]) -> tuple[Row, ...]:
    """Rows of nodes that are in one of `layers` and match one of `nodes`; nothing given lets everything through. A layer
    is named by its number or a pattern; what no layer is called is a module, by its path. Raises InputError for a layer
    or a pattern that no row has."""
    inside = [_in_layer if any(_in_layer(row, wanted) for row in rows) else _in_module for wanted in layers]
    for wanted, is_in in zip(layers, inside, strict=True):
        _check(wanted, "layer", any(is_in(row, wanted) for row in rows), (row.layer for row in rows))
    for wanted in nodes:
        _check(wanted, "node", any(fnmatchcase(row.name, wanted) for row in rows), (row.name for row in rows))
    return tuple(
        row
        for row in rows
        if (not layers or any(is_in(row, wanted) for wanted, is_in in zip(layers, inside, strict=True)))
        and (not nodes or any(fnmatchcase(row.name, wanted) for wanted in nodes))
    )


def ordered(rows: Iterable[Row], sort: str) -> list[Row]:
    return sorted(rows, key=lambda row: -SORTS[sort](row))


def _in_layer(row: Row, wanted: str) -> bool:
    return row.layer.endswith(f"_{wanted}") if wanted.isdigit() else fnmatchcase(row.layer, wanted)


def _in_module(row: Row, wanted: str) -> bool:
    return any(fnmatchcase(row.module, pattern) for pattern in (wanted, f"{wanted}.*"))


def _check(wanted: str, what: str, there: bool, names: Iterable[str]) -> None:
    if not there:
        known = list(dict.fromkeys(filter(None, names)))
        more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
        raise InputError(
            f"no {what} of the program is '{wanted}'", hint=f"there are {', '.join(known[:_LISTED]) or 'none'}{more}"
        )
