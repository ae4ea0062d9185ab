"""`llmcc isa`: the instruction set, from its table."""

from typing import Any

import click

from isa.architecture import ISA_VERSION
from isa.doc.manual import describe, summary
from isa.fields import Instruction
from isa.spec import ISA
from runtime.cli import completion
from runtime.cli.common import common_options, examples, reply, say_lines


@click.command(name="isa", epilog=examples("llmcc isa", "llmcc isa mm", "llmcc isa vqd --json"))
@click.argument("mnemonic", required=False, shell_complete=completion.instructions)
@common_options
def command(mnemonic: str | None, as_json: bool, traceback: bool) -> int:
    """List the instructions, or show one: operands, bits, meaning."""
    if mnemonic is None:
        rows = [_row(row) for row in ISA.values()]
        reply({"version": ISA_VERSION, "instructions": rows}, as_json, lambda: say_lines(summary().rstrip()))
        return 0
    text = describe(mnemonic).strip()
    reply(_full(ISA[mnemonic]) if as_json else {}, as_json, lambda: say_lines(text))
    return 0


def _row(row: Instruction) -> dict[str, Any]:
    return {"mnemonic": row.mnemonic, "opcode": row.opcode, "engine": row.engine.value, "summary": row.summary}


def _full(row: Instruction) -> dict[str, Any]:
    operands = [
        {
            "name": field.name,
            "bits": field.bits,
            "kind": field.kind.value,
            "default": field.default,
            "choices": list(field.choices),
            "access": field.access.value if field.access else None,
            "extents": list(field.dims) if field.access else [],
            "types": [dtype.name.lower() for dtype in field.dtypes],
            "memories": [space.name.lower() for space in field.spaces],
            "doc": field.doc,
        }
        for field in row.fields
    ]
    return {**_row(row), "pseudocode": row.pseudocode, "operands": operands}
