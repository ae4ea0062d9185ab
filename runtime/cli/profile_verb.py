"""`llmcc profile`: how fast a program is, how fast it could be, and what lies between."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isa.image.image import Image
from runtime.cli import completion
from runtime.cli.common import (
    Given,
    Stages,
    common_options,
    entry_option,
    examples,
    model_options,
    need,
    note,
    reply,
    size,
    stages,
    stdout,
    styled,
)
from runtime.cli.programs import entry_of, open_any
from runtime.cli.tables import Column, show

if TYPE_CHECKING:
    from rich.console import Console

    from runtime.profile.profile import Profile
    from runtime.pytorch.compilation import Compilation

# Of a narrow terminal the busy times of single engines go first, then the line of code.
_FIGURES = (
    Column("cycles", right=True),
    Column("share", right=True),
    Column("mxu", right=True, spare=5),
    Column("vec", right=True, spare=6),
    Column("act", right=True, spare=7),
    Column("MACs", right=True, spare=3),
    Column("DRAM", right=True, spare=2),
    Column("µJ", right=True, spare=1),
    Column("", spare=4, prose=True),
)
_TABLES = {"layers": "layer", "nodes": "node", "lines": "source line"}


@click.command(
    name="profile",
    epilog=examples(
        "llmcc profile minilm --seq 128",
        "llmcc profile minilm.llmchip --model minilm --top 30",
        "llmcc profile gemm.s --json",
        "llmcc profile minilm --trace run.json --html run.html",
        "llmcc profile llm.llmchip --entry decode --tokens 1:4096",
    ),
)
@click.argument("model", metavar="MODEL|FILE", shell_complete=completion.models)
@click.option(
    "--model",
    "origin",
    metavar="MODEL",
    help="For a FILE: the model it was compiled from, to know its speed of light.",
)
@click.option(
    "--top",
    metavar="N",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="Rows of each table, the most costly; 0: no tables.",
)
@entry_option
@click.option(
    "--tokens",
    metavar="START:STOP[:STEPS]|LIST",
    help="For a decoder: a table over the length of the context, with the DRAM limit beside it.",
)
@click.option("--trace", metavar="FILE", type=click.Path(dir_okay=False), help="Write a trace for ui.perfetto.dev.")
@click.option(
    "--html",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Write one self-contained page: timeline, roofline, waterfall, memory map.",
)
@model_options
@common_options
def command(
    model: str,
    origin: str | None,
    entry: str | None,
    tokens: str | None,
    top: int,
    trace: str | None,
    html: str | None,
    as_json: bool,
    traceback: bool,
    **rest: Any,
) -> int:
    """Run a program in timing mode and say where its cycles and its energy go.

    A MODEL is compiled first; a FILE is an image or assembly text. The parts of the waterfall add up to the total
    exactly, and so do the tables by layer, node and source line. The limit is that of the model's operations on this
    chip, whatever the program; for a FILE alone, that of its own instructions. Rules and words are explained in
    docs/timing.md.
    """
    for path in filter(None, (trace, html)):
        need(Path(path).resolve().parent.is_dir(), "the folder does not exist", path, "make it first")
    with stages("profile") as stage:
        image, compiled = open_any(model, Given(**rest), stage, origin)
        if entry is not None:
            entry_of(image, entry, model)
        if tokens is not None:
            need(trace is None and html is None, "--tokens does not go with --trace or --html", model, "leave it out")
            return _over_context(image, compiled, entry, tokens, model, as_json, stage)
        stage("time the program")
        report = _profile(image, compiled, entry, model)
        stage("sum up")
        document = report.as_dict(model)
        files = _write(report, document, trace, html, stage)
    document |= {"files": files, "seconds_spent": stage.seconds}
    reply(document, as_json, lambda: _print(document, top))
    return 0


def _profile(image: Image, compiled: "Compilation | None", entry: str | None, path: str) -> "Profile":
    from runtime.profile.profile import profile, timing

    start = image.entry(entry)
    if start.scalars:
        values = ", ".join(f"{scalar.name} = {scalar.maximum}" for scalar in start.scalars)
        note(f"entry '{start.name}' with {values}, the most; --tokens profiles it over the length of the context")
    with timing(path):
        return profile(image, compiled, entry=entry)


def _over_context(
    image: Image, compiled: "Compilation | None", entry: str | None, tokens: str, path: str, as_json: bool,
    stage: Stages,
) -> int:  # fmt: skip
    from runtime.profile.context import lengths, over_context
    from runtime.profile.profile import timing

    graph = compiled.lowered.main.graph if compiled is not None and len(image.entries) == 1 else None
    wanted = lengths(tokens, image, entry)
    stage("time the program")
    with timing(path):
        points = [point.as_dict() for point in over_context(image, entry, wanted, graph)]
    document = {
        "program": path,
        "entry": image.entry(entry).name,
        "chip": image.chip.name,
        "limit_source": "program" if graph is None else "graph",
        "points": points,
        "seconds_spent": stage.seconds,
    }
    reply(document, as_json, lambda: _print_context(document))
    return 0


def _print_context(document: Mapping[str, Any]) -> None:
    whose = "the program" if document["limit_source"] == "program" else "the model"
    stdout().print(
        f"entry {document['entry']} on chip {document['chip']}; the limit: bytes of {whose} that must move, each once",
        soft_wrap=True,
    )
    rows = [
        (
            f"{p['tokens']:,}", f"{p['cycles']:,}", f"{p['tokens_per_second']:,.1f}",
            f"{p['joules_per_token'] * 1e3:,.4f}", size(p["dram_bytes"]), f"{p['limit_cycles']:,}", f"{p['of_limit']:.3f}",
        )
        for p in document["points"]
    ]  # fmt: skip
    names = "context", "cycles", "tokens/s", "mJ/token", "DRAM", "DRAM limit", "of limit"
    show([Column(name, right=True, spare=1 if name == "DRAM" else 0) for name in names], rows)


def _write(
    report: "Profile", document: Mapping[str, Any], trace: str | None, html: str | None, stage: Any
) -> list[str]:
    """The files that were asked for."""
    if trace is not None:
        from runtime.profile.perfetto import write_trace

        stage("write the trace")
        write_trace(report, trace)
    if html is not None:
        from isa.files import write_atomic
        from runtime.html.profile_page import page

        stage("write the page")
        write_atomic(html, [page(report, document).encode("utf-8", "backslashreplace")])
    return [path for path in (trace, html) if path is not None]


def _print(document: Mapping[str, Any], top: int) -> None:
    console = stdout()
    _head(console, document)
    _resources(console, document)
    _waterfall(console, document)
    for key, title in _TABLES.items() if top else ():
        if len(document[key]) < 2:
            continue  # nothing is known that would tell its instructions apart
        _table(console, title, document[key], document["cycles"], top)
    for path in document["files"]:
        console.print(f"wrote {path}", soft_wrap=True)


def _head(console: "Console", d: Mapping[str, Any]) -> None:
    speed = f", {d['seconds'] * 1e6:,.1f} µs a launch, {d['launches_per_second']:,.1f} launches/s on chip {d['chip']}"
    console.print(styled((f"{d['cycles']:,} cycles", "bold"), speed))
    whose = (
        "of the model's operations"
        if d["limit_source"] == "graph"
        else "of the program's own instructions (--model MODEL takes the model's)"
    )
    limit = f"limit {d['limit_cycles']:,} cycles ({d['limit_resource']}), {whose}: reached "
    console.print(styled(limit, (f"{d['of_limit']:.3f}", "bold")), soft_wrap=True)
    console.print(
        f"{d['instructions']:,} instructions executed of {d['program_words']:,}, {d['macs']:,} MACs, {size(d['dram_bytes'])} of DRAM at "
        f"{d['bandwidth_bytes_per_second'] / 1e9:.1f} GB/s, {d['arithmetic_intensity']:.1f} MACs per byte",
        soft_wrap=True,
    )
    joules = d["energy_joules"]
    parts = ", ".join(f"{name} {value / d['total_joules']:.0%}" for name, value in joules.items() if d["total_joules"])
    console.print(f"{d['total_joules'] * 1e3:.3f} mJ, {d['watts']:.2f} W: {parts}", soft_wrap=True)


def _resources(console: "Console", d: Mapping[str, Any]) -> None:
    limits = d["limits"]
    parts = [
        f"{name} {share:.1%}" + (f" (limit {limits[name]:,})" if name in limits else "")
        for name, share in d["utilisation"].items()
    ]
    console.print("busy: " + ", ".join(parts), soft_wrap=True)


def _waterfall(console: "Console", d: Mapping[str, Any]) -> None:
    total = d["cycles"]
    rows = [
        (name, f"{count:,}", f"{count / total:.1%}", "█" * round(40 * count / total))
        for name, count in _parts(d).items()
    ]
    columns = [Column("waterfall"), Column("cycles", right=True), Column("share", right=True), Column("", spare=1)]
    show(columns, [*rows, ("total", f"{total:,}", "100.0%", "")], ["", *[""] * (len(rows) - 1), "bold"])


def _parts(d: Mapping[str, Any]) -> dict[str, int]:
    """The waterfall, what the limit asks for apart from the rest of the limiting resource's work."""
    parts: dict[str, int] = dict(d["waterfall"])
    if d["excess_cycles"] < 0:  # the limit counts what this program never does on that resource
        return parts
    compute = parts.pop("compute")
    return {"limit": compute - d["excess_cycles"], "beyond the limit": d["excess_cycles"], **parts}


def _table(console: "Console", title: str, rows: Sequence[Mapping[str, Any]], total: int, top: int) -> None:
    shown: list[tuple[str, ...]] = []
    for row in sorted(rows, key=lambda row: -row["cycles"])[:top]:
        busy = [f"{row['busy'].get(name, 0):,}" for name in ("mxu", "vec", "act")]
        figures = f"{row['macs']:,}", size(row["dram_bytes"]), f"{row['energy_joules'] * 1e6:,.1f}"
        shown.append(
            (_short(row["name"]), f"{row['cycles']:,}", f"{row['cycles'] / total:.1%}", *busy, *figures, _about(row))
        )
    styles = [""] * len(shown)
    if len(rows) > top:
        rest = sum(row["cycles"] for row in sorted(rows, key=lambda row: -row["cycles"])[top:])
        shown.append((f"({len(rows) - top} more)", f"{rest:,}", f"{rest / total:.1%}"))
        styles.append("dim")
    console.print()
    show([Column(title, prose=True, by_end=True), *_FIGURES], shown, styles)


def _short(name: str) -> str:
    """A file without its folders; the page and the document have them."""
    return name.rpartition("/")[2] or "(none)"


def _about(row: Mapping[str, Any]) -> str:
    text = " ".join(str(row.get("op") or row.get("code") or "").split())
    return f"{text[:56]}…" if len(text) > 57 else text
