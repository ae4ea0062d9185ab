"""`llmcc profile`: how fast a program is, how fast it could be, and what lies between."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click
from click.core import ParameterSource
from msgspec import structs, to_builtins

from isa.files import write_atomic
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
)
from runtime.cli.outputs import STDOUT, OutputFile
from runtime.cli.programs import entry_of, open_any
from runtime.cli.tables import Column, show
from runtime.plotting import check_plotting

if TYPE_CHECKING:
    from runtime.profile.document import ProfileDocument
    from runtime.profile.profile import Profile
    from runtime.pytorch.compilation import Compilation

TABLES = ("layers", "nodes", "lines")
_SORTS = ("cycles", "mxu", "vec", "act", "macs", "dram", "energy", "instructions", "order")


@click.command(
    name="profile",
    epilog=examples(
        "llmcc profile minilm --seq 128",
        "llmcc profile minilm.llmchip --model minilm --top 30",
        "llmcc profile minilm.llmchip --layer 3 --causes",
        "llmcc profile minilm.llmchip --table nodes --sort dram --csv nodes.csv",
        "llmcc profile gemm.s --json",
        "llmcc profile minilm --trace run.json --html run.html --disasm code.html",
        "llmcc profile llm.llmchip --entry decode --tokens 1:4096 --html decode.html",
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
    help="Rows of each table, the first of the order; 0: no tables.",
)
@click.option(
    "--layer",
    "layers",
    metavar="N|PATTERN",
    multiple=True,
    help="Only nodes of this layer, by its number or name, or of this module, by its path.",
)
@click.option("--node", "nodes", metavar="PATTERN", multiple=True, help="Only nodes whose name matches.")
@click.option(
    "--table",
    type=click.Choice(TABLES),
    help="Show this table alone; for --csv, the one that is written. [default: all; for --csv nodes]",
)
@click.option(
    "--sort",
    type=click.Choice(_SORTS),
    default="cycles",
    show_default=True,
    help="What is large comes first; order: as in the program.",
)
@click.option("--causes", is_flag=True, help="Of each row the parts of the waterfall, in place of its work.")
@click.option(
    "--stalls",
    metavar="N",
    type=click.IntRange(0, 10),
    default=3,
    show_default=True,
    help="The longest times that the limiting resource stood idle, and why.",
)
@click.option(
    "--csv",
    "csv_file",
    metavar="FILE",
    type=OutputFile(allow_dash=True),
    help="Write all rows of a table; -: to stdout.",
)
@entry_option
@click.option(
    "--tokens",
    metavar="START:STOP[:STEPS]|LIST",
    help="For a decoder: a table over the length of the context, with the DRAM limit beside it.",
)
@click.option("--trace", metavar="FILE", type=OutputFile(), help="Write a trace for ui.perfetto.dev.")
@click.option(
    "--html",
    metavar="FILE",
    type=OutputFile(check_plotting),
    help="Write one self-contained page: layers, nodes, engines, stalls and memories over time, tables, plots. With "
    "--tokens, the lengths, and the run of the longest.",
)
@click.option(
    "--disasm",
    metavar="FILE",
    type=OutputFile(),
    help="Of --html: write the page of 'llmcc disasm', too, to which its rows lead.",
)
@model_options
@common_options
def command(
    model: str,
    origin: str | None,
    entry: str | None,
    tokens: str | None,
    top: int,
    layers: tuple[str, ...],
    nodes: tuple[str, ...],
    table: str | None,
    sort: str,
    causes: bool,
    stalls: int,
    csv_file: str | None,
    trace: str | None,
    html: str | None,
    disasm: str | None,
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
    if layers or nodes:
        need(table in (None, "nodes"), f"--layer and --node choose nodes, not {table}", model, "leave --table out")
    to_stdout = csv_file == STDOUT
    need(not (to_stdout and as_json), "--csv - and --json both write to stdout", model, "name a file")
    need(html is not None or disasm is None, "--disasm goes with --html", model, "give both, or 'llmcc disasm --html'")
    if tokens is not None:
        source = click.get_current_context().get_parameter_source
        given = {
            "--trace": trace,
            "--csv": csv_file,
            "--layer": layers,
            "--node": nodes,
            "--table": table,
            "--causes": causes,
            **{f"--{name}": source(name) is not ParameterSource.DEFAULT for name in ("top", "sort", "stalls")},
        }
        for flag, value in given.items():
            need(not value, f"--tokens does not go with {flag}", model, "leave it out; --json has all figures")
    with stages("profile") as stage:
        image, compiled = open_any(model, Given(**rest), stage, origin)
        if entry is not None:
            entry_of(image, entry, model)
        if tokens is not None:
            return _over_context(image, compiled, entry, tokens, model, _Pages(html, disasm), as_json, stage)
        stage("time the program")
        report = _profile(image, compiled, entry, model)
        stage("sum up")
        from runtime.cli.profile_text import csv_of, print_profile, print_selection
        from runtime.profile.select import select

        whole = report.document(model)
        document = whole
        if layers or nodes:
            chosen = select(whole.nodes, layers, nodes)
            waits = report.stalls(nodes={row.name for row in chosen})
            document = structs.replace(whole, nodes=chosen, stalls=waits)
        files = [*_trace(report, trace, stage), *_Pages(html, disasm).write(report, whole, stage)]
    if csv_file is not None:
        rows = csv_of(document, table or "nodes", sort)
        if to_stdout:
            click.echo(rows, nl=False)
            return 0
        write_atomic(csv_file, [rows.encode("utf-8", "backslashreplace")])
        files.append(csv_file)

    def text() -> None:
        if layers or nodes:
            print_selection(document, sort, top, causes, stalls)
        else:
            print_profile(document, [table] if table else TABLES, sort, top, causes, stalls)
        for path in files:
            stdout().print(f"wrote {path}", soft_wrap=True)

    reply({**to_builtins(document), "files": files, "seconds_spent": stage.seconds}, as_json, text)
    return 0


@dataclass(frozen=True)
class _Pages:
    """The pages that were asked for: of the profile, and of the assembly that it leads to."""

    html: str | None
    disasm: str | None

    def write(
        self, report: "Profile", document: "ProfileDocument", stage: Stages, context: Sequence[Mapping[str, Any]] = ()
    ) -> list[str]:
        if self.html is None:
            return []
        from runtime.html.profile_page import page

        stage("write the page")
        listing = ""
        if self.disasm is not None:
            from runtime.html import page as assembly

            write_atomic(
                self.disasm, [assembly.page(report.image, document.program, report).encode("utf-8", "backslashreplace")]
            )
            listing = quote(Path(os.path.relpath(self.disasm, Path(self.html).parent)).as_posix())
        write_atomic(self.html, [page(report, document, listing, context).encode("utf-8", "backslashreplace")])
        return [path for path in (self.html, self.disasm) if path is not None]


def _profile(image: Image, compiled: "Compilation | None", entry: str | None, path: str) -> "Profile":
    from runtime.profile.profile import profile, timing

    start = image.entry(entry)
    if start.scalars:
        values = ", ".join(f"{scalar.name} = {scalar.maximum}" for scalar in start.scalars)
        note(f"entry '{start.name}' with {values}, the most; --tokens profiles it over the length of the context")
    with timing(path):
        return profile(image, compiled, entry=entry)


def _over_context(
    image: Image, compiled: "Compilation | None", entry: str | None, tokens: str, path: str, pages: _Pages,
    as_json: bool, stage: Stages,
) -> int:  # fmt: skip
    from runtime.profile.context import context_values, lengths, over_context
    from runtime.profile.profile import profile, timing

    graph = compiled.lowered.main.graph if compiled is not None and len(image.entries) == 1 else None
    wanted = lengths(tokens, image, entry)
    stage("time the program")
    with timing(path):
        points = [point.as_dict() for point in over_context(image, entry, wanted, graph)]
        files = []
        if pages.html is not None:
            values = context_values(image.entry(entry), max(wanted))
            report = profile(image, compiled if graph is not None else None, entry=entry, values=values)
            files = pages.write(report, report.document(path), stage, points)
    document = {
        "program": path,
        "entry": image.entry(entry).name,
        "chip": image.chip.name,
        "limit_source": "program" if graph is None else "graph",
        "points": points,
        "files": files,
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
    for path in document["files"]:
        stdout().print(f"wrote {path}", soft_wrap=True)


def _trace(report: "Profile", path: str | None, stage: Stages) -> list[str]:
    if path is None:
        return []
    from runtime.profile.perfetto import write_trace

    stage("write the trace")
    write_trace(report, path)
    return [path]
