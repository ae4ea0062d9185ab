"""One HTML file that shows a timing run: timeline, waterfall, roofline, utilisation, energy, memory map and tables.

The file is complete: the plotting library's own script is inside, and a policy forbids it to load anything.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from runtime.html.page import inside_script
from runtime.html.plot_page import filled
from runtime.plotting import plotting
from runtime.profile.run import Run

_TABLES = {"layers": "By layer", "nodes": "By node", "lines": "By source line"}
_ROWS = 60
_HEADS = ("", "cycles", "share", "mxu", "vec", "act", "MACs", "DRAM bytes", "µJ", "instructions", "")


def page(report: Run, document: Mapping[str, Any]) -> str:
    """The whole file. `document` is what `llmcc profile --json` says. Raises InputError without plotly."""
    with plotting("the page"):
        from runtime.profile.figures import PLOTS
    plots = {name: plot(report, document) for name, plot in PLOTS.items()}
    for plot in plots.values():
        plot.update_layout(
            template="none",
            margin={"l": 90, "r": 20, "t": 30, "b": 40},
            font={"size": 11},
            modebar={"bgcolor": "rgba(0,0,0,0)"},
        )
        plot.update_yaxes(automargin=True)
    data = "{" + ",".join(f'"{name}":{plot.to_json()}' for name, plot in plots.items()) + "}"
    parts = {
        "TITLE": escape(f"{document['program']} on chip {document['chip']}"),
        "FACTS": "".join(_facts(document)),
        "TABLES": "".join(_tables(document)),
        "DATA": inside_script(data),
    }
    return filled("runtime.html", "profile.html", parts)


def _facts(d: Mapping[str, Any]) -> Iterator[str]:
    whose = "the model's operations" if d["limit_source"] == "graph" else "the program's instructions"
    facts = {
        "cycles": f"{d['cycles']:,}",
        "latency": f"{d['seconds'] * 1e6:,.1f} µs",
        "throughput": f"{d['launches_per_second']:,.1f}/s",
        f"limit ({d['limit_resource']}, {whose})": f"{d['limit_cycles']:,}",
        "reached": f"{d['of_limit']:.3f}",
        "MACs": f"{d['macs']:,}",
        "DRAM bytes": f"{d['dram_bytes']:,}",
        "bandwidth": f"{d['bandwidth_bytes_per_second'] / 1e9:.1f} GB/s",
        "intensity": f"{d['arithmetic_intensity']:.1f} MACs/byte",
        "energy": f"{d['total_joules'] * 1e3:.3f} mJ",
        "power": f"{d['watts']:.2f} W",
        "instructions executed": f"{d['instructions']:,} of {d['program_words']:,}",
    }
    for name, value in facts.items():
        yield f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"


def _tables(document: Mapping[str, Any]) -> Iterator[str]:
    for key, title in _TABLES.items():
        rows = sorted(document[key], key=lambda row: -row["cycles"])
        if len(rows) > 1:
            note = f" <small>the first {_ROWS} of {len(rows)}</small>" if len(rows) > _ROWS else ""
            body = "".join(_row(_cells(row, document["cycles"])) for row in rows[:_ROWS])
            yield f"<section><h2>{title}{note}</h2><table><thead>{_row(_HEADS, 'th')}</thead><tbody>{body}</tbody></table></section>\n"


def _cells(row: Mapping[str, Any], total: int) -> list[str]:
    busy = [f"{row['busy'].get(name, 0):,}" for name in ("mxu", "vec", "act")]
    figures = (
        f"{row['macs']:,}",
        f"{row['dram_bytes']:,}",
        f"{row['energy_joules'] * 1e6:,.1f}",
        f"{row['instructions']:,}",
    )
    about = " ".join(str(row.get("op") or row.get("code") or "").split())
    name = row["name"].rpartition("site-packages/")[2] or "(none)"
    return [name, f"{row['cycles']:,}", f"{row['cycles'] / total:.1%}", *busy, *figures, about[:100]]


def _row(cells: Sequence[str], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
