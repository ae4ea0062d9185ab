"""`llmcc disasm`: an image as text, JSON, a page, or as files that assemble to the same image."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isa.architecture import Engine
from isa.asm.disassemble import listing_paths, write_listing
from isa.files import write_atomic
from isa.image.image import Image
from isa.shown import shown
from runtime.cli import completion
from runtime.cli.common import (
    color_option,
    common_options,
    entry_option,
    examples,
    need,
    reply,
    say,
    say_lines,
    wants_color,
)
from runtime.cli.outputs import OutputFile, check_replaces_none
from runtime.cli.programs import entry_of
from runtime.device.program_file import open_program
from runtime.listing.disassembly import Filter, Listing, ansi, parse_range, plain

if TYPE_CHECKING:
    from runtime.profile.run import Run

_FLUSHED = 64  # lines shown at once before output is buffered


@click.command(
    name="disasm",
    epilog=examples(
        "llmcc disasm minilm.llmchip | less",
        "llmcc disasm minilm.llmchip --source --node 'softmax*' --engine act",
        "llmcc disasm minilm.llmchip --cycles --engine mxu",
        "llmcc disasm minilm.llmchip --html minilm.html --cycles",
        "llmcc disasm minilm.llmchip -o minilm.s && llmcc asm minilm.s -o same.llmchip",
    ),
)
@click.argument("file", shell_complete=completion.files)
@click.option(
    "-o", "output", metavar="PATH", type=OutputFile(),
    help="Write everything as text, data sections of 4 KiB or more beside it.",
)  # fmt: skip
@click.option(
    "--html",
    metavar="FILE",
    type=OutputFile(),
    help="Write one self-contained page instead: model source, graph, assembly, memory.",
)
@click.option(
    "--source", is_flag=True, help="Interleave the model's source lines, the graph's nodes and where they come from."
)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    type=click.Choice([e.value for e in Engine]),
    help="Only instructions of this engine (repeatable).",
)
@click.option(
    "--node",
    "nodes",
    metavar="PATTERN",
    multiple=True,
    help="Only instructions of these nodes; * and ? match (repeatable).",
)
@click.option("--pc", "pcs", metavar="A:B", default=":", help="Only instructions at A <= pc < B.")
@click.option(
    "--cycles", is_flag=True, help="Run the program in timing mode; cycles and stalls of each instruction beside it."
)
@entry_option
@color_option
@common_options
def command(
    file: str,
    output: str | None,
    html: str | None,
    source: bool,
    engines: tuple[str, ...],
    nodes: tuple[str, ...],
    pcs: str,
    cycles: bool,
    entry: str | None,
    color: str,
    as_json: bool,
    traceback: bool,
) -> int:
    """Print an image's code: address, raw word, instruction, and what its operands are in memory.

    FILE is an image or assembly text. With --cycles the instructions have, over all their executions, the cycles in
    which their engine works on them and those in which it stood idle before them (stalls). With -o, the whole image is
    written as text that assembles to the very same bytes.
    """
    chosen = Filter(engines, nodes, *parse_range(pcs))
    if output is not None and html is not None:
        raise click.UsageError("-o and --html are two different files of the image", click.get_current_context())
    if (output is not None or html is not None) and (source or chosen != Filter()):
        raise click.UsageError(
            "-o and --html write the whole image; they do not go with --source and filters", click.get_current_context()
        )
    need(cycles or entry is None, "--entry only goes with --cycles", file, "leave it out")
    need(not cycles or output is None, "-o writes a program, which has no cycles", file, "leave --cycles out")
    image = open_program(file)
    if output is not None:
        paths = listing_paths(image, output)
        special = Path(output).exists() and not Path(output).is_file()
        need(len(paths) == 1 or not special, "data files go beside the text", output, "name a file in a folder")
        check_replaces_none(click.get_current_context(), paths)
    chosen.check(image)
    run = _timed(image, entry, file) if cycles else None
    if html is not None:
        return _page(image, file, html, run, as_json)
    if output is not None:
        written = [str(path) for path in write_listing(image, output)]
        reply({"files": written}, as_json, lambda: say_lines("\n".join(map(shown, written))))
        return 0
    listing = Listing(image, chosen, _cycles(run) if run is not None else None)
    if as_json:
        reply(listing.document(file), True, lambda: None)
    else:
        _print(listing, file, source, color)
    return 0


def _print(listing: Listing, file: str, source: bool, color: str) -> None:
    colored = wants_color(color)
    write = sys.stdout.write
    for number, line in enumerate(listing.text(Path(file).name, source=source, paint=ansi if colored else plain)):
        write(f"{line}\n")
        if number < _FLUSHED:
            sys.stdout.flush()


def _timed(image: Image, entry: str | None, file: str) -> "Run":
    from runtime.profile.profile import profile, timing

    if entry is not None:
        entry_of(image, entry, file)
    with timing(file):
        return profile(image, entry=entry)


def _cycles(run: "Run") -> Mapping[int, Any]:
    from runtime.profile.instructions import by_instruction

    return by_instruction(run)


def _page(image: Image, file: str, target: str, run: "Run | None", as_json: bool) -> int:
    from runtime.html.page import page

    write_atomic(target, [page(image, shown(Path(file).name), run).encode()])
    reply({"files": [target]}, as_json, lambda: say(target))
    return 0
