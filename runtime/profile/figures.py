"""The plots of a profile, as plotly figures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from emulator.timing.energy import COMPONENTS
from emulator.timing.timeline import CTL, ENGINES
from isa.architecture import Engine, Space
from runtime.profile.bandwidth import bandwidth
from runtime.profile.buffer_lifetimes import Life, lives
from runtime.profile.colours import LIGHT as COLOURS
from runtime.profile.run import Run
from runtime.profile.words import cause

MAX_SPANS, MAX_BUFFERS, MAX_NODES = 30_000, 4_000, 60  # what a browser draws without effort; nodes: of a layer
_PALETTE = (
    "#4e79a7",
    "#f28e2b",
    "#59a14f",
    "#e15759",
    "#76b7b2",
    "#edc948",
    "#b07aa1",
    "#9c755f",
    "#86bcb6",
    "#d37295",
)
Span = tuple[int, int, str]  # from, to, what


def timeline(report: Run) -> go.Figure:
    """One track per resource that does one thing at a time, and what the bus moves."""
    tracks = _tracks(report)
    spans = sum(map(len, tracks.values()))
    if spans > MAX_SPANS:
        gap = report.cycles * len(tracks) // MAX_SPANS + 1
        tracks = {name: list(_merged(track, gap)) for name, track in tracks.items()}
    figure = go.Figure()
    for name, track in tracks.items():
        x = [at for low, high, _ in track for at in (low, high, None)]
        text = [
            what
            for low, high, label in track
            for what in 2 * (f"{label}<br>{low:,} to {high:,}: {high - low:,} cycles",) + ("",)
        ]
        line = {"color": COLOURS[name], "width": 20, "simplify": False}  # plotly would drop the short ones
        figure.add_scatter(
            x=x, y=[name] * len(x), mode="lines", line=line, text=text, hoverinfo="text", name=name, connectgaps=False
        )
    low, rates = bandwidth(report.timeline)
    figure.add_scatter(
        x=low,
        y=rates,
        yaxis="y2",
        name="DRAM GB/s",
        line={"color": COLOURS["ldw"], "width": 1, "shape": "hv"},
        fill="tozeroy",
    )
    figure.update_layout(
        xaxis={"title": "cycles", "anchor": "y2"},
        yaxis={"domain": [0.27, 1], "categoryorder": "array", "categoryarray": list(tracks)[::-1]},
        yaxis2={"domain": [0, 0.22], "title": "GB/s", "anchor": "x", "rangemode": "tozero"},
        showlegend=False,
        hovermode="closest",
        dragmode="zoom",
        height=430,
    )
    return figure


def _tracks(report: Run) -> dict[str, list[Span]]:
    t = report.timeline
    names = {i: engine.value for i, engine in enumerate(ENGINES)} | {CTL: "dispatch waits"}
    tracks: dict[str, list[Span]] = {
        name: [] for name in ("dispatch waits", "ldw", "lda", "sto", "mxu weights", "mxu", "vec", "act")
    }
    columns = (t.engine, t.ready, t.start, t.work_start, t.work_end, report.node)
    for instruction, engine, ready, start, begin, stop, node in zip(
        t.instructions, *(c.tolist() for c in columns), strict=True
    ):
        name = report.image.debug.nodes[node].name if node >= 0 else ""
        label = f"{name} {instruction.inst.mnemonic} at {instruction.pc:#06x}".strip() + "".join(
            f"[{i}]" for i in instruction.indices
        )
        low, high = (ready, begin) if engine == CTL else (begin, stop)
        if high > low:
            tracks[names[engine]].append((low, high, label))
        if ENGINES[engine] is Engine.MXU and begin > start:
            tracks["mxu weights"].append((start, begin, label))
    return {name: sorted(track) for name, track in tracks.items()}


def _merged(track: list[Span], gap: int) -> Iterator[Span]:
    """Neighbours that no screen could tell apart become one."""
    held: list[Span] = []
    for span in track:
        if held and (span[0] - held[-1][1] > gap or span[1] - held[0][0] > 4 * gap):
            yield _one(held)
            held = []
        held.append(span)
    if held:
        yield _one(held)


def _one(held: list[Span]) -> Span:
    label = held[0][2] if len(held) == 1 else f"{held[0][2]} and {len(held) - 1} more"
    return held[0][0], held[-1][1], label


def waterfall(document: Mapping[str, Any]) -> go.Figure:
    """From the limit to the total: what is between, cause by cause."""
    parts = {"limit": document["limit_cycles"], "excess": document["excess_cycles"]} | {
        k: v for k, v in document["waterfall"].items() if k != "compute"
    }
    ends = np.cumsum(list(parts.values())).tolist()
    names = ["beyond the limit" if name == "excess" else cause(name, document["waterfall_resource"]) for name in parts]
    figure = go.Figure()
    figure.add_bar(
        orientation="h",
        y=[*names, "total"],
        x=[*parts.values(), document["cycles"]],
        base=[*(e - v for e, v in zip(ends, parts.values(), strict=True)), 0],
        marker_color=[*(COLOURS[name] for name in parts), "#4a5560"],
        hoverinfo="text",
        hovertext=[
            f"{n}: {v:,} cycles, {v / document['cycles']:.2%}"
            for n, v in zip([*names, "total"], [*parts.values(), document["cycles"]], strict=True)
        ],
        text=[f"{v:,}" for v in [*parts.values(), document["cycles"]]],
        textposition="auto",
        cliponaxis=False,
    )
    figure.update_layout(yaxis={"autorange": "reversed"}, xaxis={"title": "cycles"}, showlegend=False, height=340)
    return figure


def roofline(report: Run, document: Mapping[str, Any]) -> go.Figure:
    """Attainable speed by arithmetic intensity: the whole run, layers, source lines. Logarithmic on both axes."""
    chip = report.timeline.chip
    peak, rate = chip.mxu.rows * chip.mxu.cols * chip.clock_hz, chip.dram.bytes_per_second
    ridge = peak / rate
    figure = go.Figure()
    whole = [{**document, "name": "whole run"}]
    groups = {
        "source lines": (document["lines"], "#2864c7", 7),
        "layers": (document["layers"], "#b3401f", 9),
        "whole run": (whole, "#d99a00", 13),
    }
    xs = [ridge]
    for name, (rows, colour, size) in groups.items():
        rows = [row for row in rows if row["macs"] and row["dram_bytes"]]
        x = [row["macs"] / row["dram_bytes"] for row in rows]
        y = [row["macs"] * chip.clock_hz / max(_time(row, peak, rate, chip.clock_hz), 1) for row in rows]
        text = [
            f"{row['name'].rpartition('/')[2]}<br>{a:,.1f} MACs/byte, {b / 1e12:.3f} TMAC/s"
            for row, a, b in zip(rows, x, y, strict=True)
        ]
        figure.add_scatter(
            x=x, y=y, mode="markers", name=name, text=text, hoverinfo="text", marker={"color": colour, "size": size}
        )
        xs += x
    low, high, grey = min(xs) / 4, max(xs) * 4, {"color": "#808890"}
    figure.add_scatter(
        x=[low, ridge, high],
        y=[low * rate, peak, peak],
        mode="lines",
        name="limit of the chip",
        line=grey,
        hoverinfo="skip",
    )
    axes = {"xaxis": {"type": "log", "title": "MACs per DRAM byte"}, "yaxis": {"type": "log", "title": "MACs/s"}}
    figure.update_layout(**axes, legend={"orientation": "h", "y": -0.25}, height=340)
    return figure


def _time(row: Mapping[str, Any], peak: int, rate: int, clock: int) -> float:
    """Cycles of a row: its share of the run, or, where other work hides it, those of its busiest resource."""
    least: float = max(row["macs"] / peak, row["dram_bytes"] / rate) * clock
    return max(float(row["cycles"]), least, *map(float, row.get("busy", {}).values()))


def memory(report: Run, space: Space, capacity: int) -> go.Figure:
    """Address by time: each live buffer a rectangle. Of very many, those that hold most for longest."""
    found = sorted(
        lives(report.image, report.timeline, space), key=lambda life: -life.record.bytes * (life.high - life.low)
    )[:MAX_BUFFERS]
    numbers = {name: i for i, name in enumerate(sorted({life.record.name for life in found}))}
    colours = [_PALETTE[numbers[life.record.name] % len(_PALETTE)] for life in found]
    figure = go.Figure()
    figure.add_bar(
        x=[(life.low + life.high) / 2 for life in found],
        width=[max(life.high - life.low, 1) for life in found],
        y=[life.record.bytes for life in found],
        base=[life.record.offset for life in found],
        marker={"color": colours, "line": {"width": 0}},
        hovertext=[_life(life) for life in found],
        hoverinfo="text",
        showlegend=False,
    )
    top = max((life.record.offset + life.record.bytes for life in found), default=0)
    axes = {"xaxis": {"title": "cycles", "range": [0, report.cycles]}, "yaxis": {"title": "address"}}
    title = {"text": f"{space.name}: {top:,} of {capacity:,} bytes used", "font": {"size": 13}}
    figure.update_layout(**axes, title=title, barmode="overlay", bargap=0, height=330)
    return figure


def _life(life: Life) -> str:
    record = life.record
    return f"{record.name}<br>[{record.offset:#x}, {record.offset + record.bytes:#x}): {record.bytes:,} bytes<br>cycles {life.low:,} to {life.high:,}"


def energy(document: Mapping[str, Any]) -> go.Figure:
    """Joules by component."""
    parts = {name: value * 1e6 for name, value in document["energy_joules"].items()}
    return _bars(
        parts,
        [f"{value:,.1f} µJ" for value in parts.values()],
        [COLOURS[name] for name in parts],
        {"title": "µJ a launch"},
    )


def energy_tree(report: Run) -> go.Figure:
    """Joules by layer, node and component; of a layer with very many nodes the small ones are one."""
    tree = _Tree()
    numbers = {row.name: number for number, row in enumerate(report.layers)}
    for name, nodes in sorted(_by_layer(report).items(), key=lambda layer: numbers[layer[0]]):
        key = tree.add(f"layer {numbers[name]}", name or "(no layer)", "", _hue(numbers[name], 76))
        for number, node, parts in nodes:
            place = tree.add(f"{key}/{number}", node, key, _hue(number))
            for component, joules in parts.items():
                tree.add(f"{place}/{component}", component, place, COLOURS[component], joules * 1e6)
    tree.add("static", "static", "", COLOURS["static"], report.activity.static_joules * 1e6)
    figure = go.Figure()
    figure.add_icicle(
        ids=tree.ids, labels=tree.labels, parents=tree.parents, values=tree.values, branchvalues="total", maxdepth=3,
        marker={"colors": tree.colours}, tiling={"orientation": "v"}, sort=False, pathbar={"visible": False},
        hovertemplate="%{label}<br>%{value:,.2f} µJ, %{percentRoot:.1%} of the run<extra></extra>",
    )  # fmt: skip
    figure.update_layout(height=380)
    return figure


class _Tree:
    """Columns of a tree whose branches have what their leaves have."""

    def __init__(self) -> None:
        self.ids, self.labels, self.parents, self.colours = ["run"], ["run"], [""], [""]
        self.values = [0.0]
        self._place = {"run": 0}

    def add(self, key: str, label: str, parent: str, colour: str, value: float = 0.0) -> str:
        self._place[key] = len(self.ids)
        self.ids.append(key)
        self.labels.append(label)
        self.parents.append(parent or "run")
        self.colours.append(colour)
        self.values.append(0.0)
        while key:
            at = self._place[key]
            self.values[at] += value
            key = self.parents[at]
        return self.ids[-1]


def _by_layer(report: Run) -> dict[str, list[tuple[int, str, dict[str, float]]]]:
    """Nodes of each layer: number, name, joules of each component."""
    nodes = report.image.debug.nodes
    sums = np.zeros((len(nodes) + 1, report.activity.joules.shape[1]))
    np.add.at(sums, report.node, report.activity.joules)  # -1, no node, is the last
    layers: dict[str, list[int]] = {}
    for number in np.flatnonzero(sums.any(1)).tolist():
        layers.setdefault(nodes[number].layer if number < len(nodes) else "", []).append(number)
    found = {}
    for layer, numbers in layers.items():
        largest = set(sorted(numbers, key=lambda number: -sums[number].sum())[:MAX_NODES])
        rest = [number for number in numbers if number not in largest]
        rows = [
            (number, nodes[number].name if number < len(nodes) else "(control)", _parts(sums[number]))
            for number in numbers
            if number in largest
        ]
        found[layer] = [*rows, (rest[0], f"({len(rest)} more)", _parts(sums[rest].sum(0)))] if rest else rows
    return found


def _parts(joules: NDArray[np.float64]) -> dict[str, float]:
    return {name: value for name, value in zip(COMPONENTS, joules.tolist(), strict=False) if value}


def _hue(number: int, light: int = 68) -> str:
    """The colour of a node by its number, as the pages have it."""
    return f"hsl({(number + 1) * 137.5 % 360:.1f}, 55%, {light}%)"


def utilisation(document: Mapping[str, Any]) -> go.Figure:
    """Share of the run in which each resource works."""
    parts = document["utilisation"]
    return _bars(
        parts,
        [f"{v:.1%}" for v in parts.values()],
        [COLOURS.get(name, "#4a5560") for name in parts],
        {"tickformat": ".0%", "range": [0, 1]},
    )


def _bars(parts: Mapping[str, float], text: list[str], colours: list[str], axis: Mapping[str, Any]) -> go.Figure:
    figure = go.Figure()
    figure.add_bar(
        orientation="h",
        y=list(parts),
        x=list(parts.values()),
        text=text,
        hoverinfo="skip",
        marker_color=colours,
        cliponaxis=False,
    )
    figure.update_layout(yaxis={"autorange": "reversed"}, xaxis=axis, height=300)
    return figure


def context(points: Sequence[Mapping[str, float]]) -> go.Figure:
    """Tokens per second over the length of a decoder's context, and what the bytes that must move would allow."""
    figure = go.Figure()
    tokens = [point["tokens"] for point in points]
    speeds = [point["tokens_per_second"] for point in points]
    most = [speed / point["of_limit"] for speed, point in zip(speeds, points, strict=True)]
    figure.add_scatter(x=tokens, y=most, mode="lines", name="limit of DRAM", line={"color": "#808890", "dash": "dot"})
    figure.add_scatter(x=tokens, y=speeds, mode="lines", name="tokens/s", line={"color": COLOURS["mxu"]})
    figure.update_layout(
        xaxis={"title": "tokens in the context"}, yaxis={"title": "tokens/s", "rangemode": "tozero"}, height=300,
        legend={"orientation": "h", "y": 1.15},
    )  # fmt: skip
    return figure


PLOTS: dict[str, Callable[[Run, Mapping[str, Any]], go.Figure]] = {  # of a run and its document
    "timeline": lambda report, document: timeline(report),
    "waterfall": lambda report, document: waterfall(document),
    "roofline": roofline,
    "utilisation": lambda report, document: utilisation(document),
    "energy": lambda report, document: energy(document),
    "energy_tree": lambda report, document: energy_tree(report),
    "sram": lambda report, document: memory(report, Space.SRAM, report.timeline.chip.sram.bytes),
    "acc": lambda report, document: memory(report, Space.ACC, report.timeline.chip.acc.bytes),
}
