"""`llmcc disasm`: an image as text."""

import sys
from typing import Any

import click

from isa.disasm import disassemble_code, write_listing
from isa.image import Image, load_image
from runtime.cli.common import common_options, examples, reply


@click.command(
    name="disasm",
    epilog=examples("llmcc disasm minilm.llmchip | less", "llmcc disasm minilm.llmchip -o minilm.s && llmcc asm minilm.s -o same.llmchip"),
)
@click.argument("file")
@click.option("-o", "output", metavar="P.s", type=click.Path(dir_okay=False), help="Write everything as text, data sections of 4 KiB or more beside it.")
@common_options
def command(file: str, output: str | None, as_json: bool, traceback: bool) -> int:
    """Print an image's code, with addresses, nodes and source lines; or write the whole image as text with -o."""
    image = load_image(file)
    if output is not None:
        paths = [str(path) for path in write_listing(image, output)]
        reply({"files": paths}, as_json, lambda: click.echo("\n".join(paths)))
        return 0
    if as_json:
        reply({"file": file, "words": image.words, "lines": list(disassemble_code(image))}, True, lambda: None)
    else:
        _print(image)
    return 0


def _print(image: Image) -> None:
    color: Any = _colored if sys.stdout.isatty() else str
    for line in disassemble_code(image):
        click.echo(color(line))


def _colored(line: str) -> str:
    """Comments dim, headings of nodes cyan, mnemonics bold."""
    code, mark, comment = line.partition(";")
    if not code.strip():
        return click.style(line, fg="cyan") if "----" in line or "====" in line else click.style(line, dim=True)
    indent = code[: len(code) - len(code.lstrip())]
    mnemonic, space, rest = code.lstrip().partition(" ")
    return indent + click.style(mnemonic, bold=True) + space + rest + click.style(mark + comment, dim=True)
