"""`llmcc lint`: what can be known to be wrong with a program, or useless in it, without running it."""

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from runtime.cli import completion
from runtime.cli.common import Given, common_options, examples, model_options, reply, stages, stdout, styled
from runtime.cli.programs import open_any

if TYPE_CHECKING:
    from lint.check import Finding


@click.command(
    name="lint",
    epilog=examples(
        "llmcc lint minilm.llmchip",
        "llmcc lint gemm.s --json",
        "llmcc lint minilm --seq 128 --chip server",
    ),
)
@click.argument("model", metavar="MODEL|FILE", shell_complete=completion.models)
@model_options
@common_options
def command(model: str, as_json: bool, traceback: bool, **rest: Any) -> int:
    """Prove a program free of faults that need no data to be seen, or show them.

    Errors: structure, kind, bounds, alignment, overlap, buffer, uninitialized, race, plan, output, unproved. Warnings:
    wait, unreachable, dead. Each names the instruction, its node, the instruction that it conflicts with, and why. FILE
    is an image or assembly text; a MODEL is compiled first. What is too long to be proved is an error, too
    (docs/proofs.md has the bounds). Exit code 1 if there is an error; warnings alone give 0.
    """
    from lint.analyse import lint
    from lint.check import MAX_FINDINGS

    with stages("lint") as stage:
        image, _ = open_any(model, Given(**rest), stage)
        stage("check")
        found = lint(image)
    errors = sum(finding.severity == "error" for finding in found)
    document = {
        "program": model,
        "chip": image.chip.name,
        "words": image.words,
        "errors": errors,
        "warnings": len(found) - errors,
        "complete": len(found) < MAX_FINDINGS,
        "findings": [asdict(finding) for finding in found],
        "seconds": stage.seconds,
    }
    reply(document, as_json, lambda: _print(found, document))
    return 1 if errors else 0


def _print(found: "list[Finding]", document: dict[str, Any]) -> None:
    console = stdout()
    for finding in found:
        colour = "red" if finding.severity == "error" else "yellow"
        node = f" of {finding.node}" if finding.node else ""
        head = styled(
            (finding.severity, f"bold {colour}"), f": {finding.kind} at {finding.pc:#06x}{node}: {finding.message}"
        )
        console.print(head, soft_wrap=True)
        if finding.instruction:
            console.print(f"    {finding.pc:#06x}  {finding.instruction}", soft_wrap=True)
        if finding.other is not None:
            console.print(f"    {finding.other:#06x}  {finding.other_instruction}  (conflicts)", soft_wrap=True)
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(finding.kind for finding in found).most_common())
    more = "" if document["complete"] else "; only the first are shown"
    if found:
        console.print(f"{document['errors']} errors, {document['warnings']} warnings ({kinds}{more})")
    else:
        console.print(
            styled(
                ("no finding", "bold green"),
                f": {document['words']} instructions, every pair of accesses that conflict is ordered",
            )
        )
