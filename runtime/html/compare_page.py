"""The page of `llmcc compare --html`: what has changed, by cause, layer and node. Complete in itself, with plotly's
script inside; its own policy forbids it to load anything."""

from collections.abc import Iterator, Sequence
from html import escape

from runtime.compare.document import Change, ComparisonDocument, difference
from runtime.compare.words import SHOWN, signed, title_of
from runtime.html.page import inside_script
from runtime.html.plot_page import filled
from runtime.plotting import plotting
from runtime.profile.words import cause

_HEADS = ("", "layers", "cycles A", "cycles B", "B-A", "% of the run", "µJ", "DRAM bytes", "instructions", "mostly")


def page(found: ComparisonDocument) -> str:
    """The whole file. Raises InputError without plotly."""
    with plotting("the page"):
        from runtime.compare.figures import waterfall
    plots = {name: waterfall(found, name) for name in SHOWN}
    clear = "rgba(0,0,0,0)"
    for plot in plots.values():
        plot.update_layout(
            template="none",
            margin={"l": 80, "r": 20, "t": 20, "b": 60},
            font={"size": 11, "color": "#808890"},  # read on white and on black
            paper_bgcolor=clear,
            plot_bgcolor=clear,
            modebar={"bgcolor": clear},
        )
        plot.update_yaxes(gridcolor="rgba(128,136,144,0.25)", automargin=True)
    data = "{" + ",".join(f'"{name}":{plot.to_json()}' for name, plot in plots.items()) + "}"
    parts = {
        "TITLE": escape(f"{found.a} and {found.b}"),
        "FACTS": "".join(_facts(found)),
        "LAYERS": _table("By layer", found.layers, found),
        "NODES": _table("By node", found.nodes, found),
        "DATA": inside_script(data),
    }
    return filled("runtime.html", "compare.html", parts)


def _facts(found: ComparisonDocument) -> Iterator[str]:
    yield _row(("", "A", "B", "B-A", "%"), "th")
    yield _row(("program", found.a, found.b, "", ""))
    yield _row(("chip", *found.chips, "", ""))
    for figure in found.figures:
        (title, scale), (a, b) = SHOWN[figure.name], figure.total
        part = f"{(b - a) / a:+.1%}" if a else ""
        yield _row((title, f"{a * scale:,.0f}", f"{b * scale:,.0f}", signed((b - a) * scale), part))
    for name, (left, right) in found.facts.items():
        yield _row((name, left, right, "", ""))


def _table(title: str, changes: Sequence[Change], found: ComparisonDocument) -> str:
    body = "".join(_row(_cells(change, found)) for change in changes)
    left_out = found.left_out[title.split()[-1] + "s"]
    more = f"and {left_out} below {found.threshold:.1%} of the run" if left_out else ""
    return f"<section><h2>{title} <small>{more}</small></h2><table>{_row(_HEADS, 'th')}{body}</table></section>\n"


def _cells(change: Change, found: ComparisonDocument) -> list[str]:
    total = found.figures[0].total[0]
    deltas = {name: difference(getattr(change, name)) for name in SHOWN}
    return [
        title_of(change),
        ", ".join(change.layers),
        *(f"{cycles:,}" for cycles in change.cycles),
        signed(deltas["cycles"]),
        f"{deltas['cycles'] / total:+.1%}" if total else "",
        f"{deltas['energy_joules'] * 1e6:+,.1f}",
        signed(deltas["dram_bytes"]),
        signed(deltas["instructions"]),
        cause(change.cause, found.waterfall_resource),
    ]


def _row(cells: Sequence[str], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
