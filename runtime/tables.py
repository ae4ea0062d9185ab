"""Tables of records for notebooks: a short repr, HTML, a pandas frame, JSON. Needs neither torch nor pandas until asked.

program.graph()[3].op     len(program.memory_map())     program.graph().to_pandas()
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from isa.errors import InputError

if TYPE_CHECKING:
    import pandas

T = TypeVar("T", bound=msgspec.Struct)
_ROWS = 20  # of a table that a notebook shows unasked


@dataclass(frozen=True, repr=False)
class Table(Generic[T]):
    """Records of one type, in order."""

    title: str
    rows: tuple[T, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[T]:
        return iter(self.rows)

    def __getitem__(self, index: int) -> T:
        return self.rows[index]

    def __repr__(self) -> str:
        return f"Table({self.title}: {len(self.rows)} rows)"

    def _repr_html_(self) -> str:
        """The first rows."""
        if not self.rows:
            return f"<p>{escape(self.title)}: no rows</p>"
        names = self.rows[0].__struct_fields__
        cells = ([getattr(row, name) for name in names] for row in self.rows[:_ROWS])
        more = f", the first {_ROWS}" if len(self.rows) > _ROWS else ""
        return html_table(names, cells, f"{self.title}: {len(self.rows)} rows{more}")

    def to_pandas(self) -> "pandas.DataFrame":
        """A row for each record. Raises InputError without pandas."""
        return frame(map(msgspec.to_builtins, self.rows))

    def to_json(self) -> str:
        """A list of objects."""
        return msgspec.json.encode(self.rows).decode()


def frame(rows: Iterable[Mapping[str, Any]]) -> "pandas.DataFrame":
    """A pandas frame of dictionaries; what is nested becomes columns: `waterfall_compute`. Raises InputError without
    pandas."""
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise InputError("this needs the library pandas", hint="pip install pandas, or llmchip[notebook]") from error
    return pandas.json_normalize(list(map(dict, rows)), sep="_")


def html_table(head: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> str:
    """A table of texts and numbers. Whatever is in them stays text."""
    caption = f"<caption>{escape(title)}</caption>" if title else ""
    body = "".join(_row(row, "td") for row in rows)
    return f"<table>{caption}<thead>{_row(head, 'th')}</thead><tbody>{body}</tbody></table>"


def _row(cells: Sequence[Any], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(_text(cell))}</{tag}>" for cell in cells) + "</tr>"


def _text(cell: Any) -> str:
    if isinstance(cell, float):
        return f"{cell:,.4g}"
    if isinstance(cell, int) and not isinstance(cell, bool):
        return f"{cell:,}"
    return ", ".join(map(str, cell)) if isinstance(cell, (tuple, list)) else str(cell)
