"""`llmcc chips`: the stock chips."""

import click
import msgspec

from isa.chip import Chip, changed, chip_names, load_chip, to_toml
from runtime.cli import completion
from runtime.cli.common import common_options, examples, need, reply, say_lines, settings_option, size
from runtime.cli.tables import Column, show


@click.command(
    name="chips",
    epilog=examples(
        "llmcc chips", "llmcc chips edge > mine.toml", "llmcc chips edge --set mxu.rows=64 --set sram.bytes=4MiB"
    ),
)
@click.argument("name", required=False, shell_complete=completion.chips)
@settings_option
@common_options
def command(name: str | None, settings: dict[str, str], as_json: bool, traceback: bool) -> int:
    """List the stock chips, or print one (or a file of your own) as complete TOML to start from.

    With --set it is printed as it is then. docs/chip.md says what each parameter means.
    """
    if name is not None:
        chip = changed(load_chip(name), settings, "--set")
        reply(msgspec.to_builtins(chip), as_json, lambda: say_lines(to_toml(chip)))
        return 0
    need(not settings, "--set needs the chip that it changes", hint="llmcc chips edge --set mxu.rows=64")
    chips = [load_chip(stock) for stock in chip_names()]
    reply([msgspec.to_builtins(chip) for chip in chips], as_json, lambda: show(COLUMNS, [_row(chip) for chip in chips]))
    return 0


COLUMNS = (
    Column("chip", style="bold"), Column("array", right=True), Column("clock", right=True), Column("SRAM", right=True),
    Column("DRAM", right=True), Column("description", spare=1),
)  # fmt: skip


def _row(chip: Chip) -> tuple[str, ...]:
    array, clock = f"{chip.mxu.rows}x{chip.mxu.cols}", f"{chip.clock_hz / 1e9:g} GHz"
    return (
        chip.name,
        array,
        clock,
        size(chip.sram.bytes),
        f"{chip.dram.bytes_per_second / 1e9:g} GB/s",
        chip.description,
    )
