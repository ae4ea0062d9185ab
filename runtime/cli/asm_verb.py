"""`llmcc asm`: text to an image."""

from pathlib import Path

import click

from isa.asm.assemble import assemble_file
from isa.image.image import write_image
from runtime.cli import completion
from runtime.cli.common import common_options, examples, reply, say
from runtime.cli.outputs import OutputFile


@click.command(name="asm", epilog=examples("llmcc asm program.s -o program.llmchip"))
@click.argument("source", metavar="P.s", shell_complete=completion.files)
@click.option("-o", "output", metavar="FILE", required=True, type=OutputFile(), help="The image file to write.")
@common_options
def command(source: str, output: str, as_json: bool, traceback: bool) -> int:
    """Assemble text to an image file. Of the text of an untouched image it makes the very bytes of that image."""
    image = assemble_file(source)
    write_image(image, output)
    document = {"file": output, "words": image.words, "bytes": Path(output).stat().st_size}
    reply(document, as_json, lambda: say(f"{output}: {document['words']} instructions, {document['bytes']} bytes"))
    return 0
