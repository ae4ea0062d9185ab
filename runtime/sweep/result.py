"""What a sweep found: rows, the best of them, and files of them."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from os import PathLike
from typing import TYPE_CHECKING, Any

import msgspec

from isa.errors import InputError
from isa.files import write_atomic
from runtime.plotting import plotting
from runtime.sweep.axes import Axis
from runtime.sweep.document import SweepDocument
from runtime.sweep.measures import FIGURES, OBJECTIVES
from runtime.sweep.parquet import check_parquet
from runtime.sweep.sweep import Row
from runtime.tables import frame, html_table

if TYPE_CHECKING:
    import pandas
    from plotly.graph_objects import Figure


_ROWS = 20  # of a sweep that a notebook shows unasked
PARTS = ("utilisation", "energy_joules", "area_mm2", "waterfall")  # figures with parts, which get a column each


def front(rows: Sequence[Row], names: Sequence[str] = tuple(OBJECTIVES)) -> list[Row]:
    """The rows of a workload that no other row of it beats in one objective and equals or beats in all (Pareto)."""
    found = []
    for row in rows:
        if not row.failed:
            mine = _values(row, names)
            others = (_values(one, names) for one in rows if not one.failed and one.workload == row.workload)
            if not any(other != mine and all(a <= b for a, b in zip(other, mine, strict=True)) for other in others):
                found.append(row)
    return found


def _values(row: Row, names: Sequence[str]) -> tuple[float, ...]:
    return tuple(row.outcome[OBJECTIVES[name]] for name in names)


@dataclass(frozen=True, eq=False)
class Sweep:
    """Points: models on chips. `rows` are in the order of models, shapes and axes, each with its `place` on the axes and
    its `outcome`; `minimized` are the objectives of the front."""

    axes: tuple[Axis, ...]
    rows: tuple[Row, ...]
    minimized: tuple[str, ...] = tuple(OBJECTIVES)

    def front(self) -> list[Row]:
        """The rows that are best: none of the same model and shape is better in one objective and as good in all."""
        return front(self.rows, self.minimized)

    def records(self) -> list[dict[str, Any]]:
        """Every row as one flat dictionary; all have the same keys, with None for what is not known."""
        best = {id(row) for row in self.front()}
        found = [_record(row, self.axes, id(row) in best) for row in self.rows]
        keys = dict.fromkeys(key for record in found for key in record)
        return [{key: record.get(key) for key in keys} for record in found]

    def document(self) -> SweepDocument:
        """Everything, as plain values."""
        return SweepDocument(
            axes={axis.key: axis.values for axis in self.axes},
            minimized=self.minimized,
            failed=sum(row.failed for row in self.rows),
            rows=tuple(self.records()),
        )

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        found: dict[str, Any] = msgspec.to_builtins(self.document())
        return found

    def to_json(self) -> str:
        """The document of `llmcc sweep --json`; docs/schemas/sweep.json describes it."""
        return msgspec.json.encode(self.document()).decode()

    def to_pandas(self) -> "pandas.DataFrame":
        """A row for each point, with a column for each axis and figure. Raises InputError without pandas."""
        return frame(self.records())

    def figure(self, name: str = "front") -> "Figure":
        """A plotly figure: `front`, every point between the first two of what is minimized, or an axis by its key, which
        shows the first of them at each value. Raises InputError for another name, and without plotly."""
        with plotting("a figure"):
            from runtime.sweep import plots

        axes = {axis.key: axis for axis in self.axes}
        if name != "front" and name not in axes:
            raise InputError(f"a sweep has no figure '{name}'", hint=f"its figures are {', '.join(('front', *axes))}")
        wanted = tuple(dict.fromkeys((*self.minimized, *OBJECTIVES)))
        if name == "front":
            return plots.front(self.rows, self.front(), wanted)
        return plots.across(self.rows, axes[name], wanted)

    def csv(self) -> str:
        """The records as comma-separated values."""
        records, text = self.records(), io.StringIO()
        writer = csv.DictWriter(text, list(records[0]) if records else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return text.getvalue()

    def write_csv(self, path: str | PathLike[str]) -> None:
        """The same as a file."""
        write_atomic(path, [self.csv().encode("utf-8", "backslashreplace")])

    def write_parquet(self, path: str | PathLike[str]) -> None:
        """The records as a Parquet file. Raises InputError without pyarrow."""
        check_parquet()
        import pyarrow
        from pyarrow import parquet

        data = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist(self.records()), data)
        write_atomic(path, [data.getvalue()])

    def _repr_html_(self) -> str:
        """The front, then the other points, the first of what is minimized ascending; the first rows of them."""
        best = {id(row): row for row in self.front()}
        by = OBJECTIVES[(*self.minimized, *OBJECTIVES)[0]]
        rows = sorted(self.rows, key=lambda row: (id(row) not in best, row.failed, row.outcome.get(by, 0.0)))
        shown = [OBJECTIVES[name] for name in OBJECTIVES]
        head = ["model", *(axis.key for axis in self.axes), *(_head(name) for name in shown), "limited by", ""]
        cells = [
            [
                " ".join([row.model, *(f"{name} {size}" for name, size in row.sizes.items())]),
                *(row.place.get(axis.key, "") for axis in self.axes),
                *("" if row.failed else row.outcome[name] * FIGURES[name].scale for name in shown),
                row.outcome.get("limited_by", ""),
                row.reason or ("best" if id(row) in best else ""),
            ]
            for row in rows[:_ROWS]
        ]
        title = f"the first {_ROWS} of {len(rows)} points" if len(rows) > _ROWS else ""
        return f"<p>{escape(repr(self))}</p>" + html_table(head, cells, title)

    def __repr__(self) -> str:
        failed = sum(row.failed for row in self.rows)
        axes = ", ".join(axis.key for axis in self.axes)
        return f"Sweep({len(self.rows)} points over {axes or 'no axis'}, {failed} failed, {len(self.front())} on the front)"


def _head(name: str) -> str:
    return f"{FIGURES[name].title}, {FIGURES[name].unit}"


def _record(row: Row, axes: Sequence[Axis], best: bool) -> dict[str, Any]:
    own: dict[str, Any] = {"model": row.model, "seq": row.seq, "batch": row.batch, "chip": row.chip}
    own |= {axis.key: row.place.get(axis.key) for axis in axes if axis.key != "chip"}
    own |= {name: row.outcome.get(name) for name in FIGURES} | {"limited_by": row.outcome.get("limited_by")}
    return own | dict(_parts(row)) | {"on_front": best, "seconds_spent": row.seconds, "error": row.reason or None}


def _parts(row: Row) -> Iterator[tuple[str, Any]]:
    for group in PARTS:
        for name, value in row.outcome.get(group, {}).items():
            yield f"{group}.{name}", value
