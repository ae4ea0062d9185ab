"""The plots of a comparison, as plotly figures."""

from itertools import accumulate

import plotly.graph_objects as go

from runtime.compare.document import ComparisonDocument, difference
from runtime.compare.words import SHOWN
from runtime.profile.words import cause

NOISE = 1e-9  # of the whole: sums of floats in another order
_LESS, _MORE, _WHOLE = "#3b7d3b", "#b3401f", "#4a5560"


def waterfall(found: ComparisonDocument, name: str = "cycles") -> go.Figure:
    """From A's figure to B's, part by part."""
    figure = next(figure for figure in found.figures if figure.name == name)
    title, scale = SHOWN[name]
    parts = {
        cause(part, found.waterfall_resource) if name == "cycles" else part: difference(pair) * scale
        for part, pair in figure.parts.items()
        if abs(difference(pair)) > NOISE * abs(figure.total[0])
    }
    a, b = (value * scale for value in figure.total)
    plot = go.Figure()
    plot.add_waterfall(
        x=["A", *parts, "B"],
        y=[a, *parts.values(), b],
        measure=["absolute", *["relative"] * len(parts), "total"],
        text=[f"{a:,.0f}", *(f"{value:+,.0f}" for value in parts.values()), f"{b:,.0f}"],
        decreasing={"marker": {"color": _LESS}},
        increasing={"marker": {"color": _MORE}},
        totals={"marker": {"color": _WHOLE}},
        textangle=0,
        cliponaxis=False,
    )
    levels = [a, *accumulate(parts.values(), initial=a)]
    low, high = min(levels), max(levels)
    room = (high - low) / 4 or 1  # the differences fill the plot; of the wholes only the upper ends are seen
    plot.update_layout(
        yaxis={"title": title, "range": [max(0, low - room), high + room], "tickformat": ","}, height=330
    )
    return plot
