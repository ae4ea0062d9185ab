"""`llmcc compile`: a model becomes an image file."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime.cli import completion
from runtime.cli.asked import context_option
from runtime.cli.common import (
    Given,
    common_options,
    examples,
    input_options,
    model_options,
    need,
    note,
    reply,
    size,
    stages,
    stdout,
)
from runtime.cli.outputs import OutputFile, OutputFolder
from runtime.cli.tables import Column, show
from runtime.models.models import kind_of

if TYPE_CHECKING:
    from compiler.pipeline import Compiled
    from isa.image.image import Image
    from runtime.cli.session import Session


@click.command(
    name="compile",
    epilog=examples(
        "llmcc compile minilm -o minilm.llmchip",
        "llmcc compile ./my-bert --seq 64 --batch 4 --chip server -o bert.llmchip",
        "llmcc compile package.module:factory --time-passes --dry-run",
        "llmcc compile minilm --stop-after quantize --print-after quantize",
        "llmcc compile minilm --seq 16 --stop-after schedule --print-after fuse --print-after schedule",
    ),
)
@click.argument("model", required=False, shell_complete=completion.models)
@click.option("-o", "output", metavar="FILE", type=OutputFile(), help="The image file to write.")
@model_options
@input_options
@click.option(
    "--print-after",
    metavar="PASS|all",
    multiple=True,
    help="Print what this pass leaves behind (a graph, kernels, a tile program), on stderr.",
)
@click.option(
    "--dump-dir",
    metavar="DIR",
    type=OutputFolder(),
    help="Write what every pass leaves behind into this folder.",
)
@click.option("--stop-after", metavar="PASS", help="Stop after this pass; nothing is written.")
@click.option("--time-passes", is_flag=True, help="Show the time of every pass.")
@click.option("--list-passes", is_flag=True, help="List the passes in order, and stop.")
@click.option("--dry-run", is_flag=True, help="Compile and show memory and time estimates; write nothing.")
@context_option
@common_options
def command(
    model: str | None, output: str | None, context: int | None, as_json: bool, traceback: bool, **rest: Any
) -> int:
    """Compile MODEL to an image file.

    MODEL is a bundled name (minilm, smollm2), a Hugging Face folder, a .pt2 or .gguf file, or package.module:factory.
    """
    switches = {
        name: rest.pop(name)
        for name in ("print_after", "dump_dir", "stop_after", "time_passes", "list_passes", "dry_run")
    }
    given = Given(**rest)
    if switches["list_passes"]:
        return _list_passes(given, as_json)
    if model is None:
        raise click.UsageError("MODEL is missing", click.get_current_context())
    writes = not (switches["dry_run"] or switches["stop_after"])
    if writes and output is None:
        raise click.UsageError("give the image file with -o FILE (or --dry-run)", click.get_current_context())
    _check_passes(given, [*switches["print_after"], *filter(None, [switches["stop_after"]])])
    kind = kind_of(model)
    if kind == "gguf" or (kind == "folder" and context is not None):
        from runtime.cli.language import compile_language

        return compile_language(model, output, given, context, switches, as_json)
    need(context is None, "--context only goes with a language model in GGUF or a folder", model, "leave it out")
    return _compile(model, output if writes else None, given, switches, as_json)


def _compile(model: str, output: str | None, given: Given, switches: Mapping[str, Any], as_json: bool) -> int:
    from runtime.cli.session import open_model

    start = time.perf_counter()
    folder = switches["dump_dir"]
    printing = {"print_after": switches["print_after"], "dump_dir": None if folder is None else Path(folder)}
    with stages("compile") as stage:
        session = open_model(model, given, stage)
        stage("compile")
        if switches["stop_after"]:
            from compiler.graph.manager import Watch
            from compiler.pipeline import compile_until

            watch = Watch(**printing, stop_after=switches["stop_after"])
            timings = compile_until(session.captured, session.options, session.chip, watch)
            reply(
                {"stopped_after": switches["stop_after"], "seconds": timings},
                as_json,
                lambda: note(f"stopped after {switches['stop_after']}"),
            )
            return 0
        image, heights, compiled = _image(
            session, printing, cached=not (switches["time_passes"] or any(printing.values()))
        )
        if output is not None:
            from isa.image.image import write_image

            stage("write the image")
            write_image(image, output)
    document = {
        "file": output,
        "bytes": Path(output).stat().st_size if output else None,
        "model": model,
        "chip": image.chip.name,
        "words": image.words,
        "nodes": len(image.debug.nodes),
        "weights_sha256": image.metadata["weights_sha256"],
        "inputs": {spec.name: list(spec.shape) for spec in image.entry().inputs},
        "outputs": {spec.name: list(spec.shape) for spec in image.entry().outputs},
        "memory": _memory(image, heights),
        "seconds": {**stage.seconds, "total": time.perf_counter() - start},
        "cached": compiled is None,
        "passes": {} if compiled is None else _passes(compiled),
    }
    if switches["dry_run"]:
        with stages("estimate") as stage:
            stage("time the program")
            document["estimate"] = _estimate(image)
    reply(document, as_json, lambda: _print(document, switches))
    return 0


def _image(
    session: "Session", printing: Mapping[str, Any], cached: bool
) -> "tuple[Image, Mapping[str, Any], Compiled | None]":
    """The image, bytes and lower bound of each memory's plan, and what the compiler made unless the image was in the
    cache.

    Who wants to see passes at work wants them to work.
    """
    from compiler.pipeline import compile_captured
    from runtime.pytorch.compilation import HEIGHTS

    compilation = session.compilation
    if not cached:
        compiled = compile_captured(session.captured, session.options, session.chip, **printing)
        return compiled.image(metadata=session.metadata()), compiled.placement.heights, compiled
    image = compilation.stored(compilation.key())
    return replace(image, metadata=session.metadata()), image.metadata[HEIGHTS], vars(compilation).get("compiled")


def _passes(compiled: "Compiled") -> dict[str, float]:
    """Seconds of every pass, in order."""
    from compiler.pipeline import pass_seconds

    return pass_seconds(compiled.lowered) | {
        name: value for name, value in compiled.timings.items() if name != "graph passes"
    }


def _memory(image: Any, heights: Mapping[str, Any]) -> dict[str, Any]:
    from isa.architecture import Region

    chip = image.chip
    capacity = {"sram": chip.sram.bytes, "acc": chip.acc.bytes}
    planned = {
        name: {"bytes": height, "lower_bound": bound} | ({"capacity": capacity[name]} if name in capacity else {})
        for name, (height, bound) in heights.items()
    }
    return planned | {
        region.name.lower(): {"bytes": image.size(region)}
        for region in Region
        if image.size(region) and region is not Region.SCRATCH
    }


def _estimate(image: Any) -> dict[str, Any]:
    """One launch in the emulator's timing mode: cycles of the very program, by the rules of the timing model."""
    from emulator.timing.simulate import simulate
    from emulator.timing.timeline import ENGINES

    timeline = simulate(image)
    busy = {engine.value: timeline.busy(engine) for engine in ENGINES}
    return {
        "cycles": timeline.cycles,
        "milliseconds": 1e3 * timeline.seconds,
        "busy_cycles": busy,
        "bus_cycles": timeline.bus_busy(),
        "dispatched_words": len(timeline.instructions),
        "dram_bytes": int(timeline.bytes.sum()),
    }


def _print(document: dict[str, Any], switches: Mapping[str, Any]) -> None:
    console = stdout()
    head = (
        f"{document['file']}: {size(document['bytes'])}"
        if document["file"]
        else f"{document['model']}: nothing written"
    )
    console.print(
        f"{head}, {document['words']} instructions for chip {document['chip']}, {document['seconds']['total']:.1f} s",
        soft_wrap=True,
    )
    for way in ("inputs", "outputs"):
        console.print(
            f"  {way:8} " + ", ".join(f"{name}{shape}" for name, shape in document[way].items()), soft_wrap=True
        )
    for name, entry in document["memory"].items():
        share = f" of {size(entry['capacity'])}" if "capacity" in entry else ""
        bound = f", lower bound {size(entry['lower_bound'])}" if entry.get("lower_bound") else ""
        console.print(f"  {name:8} {size(entry['bytes'])}{share}{bound}")
    if "estimate" in document:
        _print_estimate(console, document["estimate"])
    if switches["time_passes"]:
        _print_times(console, document["passes"])


def _print_estimate(console: Any, estimate: dict[str, Any]) -> None:
    cycles = max(estimate["cycles"], 1)
    moved = size(estimate["dram_bytes"])
    console.print(
        f"  time     {estimate['milliseconds']:.3f} ms, {estimate['cycles']} cycles on this chip, {moved} to and from DRAM"
    )
    shares = {**estimate["busy_cycles"], "bus": estimate["bus_cycles"]}
    console.print(
        "           busy: " + ", ".join(f"{name} {100 * busy / cycles:.0f} %" for name, busy in shares.items())
    )


def _print_times(console: Any, seconds: Mapping[str, float]) -> None:
    show([Column("pass"), Column("seconds", right=True)], [(name, f"{value:.3f}") for name, value in seconds.items()])


def _steps(given: Given) -> list[dict[str, Any]]:
    """All passes in order: those on the graph, then those on kernels and tile programs, which never change a bit."""
    from importlib import import_module

    from compiler.lower import pipeline
    from compiler.options import CHOICES
    from compiler.tiling import tile_passes
    from runtime.cli.session import make_options

    def doc_of(kind: type) -> str | None:
        """The class's docstring; that of its module where dataclass has put a signature in its place."""
        own = kind.__doc__ or ""
        return import_module(kind.__module__).__doc__ if own.startswith(f"{kind.__name__}(") else own

    options = make_options(given)
    steps = [(step.name, "graph", step.changes_bits, doc_of(type(step))) for step in pipeline(options)]
    steps += [(step.name, "tile", False, doc_of(type(step))) for step in tile_passes(options, given.target)]
    steps += [(name, "choice", False, doc) for name, doc in CHOICES.items() if options.enables(name)]
    return [
        {"pass": name, "level": level, "may_change_bits": changes, "does": (doc or "").strip().split("\n")[0]}
        for name, level, changes, doc in steps
    ]


def _list_passes(given: Given, as_json: bool) -> int:
    steps = _steps(given)

    def text() -> None:
        columns = [
            Column("pass"),
            Column("level", spare=1),
            Column("may change bits", spare=2),
            Column("does", prose=True),
        ]
        show(
            columns,
            [(step["pass"], step["level"], "yes" if step["may_change_bits"] else "no", step["does"]) for step in steps],
        )

    reply(steps, as_json, text)
    return 0


def _check_passes(given: Given, names: list[str]) -> None:
    """Passes leave something behind that can be printed; choices do not."""
    if names:
        known = dict.fromkeys(step["pass"] for step in _steps(given) if step["level"] != "choice")
        for name in names:
            need(
                name in known or name == "all", f"there is no pass '{name}'", hint=f"the passes are {', '.join(known)}"
            )
