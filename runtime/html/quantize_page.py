"""The page of `llmcc quantize --report`: how sensitive each layer is, and what whole models cost. Complete in itself."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from runtime.html.page import inside_script
from runtime.html.plot_page import filled
from runtime.plotting import plotting
from runtime.quantize.document import QuantizeDocument

if TYPE_CHECKING:
    import plotly.graph_objects as go

_COLOURS = ("#3b6ea8", "#b3401f", "#3b7d3b", "#8a5aa8", "#b08a1f", "#808890")
_LEAST = 1e-9  # errors below this are drawn here: the axis is logarithmic


def page(d: QuantizeDocument) -> str:
    """The whole file. Raises InputError without plotly."""
    with plotting("the page"):
        plots = {"layers": _sensitivity(d), "models": _models(d)}
    for plot in plots.values():
        _plain(plot)
    data = "{" + ",".join(f'"{name}":{plot.to_json()}' for name, plot in plots.items()) + "}"
    parts = {
        "TITLE": escape(f"Quantization of {d.model}"),
        "FACTS": "".join(_facts(d)),
        "LAYERS": _table(_layer_head(d), _layer_rows(d)),
        "MODELS": _table(("cosine", "worst", "argmax", "cycles", "reaches the target", "quantization"), _model_rows(d)),
        "DATA": inside_script(data),
    }
    return filled("runtime.html", "quantize.html", parts)


def _sensitivity(d: QuantizeDocument) -> "go.Figure":
    import plotly.graph_objects as go

    plot = go.Figure()
    names = [layer.module for layer in d.layers]
    for number, scheme in enumerate(_schemes(d)):
        errors = [
            max(choice.error, _LEAST) for layer in d.layers for choice in layer.choices if choice.scheme == scheme
        ]
        colour = _COLOURS[number % len(_COLOURS)]
        plot.add_scatter(x=names, y=errors, name=scheme, mode="markers", marker={"color": colour, "size": 7})
    plot.update_yaxes(type="log", title="1 - cosine")
    plot.update_xaxes(tickangle=-60, automargin=True)
    plot.update_layout(height=480)
    return plot


def _models(d: QuantizeDocument) -> "go.Figure":
    import plotly.graph_objects as go

    plot = go.Figure()
    colours = ["#3b7d3b" if d.reaches(m) else "#b3401f" for m in d.measured]
    sizes = [14 if m.quantization == d.suggestion else 8 for m in d.measured]
    plot.add_scatter(
        x=[m.cycles for m in d.measured], y=[max(1 - m.cosine, _LEAST) for m in d.measured], mode="markers",
        marker={"color": colours, "size": sizes}, text=[m.quantization[:120] for m in d.measured], showlegend=False,
    )  # fmt: skip
    if "cosine" in d.target:
        plot.add_hline(y=max(1 - d.target["cosine"], _LEAST), line={"dash": "dot", "color": "#808890"})
    plot.update_yaxes(type="log", title="1 - cosine")
    plot.update_xaxes(title="cycles", tickformat=",")
    plot.update_layout(height=360)
    return plot


def _plain(plot: Any) -> None:
    clear = "rgba(0,0,0,0)"
    plot.update_layout(
        template="none", margin={"l": 80, "r": 20, "t": 20, "b": 60}, font={"size": 11, "color": "#808890"},
        paper_bgcolor=clear, plot_bgcolor=clear, modebar={"bgcolor": clear}, legend={"orientation": "h", "y": 1.1},
    )  # fmt: skip
    plot.update_yaxes(gridcolor="rgba(128,136,144,0.25)", automargin=True, exponentformat="power")


def _schemes(d: QuantizeDocument) -> list[str]:
    return [choice.scheme for choice in d.layers[0].choices] if d.layers else []


def _facts(d: QuantizeDocument) -> Iterator[str]:
    yield _row(("model", d.model))
    yield _row(("chip", d.chip))
    yield _row(("data", f"{d.samples} samples, {d.source}; output '{d.output}'"))
    yield _row(("target", ", ".join(f"{name} at least {least:g}" for name, least in d.target.items())))
    yield _row(("smoothing", "none" if d.smoothing is None else f"{d.smoothing:g}"))
    yield _row(("suggestion", d.suggestion or "nothing that was measured reaches the target"))


def _layer_head(d: QuantizeDocument) -> list[str]:
    return ["layer", "rows, k, n", *(f"{name}: error" for name in _schemes(d)), *(f"{s}: cycles" for s in _schemes(d))]


def _layer_rows(d: QuantizeDocument) -> Iterator[list[str]]:
    for layer in d.layers:
        errors = [f"{choice.error:.1e}" for choice in layer.choices]
        cycles = [f"{choice.cycles:,}" for choice in layer.choices]
        yield [layer.module, f"{layer.rows}, {layer.k}, {layer.n}", *errors, *cycles]


def _model_rows(d: QuantizeDocument) -> Iterator[list[str]]:
    for m in d.measured:
        argmax = "" if m.argmax is None else f"{m.argmax:.3f}"
        reached = "yes" if d.reaches(m) else "no"
        mark = " (suggested)" if m.quantization == d.suggestion else ""
        yield [f"{m.cosine:.5f}", f"{m.worst:.5f}", argmax, f"{m.cycles:,}", reached + mark, m.quantization]


def _table(head: Sequence[str], rows: Iterator[list[str]]) -> str:
    return f"<table>{_row(head, 'th')}{''.join(map(_row, rows))}</table>"


def _row(cells: Sequence[str], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
