"""The plots of a sweep, as plotly figures."""

from collections.abc import Iterable, Sequence

import plotly.graph_objects as go

from runtime.sweep.axes import Axis
from runtime.sweep.measures import FIGURES, OBJECTIVES
from runtime.sweep.sweep import Row

_HEIGHT = 420


def front(rows: Iterable[Row], front: Iterable[Row], wanted: Sequence[str]) -> go.Figure:
    """Every point between the first two objectives; a line for each model and shape joins its best ones."""
    x, y = (OBJECTIVES[name] for name in wanted[:2])
    best = {id(row) for row in front}
    plot = go.Figure()
    for name, mine in _by_workload(rows).items():
        some = sorted(mine, key=lambda row: float(row.outcome[x]))
        line = [row for row in some if id(row) in best]
        plot.add_scatter(
            x=_values(line, x), y=_values(line, y), mode="lines", line={"dash": "dot", "width": 1, "color": "#808890"},
            hoverinfo="skip", showlegend=False,
        )  # fmt: skip
        plot.add_scatter(
            x=_values(some, x), y=_values(some, y), mode="markers", name=name,
            text=[f"{_label(row)}<br>limited by {row.outcome['limited_by']}" for row in some],
            marker={
                "size": [12 if id(row) in best else 7 for row in some],
                "symbol": ["diamond" if id(row) in best else "circle" for row in some],
            },
        )  # fmt: skip
    return _dressed(plot, _title(x), _title(y))


def across(rows: Iterable[Row], axis: Axis, wanted: Sequence[str]) -> go.Figure:
    """The first objective, at each value of one axis; a line for each model and shape joins the least."""
    y = OBJECTIVES[wanted[0]]
    plot = go.Figure()
    for name, mine in _by_workload(rows).items():
        placed = [row for row in mine if axis.key in row.place]
        plot.add_scatter(
            x=[row.place[axis.key] for row in placed], y=_values(placed, y), mode="markers", name=name,
            text=[_label(row) for row in placed], legendgroup=name,
        )  # fmt: skip
        least = {
            value: min(_values(some, y))
            for value in axis.values
            if (some := [row for row in placed if row.place[axis.key] == value])
        }
        plot.add_scatter(
            x=list(least), y=list(least.values()), mode="lines", line={"width": 1, "color": "#808890"},
            hoverinfo="skip", showlegend=False, legendgroup=name,
        )  # fmt: skip
    plot.update_xaxes(type="category", categoryorder="array", categoryarray=list(axis.values))
    return _dressed(plot, axis.key, _title(y))


def _by_workload(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows that have figures, under the name of their model and shape."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if not row.failed:
            name = " ".join([row.model, *(f"{size} {value}" for size, value in row.sizes.items())])
            found.setdefault(name, []).append(row)
    return found


def _values(rows: Sequence[Row], name: str) -> list[float]:
    return [row.outcome[name] * FIGURES[name].scale for row in rows]


def _title(name: str) -> str:
    figure = FIGURES[name]
    return f"{figure.title} ({figure.unit})" if figure.unit else figure.title


def _label(row: Row) -> str:
    return "<br>".join(f"{key} {value}" for key, value in row.place.items()) or row.chip


def _dressed(plot: go.Figure, x: str, y: str) -> go.Figure:
    return plot.update_layout(
        xaxis_title=x, yaxis_title=y, height=_HEIGHT, hovermode="closest", legend={"orientation": "h", "y": 1.1}
    )
