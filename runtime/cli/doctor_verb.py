"""`llmcc doctor`: what is installed here, and whether its arithmetic is what llmchip relies on."""

import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from runtime.cli.common import common_options, examples, reply, say, size
from runtime.cli.tables import Column, show

if TYPE_CHECKING:
    from runtime.doctor.document import DoctorDocument


@click.command(name="doctor", epilog=examples("llmcc doctor", "llmcc doctor --json > doctor.json"))
@common_options
def command(as_json: bool, traceback: bool) -> int:
    """Show versions and the ranges that are tested, processor and chosen kernel, folders, memory, environment
    variables that matter; then try each operation that docs/numerics.md relies on, on this machine and this PyTorch.

    Exit code 1 if one of these fails, or something that is needed is missing.
    """
    from runtime.doctor.examine import examined

    found = examined()
    reply(asdict(found), as_json, lambda: _print(found))
    return 0 if found.fine else 1


def _print(found: "DoctorDocument") -> None:
    for version in found.versions:
        _row(version.name, version.version or "not installed", f"tested {version.tested}" if version.tested else "")
    processor, memory = found.processor, found.memory
    _row("processor", processor.machine)
    _row("", f"{processor.cores} cores, {processor.threads} threads of the emulator")
    _row("features", ", ".join(processor.features) or "none that a kernel asks for")
    _row("int8 kernel", processor.kernel, f"could be: {', '.join(processor.able)}" if len(processor.able) > 1 else "")
    _row("PyTorch's own", processor.capability)
    _row(
        "memory", f"{size(memory.free)} free of {size(memory.machine)}", f"a program may declare {size(memory.allowed)}"
    )
    for folder in found.folders:
        _row(folder.what, folder.path, folder.problem)
    for setting in found.environment:
        _row(setting.name, setting.value, setting.does)
    click.echo()
    rows = [
        (("ok", "green") if row.fine else ("FAIL", "bold red"), row.rule, row.why or (f"{row.differing} of {row.elements} differ" if not row.fine else ""))
        for row in found.self_test
    ]  # fmt: skip
    show([Column("", style="bold"), Column("arithmetic of docs/numerics.md"), Column("", prose=True)], rows)
    click.echo()
    for remark in found.remarks:
        say(f"remark: {remark}")
    failed = sum(not row.fine for row in found.self_test)
    say(
        f"{len(rows)} rules of arithmetic hold here"
        if found.fine
        else f"{failed} of {len(rows)} rules of arithmetic fail here: bits that are compared with PyTorch may differ"
        if failed
        else "llmchip cannot run as it is: see the remarks"
    )


def _row(name: str, value: str, more: str = "") -> None:
    """Two columns; what is more goes behind them while it fits 80 characters, else below."""
    line = f"{name:22}  {value}"
    if more and len(line) + len(more) + 4 <= 80:
        line, more = f"{line}  ({more})", ""
    say(line)
    for part in textwrap.wrap(more, 56):
        say(f"{'':22}  {part}")
