"""Tables that are read in any terminal: numbers are never cut, and a pipe gets no padding.

Where a row does not fit the width, columns of less interest are left out, and then the one column of prose is cut with
an ellipsis. A pipe has no width: everything is there.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from isa.shown import shown
from runtime.cli.common import stdout, styled

GAP = 2  # blanks between columns
LEAST = 12  # characters of prose; below that the column is left out
_MARK = "…"


@dataclass(frozen=True)
class Column:
    """`right`: numbers. `spare`: left out for want of room, the highest first; 0 never. `prose`: may be cut, the last
    such column first.

    `by_end`: what is cut is told apart by its end, as names with a common beginning are.
    """

    title: str
    right: bool = False
    spare: int = 0
    prose: bool = False
    by_end: bool = False
    style: str = ""


Cell = str | tuple[str, str]  # text, or text with a style
UNCUT = 1 << 20  # a width that everything fits


def show(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]], styles: Sequence[str] = (), width: int | None = None
) -> None:
    """Print a table. `styles` are of whole rows; `width` is the terminal's unless it is given."""
    console = stdout()
    if width is None:
        width = console.width if sys.stdout.isatty() else UNCUT
    texts = [[shown(cell if isinstance(cell, str) else cell[0]) for cell in row] for row in rows]
    kept, widths = fit(columns, texts, width)
    if any(column.title for column in columns):
        console.print(
            styled(*_line(columns, [(column.title, "bold") for column in columns], kept, widths)), soft_wrap=True
        )
    for number, row in enumerate(rows):
        cells = [
            (text, (styles[number] if number < len(styles) else "") or _style(cell))
            for text, cell in zip(texts[number], row, strict=True)
        ]
        console.print(styled(*_line(columns, cells, kept, widths)), soft_wrap=True)


def fit(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> tuple[list[int], list[int]]:
    """Which columns are shown, and how wide each is."""
    widths = [
        max([len(column.title), *(_cells(row[i]) for row in rows if i < len(row))]) for i, column in enumerate(columns)
    ]
    kept = list(range(len(columns)))
    while (over := _total(kept, widths) - width) > 0:
        roomy = [i for i in kept if columns[i].prose and widths[i] - over >= LEAST]
        spare = max(kept, key=lambda i: columns[i].spare)
        if roomy:
            widths[roomy[-1]] -= over
        elif columns[spare].spare:
            kept.remove(spare)
        else:
            for i in (i for i in kept if columns[i].prose):
                widths[i] = min(widths[i], LEAST)
            break
    return kept, widths


def _total(kept: Sequence[int], widths: Sequence[int]) -> int:
    return sum(widths[i] for i in kept) + GAP * (len(kept) - 1)


def _cells(text: str) -> int:
    """Columns of a terminal that a text takes: some characters take two, some none."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _fitted(text: str, width: int, by_end: bool) -> str:
    if _cells(text) <= width:
        return text
    while _cells(text) > width - 1:
        text = text[1:] if by_end else text[:-1]
    return _MARK + text if by_end else text + _MARK


def _style(cell: Cell) -> str:
    return "" if isinstance(cell, str) else cell[1]


def _line(
    columns: Sequence[Column], row: Sequence[tuple[str, str]], kept: Sequence[int], widths: Sequence[int]
) -> list[tuple[str, str]]:
    """The pieces of a line with their styles, blanks at its end left out. Rows may be shorter than the table."""
    shown = [i for i in kept if i < len(row)]
    while shown and not row[shown[-1]][0].strip():
        shown.pop()
    pieces: list[tuple[str, str]] = []
    for i in shown:
        text, style = row[i]
        text = _fitted(text, widths[i], columns[i].by_end)
        blank = " " * (widths[i] - _cells(text))
        text = blank + text if columns[i].right else text + blank if i != shown[-1] else text
        pieces += [(" " * GAP, ""), (text, style or columns[i].style)]
    return pieces[1:]
