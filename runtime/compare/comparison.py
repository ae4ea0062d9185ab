"""A comparison as Python and notebooks show it."""

from html import escape
from typing import TYPE_CHECKING, Any

import msgspec

from isa.errors import InputError
from runtime.compare.document import Change, ComparisonDocument, difference
from runtime.compare.words import SHOWN, UNNAMED, joined, title_of
from runtime.plotting import plotting
from runtime.profile.words import cause
from runtime.tables import frame, html_table

if TYPE_CHECKING:
    import pandas
    from plotly.graph_objects import Figure

_ROWS = 10


class Comparison(ComparisonDocument, frozen=True, kw_only=True):
    """What has changed from A to B: totals in `figures`, settings in `facts`, where in `layers` and `nodes`. Every figure
    is a pair, of A and of B."""

    def __repr__(self) -> str:
        a, b = self.figures[0].total
        percent = f", {(b - a) / a:+.1%}" if a else ""
        where = ", ".join(name for name, _ in joined(self.layers)[:3] if name != UNNAMED)
        return f"Comparison({a:,} → {b:,} cycles{percent}{f'; {where}' if where else ''})"

    def _repr_html_(self) -> str:
        """Totals, settings that differ, layers and nodes."""
        facts = [(name, *pair) for name, pair in self.facts.items()]
        totals = [(SHOWN[f.name][0], *(round(value * SHOWN[f.name][1]) for value in f.total)) for f in self.figures]
        head = ("", "cycles A", "cycles B", "B-A", "mostly")
        return (
            f"<p>{escape(repr(self))}</p>"
            + html_table(("", "A", "B"), [("program", self.a, self.b), ("chip", *self.chips), *totals, *facts])
            + html_table(head, map(self._cells, self.layers[:_ROWS]), "by layer")
            + html_table(head, map(self._cells, self.nodes[:_ROWS]), "by node")
        )

    def _cells(self, change: Change) -> tuple[Any, ...]:
        return title_of(change), *change.cycles, difference(change.cycles), cause(change.cause, self.waterfall_resource)

    def to_json(self) -> str:
        """The document of `llmcc compare --json`; docs/schemas/comparison.json describes it."""
        return msgspec.json.encode(self).decode()

    def to_pandas(self, table: str = "nodes") -> "pandas.DataFrame":
        """A row for each of `nodes`, `layers` or `figures` that differ, with columns for A and for B. Raises InputError
        for another table, and without pandas."""
        tables = {"nodes": self.nodes, "layers": self.layers, "figures": self.figures}
        if table not in tables:
            raise InputError(f"a comparison has no table '{table}'", hint=f"its tables are {', '.join(tables)}")
        return frame(map(_columns, tables[table]))

    def figure(self, name: str = "cycles") -> "Figure":
        """From A to B, part by part: cycles, energy_joules, dram_bytes or instructions, as a plotly figure. Raises
        InputError for another one, and without plotly."""
        with plotting("a figure"):
            from runtime.compare.figures import waterfall

        if name not in SHOWN:
            raise InputError(f"a comparison has no figure '{name}'", hint=f"its figures are {', '.join(SHOWN)}")
        return waterfall(self, name)


def _columns(row: msgspec.Struct) -> dict[str, Any]:
    """A pair becomes two columns."""
    found: dict[str, Any] = {}
    for name in row.__struct_fields__:
        value = getattr(row, name)
        for key, pair in (
            {f"{name}_{part}": v for part, v in value.items()}.items() if isinstance(value, dict) else [(name, value)]
        ):
            if isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], (int, float)):
                found |= {f"{key}_a": pair[0], f"{key}_b": pair[1]}
            else:
                found[key] = pair
    return found
