"""What a sweep found: rows, the best of them, and files of them."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

from isa.errors import InputError
from isa.files import write_atomic
from runtime.sweep.axes import Axis
from runtime.sweep.sweep import Row


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
PARTS = ("utilisation", "energy_joules", "area_mm2", "waterfall")  # figures with parts, which get a column each


def objectives(names: Sequence[str]) -> tuple[str, ...]:
    """Those of these names. Raises InputError."""
    for name in names:
        if name not in OBJECTIVES:
            raise InputError(f"there is no objective '{name}'", "--minimize", f"they are {', '.join(OBJECTIVES)}")
    return tuple(dict.fromkeys(names))


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
    """`rows` in the order of models, shapes and axes; `minimized` are the objectives of its front."""

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

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "axes": {axis.key: list(axis.values) for axis in self.axes},
            "minimized": list(self.minimized),
            "failed": sum(row.failed for row in self.rows),
            "rows": self.records(),
        }

    def csv(self) -> str:
        """The records as comma-separated values."""
        records, text = self.records(), io.StringIO()
        writer = csv.DictWriter(text, list(records[0]) if records else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return text.getvalue()

    def write_csv(self, path: str | PathLike[str]) -> None:
        write_atomic(path, [self.csv().encode("utf-8", "backslashreplace")])

    def write_parquet(self, path: str | PathLike[str]) -> None:
        """Raises InputError without pyarrow."""
        try:
            import pyarrow
            from pyarrow import parquet
        except ModuleNotFoundError as error:
            raise InputError(
                "a Parquet file needs pyarrow", hint="pip install 'pyarrow>=18', or llmchip[sweep]"
            ) from error
        data = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist(self.records()), data)
        write_atomic(path, [data.getvalue()])

    def __repr__(self) -> str:
        failed = sum(row.failed for row in self.rows)
        axes = ", ".join(axis.key for axis in self.axes)
        return f"Sweep({len(self.rows)} points over {axes or 'no axis'}, {failed} failed, {len(self.front())} on the front)"


def _record(row: Row, axes: Sequence[Axis], best: bool) -> dict[str, Any]:
    own: dict[str, Any] = {"model": row.model, "seq": row.seq, "batch": row.batch, "chip": row.chip}
    own |= {axis.key: row.place.get(axis.key) for axis in axes if axis.key != "chip"}
    own |= {name: row.outcome.get(name) for name in FIGURES} | {"limited_by": row.outcome.get("limited_by")}
    return own | dict(_parts(row)) | {"on_front": best, "seconds_spent": row.seconds, "error": row.reason or None}


def _parts(row: Row) -> Iterator[tuple[str, Any]]:
    for group in PARTS:
        for name, value in row.outcome.get(group, {}).items():
            yield f"{group}.{name}", value
