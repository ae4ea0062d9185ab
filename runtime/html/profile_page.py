"""One HTML file that shows a timing run: bands of layers, lines and nodes over engines, stalls and memories; tables of
everything; waterfall, roofline, utilisation and energy.

The file is complete: scripts, the libraries' own too, are inside, and a policy forbids it to load anything.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runtime.html.profile_data import encoded, page_data
from runtime.html.templates import rendered
from runtime.plotting import plotting
from runtime.profile.document import ProfileDocument
from runtime.profile.run import Run

SHOWN = ("waterfall", "roofline", "utilisation", "energy", "energy_tree")  # figures; the rest is drawn from the data
_CLEAR, _GREY = "rgba(0,0,0,0)", "#808890"  # read on white and on black


def page(run: Run, d: ProfileDocument, listing: str = "", context: Sequence[Mapping[str, Any]] = ()) -> str:
    """The whole file. `listing`: where the program's page of `llmcc disasm --html` is, as seen from this one; `context`:
    points over the length of a decoder's context. Raises InputError without plotly."""
    data = page_data(run, d, plots(run, d, context), listing, context)
    return rendered(
        "profile.html", encoded(data), title=title(d), facts=list(facts(d)), listing=listing, context=context
    )


def title(d: ProfileDocument) -> str:
    entry = f", {d.entry}" if d.entry != "main" else ""
    return f"{d.program}{entry} on chip {d.chip}"


def plots(run: Run, d: ProfileDocument, context: Sequence[Mapping[str, Any]] = ()) -> dict[str, str]:
    """The figures of the page as JSON. Raises InputError without plotly."""
    with plotting("the page"):
        from runtime.profile import figures
    document = d.as_dict()
    found = {name: figures.PLOTS[name](run, document) for name in SHOWN}
    if context:
        found["context"] = figures.context(context)
    for name, plot in found.items():
        plot.update_layout(
            template="none",
            margin={"l": 60, "r": 20, "t": 20, "b": 40} if name != "energy_tree" else {"l": 0, "r": 0, "t": 4, "b": 4},
            font={"size": 11, "color": _GREY},
            paper_bgcolor=_CLEAR,
            plot_bgcolor=_CLEAR,
            modebar={"bgcolor": _CLEAR},
        )
        plot.update_yaxes(automargin=True, gridcolor="rgba(128,136,144,0.25)")
        plot.update_xaxes(automargin=True, gridcolor="rgba(128,136,144,0.25)")
    return {name: plot.to_json() for name, plot in found.items()}


def facts(d: ProfileDocument) -> Iterator[tuple[str, str]]:
    """Names and values of what the run comes to."""
    whose = "of the model" if d.limit_source == "graph" else "of the program"
    yield "cycles", f"{d.cycles:,}"
    yield "latency", f"{d.seconds * 1e6:,.1f} µs"
    yield "throughput", f"{d.launches_per_second:,.1f}/s"
    yield f"limit {whose} ({d.limit_resource})", f"{d.limit_cycles:,}"
    yield "reached", f"{d.of_limit:.3f}"
    yield "MACs", f"{d.macs:,}"
    yield "DRAM bytes", f"{d.dram_bytes:,}"
    yield "bandwidth", f"{d.bandwidth_bytes_per_second / 1e9:.1f} GB/s"
    yield "intensity", f"{d.arithmetic_intensity:.1f} MACs/byte"
    yield "energy", f"{d.total_joules * 1e3:.3f} mJ"
    yield "power", f"{d.watts:.2f} W"
    yield "instructions executed", f"{d.instructions:,} of {d.program_words:,}"
