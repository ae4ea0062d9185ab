"""`llmcc chips`: the stock chips."""

import click
import msgspec

from isa.chip import Chip, chip_names, load_chip, to_toml
from runtime.cli import completion
from runtime.cli.common import common_options, examples, reply, say_lines, size


@click.command(name="chips", epilog=examples("llmcc chips", "llmcc chips edge > mine.toml"))
@click.argument("name", required=False, shell_complete=completion.chips)
@common_options
def command(name: str | None, as_json: bool, traceback: bool) -> int:
    """List the stock chips, or print one (or a file of your own) as complete TOML to start from."""
    if name is not None:
        chip = load_chip(name)
        reply(msgspec.to_builtins(chip), as_json, lambda: say_lines(to_toml(chip)))
        return 0
    chips = [load_chip(stock) for stock in chip_names()]
    reply([msgspec.to_builtins(chip) for chip in chips], as_json, lambda: click.echo("\n".join(map(_line, chips))))
    return 0


def _line(chip: Chip) -> str:
    array = f"{chip.mxu.rows}x{chip.mxu.cols} at {chip.clock_hz / 1e9:g} GHz, SRAM {size(chip.sram.bytes)}, {chip.dram.bytes_per_second / 1e9:g} GB/s"
    return f"{click.style(chip.name.ljust(8), bold=True)} {array}: {chip.description}"
