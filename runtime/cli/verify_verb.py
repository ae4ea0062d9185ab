"""`llmcc verify`: does the binary compute PyTorch's bits?"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from isa.errors import InputError, ModelError
from isa.image.image import Image
from runtime.cli import completion
from runtime.cli.common import (
    Given,
    Stages,
    common_options,
    examples,
    input_options,
    limit_options,
    model_options,
    need,
    reply,
    stages,
    stdout,
    styled,
)
from runtime.cli.outputs import OutputFolder, check_folder, check_replaces_none
from runtime.device.memory import check_memory
from runtime.device.program_file import is_assembly, open_program
from runtime.models.models import BUNDLED, Recipe, folder_of, kind_of
from runtime.models.recorded import check_recorded, record_of, recorded_recipe

if TYPE_CHECKING:
    from runtime.cli.session import Session
    from runtime.pytorch.compilation import Compilation
    from runtime.verify.verify import Verification

    Verified = tuple[Verification, Image, Session, Compilation]

_CHANGES = 8  # instructions that differ from the compiler's; more are only counted: a program of another hand


@click.command(
    name="verify",
    epilog=examples(
        "llmcc verify minilm --seq 128 --batch 4",
        'llmcc verify minilm.llmchip --text "the file\'s own code, on this text"',
        "llmcc verify other.llmchip --model ./retrained --json",
        "llmcc verify broken.llmchip --bisect --repro ./case",
    ),
)
@click.argument("model", metavar="MODEL|FILE", shell_complete=completion.models)
@click.option(
    "--model",
    "override",
    metavar="MODEL",
    help="For a FILE: the model to compare with, in place of the recorded one; needed if that brings code.",
)
@click.option(
    "--bisect",
    is_flag=True,
    help="Where bits differ, find the first wrong instruction and write a folder that reproduces it.",
)
@click.option(
    "--repro",
    metavar="FOLDER",
    default="repro",
    show_default=True,
    type=OutputFolder(),
    help="The folder of --bisect.",
)
@click.option("--verbose", is_flag=True, help="List the nodes that are not compared, each with its reason.")
@limit_options
@model_options
@input_options
@common_options
def command(
    model: str,
    override: str | None,
    bisect: bool,
    repro: str,
    verbose: bool,
    max_instructions: int,
    as_json: bool,
    traceback: bool,
    **rest: Any,
) -> int:
    """Compare every output and every node with PyTorch's frozen graph, bit for bit.

    A MODEL is compiled first. Of a FILE (image or assembly text) the own code is run, against the model that it
    records. Without inputs, they are drawn from --seed. The distance to the float model is shown beside the verdict; it
    is another figure. Exit code 1 if a bit differs.
    """
    given = Given(**rest)
    context = click.get_current_context()
    need(
        bisect or context.get_parameter_source("repro") is ParameterSource.DEFAULT,
        "--repro is the folder of --bisect",
        model,
        "give both, or none",
    )
    if bisect:
        check_folder(repro)
        from runtime.debug.repro import FILES

        check_replaces_none(context, (Path(repro, name) for name in FILES))
    found: dict[str, Any] | None = None
    with stages("verify") as stage:
        if is_assembly(model) or kind_of(model) == "image":
            result, image, session, compiled = _verify_file(model, override, given, stage, max_instructions)
        else:
            if override is not None:
                raise InputError("--model only goes with a file", model, "leave it out")
            result, image, session, compiled = _verify_model(model, given, stage)
        if bisect and result.mismatched_elements:
            found = _bisect(session, image, compiled, Path(repro), stage)
    document = {"model": model, "chip": image.chip.name, **result.as_dict(), "seconds": stage.seconds}
    if bisect:
        document["bisection"] = found
    reply(document, as_json, lambda: _print(document, verbose))
    return 0 if result.bit_exact else 1


def _verify_model(model: str, given: Given, stage: Stages) -> "Verified":
    from runtime.cli.session import open_model

    session = open_model(model, given, stage)
    stage("compile")
    compiled = session.compile()
    stage("pack the weights")
    image = compiled.image(metadata=session.metadata())
    return _compare(session, image, compiled, stage), image, session, compiled


def _verify_file(path: str, override: str | None, given: Given, stage: Stages, max_instructions: int) -> "Verified":
    from runtime.cli.session import open_model

    stage("load the image")
    image = open_program(path, given.wanted_chip)
    check_memory(image, path, given.max_memory)
    given.check_for_image(path)
    recipe = recipe_of(image, path, override, given)
    shape = next((spec.shape for spec in image.entry().inputs if spec.name == "input_ids"), ())
    sized = replace(given, seq=shape[1], batch=shape[0]) if len(shape) == 2 else given
    session = open_model(recipe.argument, sized, stage, recipe, record_of(image, path).options)
    _check_weights(image, session, path, recipe.argument)
    stage("compile")
    compiled = session.compile(image.chip)
    return _compare(session, image, compiled, stage, max_instructions), image, session, compiled


def _bisect(
    session: "Session", image: Image, compiled: "Compilation", folder: Path, stage: Stages
) -> dict[str, Any] | None:
    """The first wrong instruction and its folder; None when no instruction wrote the value, so that there is none to
    show."""
    from runtime.debug.bisect import bisect
    from runtime.debug.repro import write_repro

    stage("bisect")
    found = bisect(image, compiled, session.arrays())
    return None if found is None else write_repro(found, folder)


def recipe_of(image: Image, path: str, override: str | None, given: Given) -> Recipe:
    """How to build the image's model again. Raises ModelError when the image does not say, or its model is not
    there."""
    recorded = recorded_recipe(image, path)
    argument = override or (recorded.argument if recorded else "")
    if not argument and not image.metadata:
        raise ModelError(
            "a hand-written program has no model to be compared with",
            path,
            "name a model with the same inputs and outputs with --model MODEL; 'llmcc lint' proves its order, 'llmcc run' gives outputs to compare with numpy",
        )
    if not argument:
        raise ModelError("the image does not say which model it was compiled from", path, "give it with --model MODEL")
    try:
        kind = kind_of(argument)
        if argument in BUNDLED:
            folder_of(argument)
    except ModelError as error:
        hint = error.hint if override else "run where it was compiled, or give the model with --model MODEL"
        raise ModelError(f"the image's model is missing: {error.what}", path, hint) from error
    if override is None:
        check_recorded(argument, path)
    recipe = recorded or Recipe(argument, given.class_name, given.random_weights, given.task)
    if kind != "folder":
        recipe = replace(recipe, class_name=None, random_weights=None)  # these were of the recorded folder
    shape = next((spec.shape for spec in image.entry().inputs if spec.name == "input_ids"), ())
    batch, seq = shape if kind == "folder" and len(shape) == 2 else (None, None)
    return replace(recipe, argument=argument, batch=batch, seq=seq)


def _check_weights(image: Image, session: "Session", path: str, argument: str) -> None:
    recorded, found = record_of(image, path).weights_sha256, session.weights_sha256()
    if recorded and recorded != found:
        raise ModelError(
            f"the weights of '{argument}' are not those of the image: sha256 {found[:16]}…, the image records {recorded[:16]}…",
            path,
            "the model has changed since; compile it again, or name the right one with --model",
        )


def _compare(
    session: "Session", image: Image, compiled: Any, stage: Stages, max_instructions: int | None = None
) -> "Verification":
    from runtime.verify.verify import verify_image

    stage("run the float model")
    expected = session.expected()
    stage("run both and compare")
    return verify_image(image, compiled, session.arrays(), expected, max_instructions)


def _print(document: dict[str, Any], verbose: bool) -> None:
    console = stdout()
    bits = document["mismatched_elements"]
    if document["bit_exact"]:
        console.print(
            styled(
                ("bit-exact", "bold green"),
                f": {document['nodes']} nodes, {document['outputs']} outputs, 0 differing bits",
            )
        )
    else:
        differing = f"{document['mismatched_nodes']} nodes and outputs differ in {bits} elements"
        console.print(
            styled(
                ("not bit-exact", "bold red"), f": {differing if bits else 'the bits depend on the timing of the chip'}"
            )
        )
        for finding in document["findings"]:
            console.print(f"  the program is at fault: {finding}", soft_wrap=True)
        first = document["first_divergence"] or {}
        for key in ("node", "source", "pc", "index", "expected", "actual") if first else ():
            value = first.get(key)
            console.print(
                f"  {key:9}", f"{value:#06x}" if key == "pc" and isinstance(value, int) else str(value), soft_wrap=True
            )
    if "bisection" in document and not document["bit_exact"]:
        _print_bisection(document["bisection"])
    distance = document["float"]
    if distance and distance["cosine"] is not None:
        console.print(
            f"distance to the float model: cosine {distance['cosine']:.5f}, largest difference {distance['max_abs']:.4g}"
        )
    kinds: dict[str, list[str]] = {}
    for entry in document["skipped"]:
        kind, _, reason = entry["reason"].partition(": ")
        kinds.setdefault(kind, []).append(entry["node"] + (f" ({reason})" if reason else ""))
    others = sorted(kinds.items(), key=lambda item: -len(item[1]))
    counts = f"; not compared: {', '.join(f'{len(nodes)} {kind}' for kind, nodes in others)}" if others else ""
    listed = "" if verbose or not others else " (--verbose lists them)"
    console.print(
        f"compared {document['nodes']} of {document['graph_nodes']} graph nodes{counts}{listed}", soft_wrap=True
    )
    for kind, nodes in others if verbose else ():
        console.print(f"{len(nodes):5} {kind}: " + ", ".join(nodes), style="dim", soft_wrap=True)


def _print_bisection(found: Mapping[str, Any] | None) -> None:
    console = stdout()
    if found is None:
        console.print("bisection: no instruction writes the missing value, so there is none to show")
        return
    console.print(
        styled(("first wrong instruction", "bold"), f" at {found['pc']:#06x}: {found['instruction']}"), soft_wrap=True
    )
    console.print(
        f"  {found['operand']} = {found['block']}, {found['differing']} elements differ; loop indices {found['indices']}"
    )
    if found["inputs_verified"]:
        console.print("  everything that goes into it is verified, so it is the culprit")
    else:
        console.print(f"  {len(found['suspects']) - 1} unverified instructions lead to it, see report.json")
    if len(found["changed"]) > _CHANGES:
        console.print(f"  {len(found['changed'])} instructions are not the compiler's")
    for change in found["changed"] if len(found["changed"]) <= _CHANGES else ():
        console.print(f"  the compiler has at {change['pc']:#06x}: {change['instruction']}", soft_wrap=True)
    for text in found["stale_data"]:
        console.print(f"  {text}")
    alone = "reproduces it alone" if found["reproduced"] else "does not reproduce it alone"
    console.print(f"  {found['folder']}/run.py {alone} ({found['words']} instructions)", soft_wrap=True)
