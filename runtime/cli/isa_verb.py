"""`llmcc isa`: the instruction set, from its table."""

import difflib
from typing import Any

import click

from isa.errors import InputError
from isa.spec import ISA, ISA_VERSION, Instruction, Kind
from runtime.cli.common import common_options, examples, reply


@click.command(name="isa", epilog=examples("llmcc isa", "llmcc isa mm"))
@click.argument("mnemonic", required=False)
@common_options
def command(mnemonic: str | None, as_json: bool, traceback: bool) -> int:
    """List the instructions, or show one: operands, widths, meaning."""
    if mnemonic is None:
        rows = [_summary(row) for row in ISA.values()]
        reply({"version": ISA_VERSION, "instructions": rows}, as_json, lambda: _list(rows))
        return 0
    if mnemonic not in ISA:
        near = difflib.get_close_matches(mnemonic, ISA, 1)
        raise InputError(f"there is no instruction '{mnemonic}'", "", f"did you mean '{near[0]}'?" if near else f"the instructions are {', '.join(ISA)}")
    document = _describe(ISA[mnemonic])
    reply(document, as_json, lambda: _show(document))
    return 0


def _summary(row: Instruction) -> dict[str, Any]:
    return {"mnemonic": row.mnemonic, "opcode": row.opcode, "engine": row.engine.value, "summary": row.summary}


def _describe(row: Instruction) -> dict[str, Any]:
    fields = [
        {
            "name": field.name, "bits": field.bits, "kind": field.kind.value, "default": field.default, "choices": list(field.choices),
            "access": field.access.value if field.access else None, "extents": list(field.dims) if field.kind is Kind.VIEW else [],
            "types": [dtype.name.lower() for dtype in field.dtypes], "memories": [space.name.lower() for space in field.spaces], "doc": field.doc,
        }
        for field in row.fields
    ]  # fmt: skip
    return {**_summary(row), "pseudocode": row.pseudocode, "operands": fields}


def _list(rows: list[dict[str, Any]]) -> None:
    click.echo(f"ISA version {ISA_VERSION}, {len(rows)} instructions\n")
    width = max(len(row["mnemonic"]) for row in rows)
    for row in rows:
        click.echo(f"{click.style(row['mnemonic'].ljust(width), bold=True)}  {row['engine']:4} {row['opcode']:#04x}  {row['summary']}")


def _show(document: dict[str, Any]) -> None:
    click.echo(f"{click.style(document['mnemonic'], bold=True)}  {document['summary']}   (engine {document['engine']}, opcode {document['opcode']:#04x})\n")
    click.echo("\n".join(f"  {line}" for line in document["pseudocode"].splitlines()) + "\n")
    for field in document["operands"]:
        what = [field["kind"], f"{field['bits']} bits"]
        what += [f"{field['access']} {'x'.join(field['extents'])} of {'|'.join(field['types'])} in {'|'.join(field['memories'])}"] if field["extents"] else []
        what += ["|".join(field["choices"])] if field["choices"] else []
        what += ["required"] if field["default"] is None else []
        click.echo(f"  {click.style(field['name'].ljust(8), fg='cyan')} {', '.join(what)}" + (f": {field['doc']}" if field["doc"] else ""))
