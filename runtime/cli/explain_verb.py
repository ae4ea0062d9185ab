"""`llmcc explain`: what of a model goes to the chip, what is folded, what falls back and why."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from msgspec import to_builtins

from runtime.cli import completion
from runtime.cli.common import (
    Given,
    common_options,
    examples,
    input_options,
    model_options,
    reply,
    say,
    size,
    stages,
)
from runtime.cli.tables import Column, show

if TYPE_CHECKING:
    from runtime.explain.document import ExplainDocument


@click.command(
    name="explain",
    epilog=examples(
        "llmcc explain minilm", "llmcc explain ./folder --random-weights 0 --json", "llmcc explain mine:model --top 0"
    ),
)
@click.argument("model", metavar="MODEL", shell_complete=completion.models)
@click.option(
    "--top",
    metavar="N",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="Rows of each table, the first of the order; 0: no tables.",
)
@model_options
@input_options
@common_options
def command(model: str, top: int, as_json: bool, traceback: bool, **rest: Any) -> int:
    """Show, before anything is compiled, which operations of a model go to the chip, which are folded while weights are
    packed, and which fall back to PyTorch under torch.compile, with counts, multiply-adds, bytes and reasons.

    Times are the least that the chip can take by the roofline: shares of it are those of each kind of operation by
    itself. Sizes that no tile fits are only found by compiling. Exit code 1 if something falls back: ahead of time such
    a model is refused.
    """
    from runtime.cli.session import open_model
    from runtime.explain.explain import explain_captured

    with stages("explain") as stage:
        session = open_model(model, Given(**rest), stage)
        stage("lower")
        found = explain_captured(session.captured, session.options, session.chip)
    document = {"model": model, **to_builtins(found.document)}
    reply(document, as_json, lambda: _print(model, found.document, top))
    return 0 if found else 1


def _print(model: str, d: "ExplainDocument", top: int) -> None:
    counts, cycles = d.operations, max(d.limit.values(), default=0)
    if d.ahead_of_time:
        say(f"{model} on {d.chip}: all of it runs on the chip")
    else:
        say(f"{model} on {d.chip}: {counts['pytorch']} operations run in PyTorch under torch.compile,")
        say(f"the rest on the chip in {d.pieces} pieces; ahead of time it is refused")
    say("")
    say(
        f"operations  {sum(counts.values())}: {counts['chip']} on the chip, {counts['moves']} only say where elements are,"
    )
    say(f"            {counts['folded']} folded, {counts['pytorch']} in PyTorch")
    say(f"bytes       inputs {size(d.inputs_bytes)}, weights {size(d.weights_bytes)}, packed {size(d.constants_bytes)}")
    by = max(d.limit, key=lambda name: d.limit[name], default="")
    say(
        f"at least    {cycles:,} cycles ({by}), {cycles / d.clock_hz * 1e6:,.1f} µs: the roofline of what is on the chip"
    )
    if not top:
        return
    _on_chip(d, top)
    _in_pytorch(d, top)
    _folded(d, top)


def _on_chip(d: "ExplainDocument", top: int) -> None:
    columns = (
        Column("on the chip", prose=True), Column("count", right=True), Column("MACs", right=True),
        Column("DRAM", right=True), Column("cycles", right=True), Column("by"), Column("share", right=True),
    )  # fmt: skip
    rows = [
        (r.operator, str(r.count), f"{r.macs:,}" if r.macs else "", size(r.dram_bytes) if r.dram_bytes else "",
         f"{r.cycles:,}", r.by, f"{r.share:.1%}")
        for r in d.on_chip[:top]
    ]  # fmt: skip
    _table(columns, rows, len(d.on_chip))


def _in_pytorch(d: "ExplainDocument", top: int) -> None:
    shown = d.in_pytorch[:top]
    columns = (
        Column("in PyTorch", prose=True),
        Column("count", right=True),
        Column("MACs", right=True),
        Column("result", right=True),
    )
    _table(
        columns,
        [(r.operator, str(r.count), f"{r.macs:,}" if r.macs else "", size(r.bytes)) for r in shown],
        len(d.in_pytorch),
    )
    if shown:
        say("")
    for row in shown:
        fault = "a fault of llmchip: " if row.fault else ""
        say(f"{row.operator}: {fault}{row.reason}")
        if row.line:
            say(f"    {row.line}")


def _folded(d: "ExplainDocument", top: int) -> None:
    columns = (Column("folded", prose=True), Column("count", right=True), Column("result", right=True))
    _table(columns, [(r.operator, str(r.count), size(r.bytes)) for r in d.folded[:top]], len(d.folded))


def _table(columns: Sequence[Column], rows: Sequence[tuple[str, ...]], count: int) -> None:
    """A table, and how many rows of it are not shown."""
    if not rows:
        return
    say("")
    show(columns, rows)
    if count > len(rows):
        say(f"and {count - len(rows)} more: --top {count}")
