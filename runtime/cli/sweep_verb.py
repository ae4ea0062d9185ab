"""`llmcc sweep`: many chips, one after the other on every processor, and what comes of each."""

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime.cli import completion
from runtime.cli.common import (
    PATIENCE,
    Given,
    Stages,
    building_options,
    chip_option,
    common_options,
    examples,
    group,
    need,
    pairs,
    reply,
    stdout,
)
from runtime.cli.main import NO, OK
from runtime.cli.outputs import STDOUT, OutputFile, remember_inputs
from runtime.cli.tables import Cell, Column, show
from runtime.plotting import check_plotting
from runtime.sweep.parquet import check_parquet

if TYPE_CHECKING:
    from runtime.sweep.frozen import FrozenModel
    from runtime.sweep.result import Sweep
    from runtime.sweep.sweep import Progress, Row, Told, Workload


def _sizes(_ctx: click.Context, param: click.Parameter, value: str | None) -> list[int | None]:
    """Numbers, separated by commas. Raises BadParameter."""
    if value is None:
        return [None]
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isascii() and part.isdigit() and 0 < int(part) <= 1 << 24 for part in parts):
        raise click.BadParameter(f"'{value}' is not a list of sizes such as 64,128", param=param)
    return [int(part) for part in parts]


def _axes(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """The axes; chips that are files are inputs."""
    found = pairs(ctx, param, values)
    remember_inputs(ctx, "--set chip", [name.strip() for name in found.get("chip", "").split(",")])
    return found


sweep_options = group(
    chip_option,
    click.option(
        "--set", "settings", metavar="AXIS=VALUES", multiple=True, callback=_axes, shell_complete=completion.parameters,
        help="An axis: mxu.rows=32,64,128, sram.bytes=1MiB..8MiB (doubled), mxu.rows+mxu.cols=64,128 (both alike), "
        "chip=edge,server (repeatable).",
    ),
    click.option("--seq", metavar="N,N", callback=_sizes, help="Sequence lengths. [default: 128]"),
    click.option("--batch", metavar="N,N", callback=_sizes, help="Batch sizes. [default: 1]"),
    click.option("--workers", metavar="N", type=click.IntRange(1, 1024), help="Processes. [default: one per processor]"),
    click.option(
        "--store", metavar="FILE", type=OutputFile(),
        help="The SQLite file that keeps results. [default: sweeps.sqlite beside the image cache]",
    ),
    click.option(
        "--search", "trials", metavar="N", type=click.IntRange(1, 1_000_000),
        help="N trials of a search with Optuna, seeded by --seed, in place of the whole grid.",
    ),
    click.option(
        "--minimize", metavar="NAME,NAME", default="latency,energy,area", show_default=True,
        help="What search and front look for.",
    ),
    click.option(
        "--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True,
        help="Processes here, or a Ray cluster (needs ray).",
    ),
    click.option(
        "--html", metavar="FILE", type=OutputFile(check_plotting),
        help="Write one self-contained page: front, each axis against each figure, every point (needs plotly).",
    ),
    click.option("--csv", metavar="FILE", type=OutputFile(allow_dash=True), help="Write all figures as CSV; -: to stdout."),
    click.option("--parquet", metavar="FILE", type=OutputFile(check_parquet), help="Write them as Parquet (needs pyarrow)."),
)  # fmt: skip
_FILES = ("csv", "parquet", "html")


@click.command(
    name="sweep",
    epilog=examples(
        "llmcc sweep minilm --set mxu.rows+mxu.cols=64,128 --set sram.bytes=1MiB..8MiB",
        "llmcc sweep minilm --set mxu.rows=16..256 --set mxu.cols=16..256 --set sram.bytes=256KiB..32MiB --search 60",
        "llmcc sweep minilm ./my-bert --seq 64,128 --set chip=edge,server --csv points.csv",
    ),
)
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, shell_complete=completion.models)
@sweep_options
@building_options
@common_options
def command(models: tuple[str, ...], as_json: bool, traceback: bool, **rest: Any) -> int:
    """Compile and time models on every chip of a grid, or on those that a search asks for.

    Each MODEL is captured and lowered once for each shape. Every result is kept as soon as it is there: a sweep that is
    interrupted goes on where it was when it is asked for again. A point that fails is a row with its reason. Figures,
    files and Python are explained in docs/sweep.md.
    """
    from runtime.models.models import kind_of
    from runtime.sweep.api import Plan, engine_of, run
    from runtime.sweep.axes import axis
    from runtime.sweep.measures import objectives
    from runtime.sweep.store import default_path

    asked = {
        name: rest.pop(name)
        for name in ("settings", "seq", "batch", "workers", "store", "trials", "minimize", "engine", *_FILES)
    }
    to_stdout = asked["csv"] == STDOUT
    need(not (to_stdout and as_json), "--csv - and --json both write to stdout", hint="name a file")
    given = Given(**rest)
    axes = tuple(axis(key, values) for key, values in asked["settings"].items())
    for model in models:
        kind = kind_of(model)
        need(kind not in ("image", "gguf"), "only a model of PyTorch can be swept", model, "give a folder or a factory")
    workloads = _workloads(models, asked["seq"], asked["batch"], given)
    plan = Plan(axes, given.target, objectives(asked["minimize"].split(",")), asked["trials"], given.seed)
    engine = engine_of(asked["engine"], asked["workers"])
    with progress() as told:
        found = run(workloads, plan, engine, Path(asked["store"]) if asked["store"] else default_path(), told)
    document = {**found.as_dict(), "files": _write(found, asked, _common(given))}
    code = NO if all(row.failed for row in found.rows) else OK
    if to_stdout:
        click.echo(found.csv(), nl=False)
        return code
    reply(document, as_json, lambda: _print(found, document["files"]))
    return code


def _workloads(
    models: Sequence[str], seq: Sequence[int | None], batch: Sequence[int | None], given: Given
) -> "list[Workload]":
    """A workload for each shape of each model. Raises InputError for options that do not go with a model."""
    from runtime.cli.session import recipe_for
    from runtime.models.models import check_recipe
    from runtime.sweep.sweep import Workload

    found = []
    for model, length, count in product(models, seq, batch):
        own = replace(given, seq=length, batch=count)
        check_recipe(recipe_for(model, own))
        found.append(Workload(model, length, count, partial(_freeze, model, own)))
    return found


def _freeze(model: str, given: Given) -> "FrozenModel":
    from runtime.cli.session import open_model
    from runtime.sweep.frozen import freeze

    session = open_model(model, given, Stages("sweep"))
    return freeze(session.captured, session.options)


@contextlib.contextmanager
def progress() -> "Iterator[Told]":
    """A bar on a terminal, once `PATIENCE` is over: points, those that were known, and the time that is left."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = TextColumn("sweep"), BarColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    bar = Bar(*columns, console=Console(file=getattr(sys.stderr, "raw", sys.stderr)), transient=True)
    task = bar.add_task("", total=None)
    timer = threading.Timer(PATIENCE, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield lambda now: bar.update(task, total=now.total, completed=now.done, description=said(now))
    finally:
        timer.cancel()
        bar.stop()


def said(now: "Progress") -> str:
    """The line beside the bar."""
    parts = [f"{now.done} of {now.total} points"]
    if now.known:
        parts.append(f"{now.known} known")
    if now.left is not None and now.done < now.total:
        minutes, seconds = divmod(round(now.left), 60)
        parts.append(f"about {minutes}:{seconds:02} left")
    return ", ".join([*parts, *([f"capturing {now.capturing}"] if now.capturing else [])])


def _common(given: Given) -> list[str]:
    """The options that decide the model, as they were given."""
    flags = {"--chip": given.chip, "--class": given.class_name, "--random-weights": given.random_weights}
    words = [word for flag, value in flags.items() if value is not None for word in (flag, str(value))]
    words += [word for key, value in (given.option or {}).items() for word in ("--option", f"{key}={value}")]
    return [*words, *(["--task", given.task] if given.task != "auto" else []), *(["--trust"] if given.trust else [])]


def _write(found: "Sweep", asked: dict[str, Any], common: Sequence[str]) -> list[str]:
    """The files that were asked for."""
    if asked["html"]:
        from isa.files import write_atomic
        from runtime.sweep.page import page

        write_atomic(asked["html"], [page(found, common).encode("utf-8", "backslashreplace")])
    files = [asked[name] for name in _FILES if asked[name] not in (None, STDOUT)]
    if asked["csv"] not in (None, STDOUT):
        found.write_csv(asked["csv"])
    if asked["parquet"]:
        found.write_parquet(asked["parquet"])
    return files


_COLUMNS = (
    ("seconds", 0),
    ("joules", 0),
    ("mm2", 0),
    ("watts", 2),
    ("of_limit", 3),
    ("dram_bytes", 4),
)  # with what is left out first


def _print(found: "Sweep", files: Sequence[str]) -> None:
    from isa.technology import ASSUMED
    from runtime.sweep.measures import FIGURES

    best = {id(row) for row in found.front()}
    varied = [name for name in ("model", "seq", "batch") if len({getattr(row, name) for row in found.rows}) > 1]
    keys = [axis.key for axis in found.axes]
    columns = [Column(name) for name in (*varied, *keys)]
    for name, spare in _COLUMNS:
        figure = FIGURES[name]
        columns.append(Column(f"{figure.title} {figure.unit}".rstrip(), right=True, spare=spare))
    columns += [Column("limited by", spare=1), Column("", prose=True)]
    rows = [_cells(row, varied, keys, "best" if id(row) in best else "") for row in found.rows]
    show(columns, rows, ["dim" if row.failed else "bold" if id(row) in best else "" for row in found.rows])
    names = ", ".join(found.minimized)
    stdout().print(
        f"best: no other of the same model and shape is as good in all of {names}, and better in one", soft_wrap=True
    )
    stdout().print(f"energy, power and area: {ASSUMED}", soft_wrap=True)
    for path in files:
        stdout().print(f"wrote {path}", soft_wrap=True)


def _cells(row: "Row", varied: Sequence[str], keys: Sequence[str], mark: str) -> list[Cell]:
    from runtime.sweep.measures import FIGURES

    cells: list[Cell] = [str(getattr(row, name) or "") for name in varied]
    cells += [row.place[key] for key in keys]
    if row.failed:
        return [*cells, *[""] * len(_COLUMNS), "failed", row.reason]
    return [
        *cells,
        *(number(row.outcome[name] * FIGURES[name].scale) for name, _ in _COLUMNS),
        row.outcome["limited_by"],
        mark,
    ]


def number(value: float) -> str:
    """Four digits that count."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
