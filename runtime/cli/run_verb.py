"""`llmcc run`: texts or tensors in, answers or tensors out, computed by the emulated chip."""

from collections.abc import Mapping, Sequence
from typing import Any

import click
import numpy as np

from isa.errors import InputError
from isa.image.image import Image
from isa.image.steps import steps
from runtime.cli import completion
from runtime.cli.asked import ASKED, asked_of, language_options
from runtime.cli.common import (
    Given,
    Stages,
    common_options,
    examples,
    input_options,
    limit_options,
    model_options,
    need,
    pairs,
    reply,
    stages,
    stdout,
    styled,
)
from runtime.cli.outputs import OutputFile
from runtime.cli.tables import Cell, Column, show
from runtime.cli.tensors import describe, plan_outputs, read_inputs, write_outputs
from runtime.device.arrays import Array
from runtime.device.drawing import draw_inputs
from runtime.device.executable import Executable
from runtime.device.memory import check_memory
from runtime.device.program_file import is_assembly, open_program
from runtime.models.models import kind_of
from runtime.models.recorded import record_of
from runtime.models.tokenize import answer, tokenize


@click.command(
    name="run",
    epilog=examples(
        'llmcc run minilm --text "a cat sits on the mat" --text "a kitten rests" --text "stocks fell"',
        "llmcc run minilm.llmchip --input input_ids=ids.npy --input attention_mask=mask.npy --output last_hidden_state=out.npy",
        'llmcc run ./my-classifier --text "what a wonderful film" --json',
        "llmcc run examples/asm/softmax.s --input x=x.npy --output y=y.npy",
        'llmcc run smollm2 --prompt "Why is the sky blue?" --max-new-tokens 64',
        "llmcc run smollm2 --chat",
    ),
)
@click.argument("model", metavar="MODEL|FILE", shell_complete=completion.models)
@model_options
@input_options
@click.option(
    "--interpret",
    is_flag=True,
    help="Execute instruction by instruction, without compiled kernels (slower, the same bits).",
)
@click.option(
    "--adversarial",
    type=int,
    metavar="SEED",
    help="Let the engines overlap in a random order that the dependence counts allow.",
)
@limit_options
@click.option(
    "--output",
    "outputs",
    metavar="NAME=FILE.npy",
    type=OutputFile(),
    multiple=True,
    callback=pairs,
    help="Write an output (repeatable).",
)
@language_options
@common_options
def command(
    model: str,
    outputs: dict[str, str],
    interpret: bool,
    adversarial: int | None,
    max_instructions: int,
    as_json: bool,
    traceback: bool,
    **rest: Any,
) -> int:
    """Run a model, an image made by 'llmcc compile', or assembly text (P.s) on the emulated chip.

    With --text: a table of similarities for sentence embeddings, or labels with their probabilities for a classifier.
    Inputs that are not given are drawn from --seed. A language model writes on from --prompt, or talks with --chat.
    """
    given, asked = Given(**{name: rest[name] for name in rest if name not in ASKED}), asked_of(rest)
    kind = "image" if is_assembly(model) else kind_of(model)  # says so if there is no such file
    if asked.wanted or kind == "gguf":
        from runtime.cli.talk import talk

        need(not outputs, "--output does not go with --prompt or --chat", hint="leave it out")
        mode = {"interpret": interpret, "adversarial": adversarial, "max_instructions": max_instructions}
        return talk(model, given, asked, mode, as_json)
    with stages("run") as stage:
        runner = _run_image if kind == "image" else _run_model
        image, results = runner(
            model,
            given,
            outputs,
            {"interpret": interpret, "adversarial": adversarial, "max_instructions": max_instructions},
            stage,
        )
        planned = plan_outputs(outputs, tuple(spec.name for spec in image.entry().outputs))
        write_outputs(planned, results)
    document: dict[str, Any] = {
        "model": model,
        "chip": image.chip.name,
        "words": image.words,
        "seconds": stage.seconds,
        "outputs": {
            name: describe(array) | ({"file": planned[name]} if name in planned else {})
            for name, array in results.items()
        },
    }
    if given.texts:
        document |= answer(given.texts, results, record_of(image, model).labels or ())
    reply(document, as_json, lambda: _print(document))
    return 0


def _run_model(
    model: str, given: Given, outputs: dict[str, str], mode: Mapping[str, Any], stage: Stages
) -> tuple[Image, dict[str, Array]]:
    from runtime.cli.session import open_model

    session = open_model(model, given, stage)
    plan_outputs(outputs, tuple(info.name for info in session.captured.outputs))
    stage("compile")
    image = session.image()
    results = _launch(Executable(image, **mode), session.arrays(), stage)
    return image, {name: array[: len(given.texts)] for name, array in results.items()} if given.texts else results


def _run_image(
    path: str, given: Given, outputs: dict[str, str], mode: Mapping[str, Any], stage: Stages
) -> tuple[Image, dict[str, Array]]:
    stage("load the image")
    image = open_program(path, given.wanted_chip)
    check_memory(image, path, given.max_memory)
    given.check_for_image(path, **{"--class": given.class_name, "--random-weights": given.random_weights})
    specs = image.entry().inputs
    plan_outputs(outputs, tuple(spec.name for spec in image.entry().outputs))
    if steps(image):
        raise InputError("the image is a language model's", path, "give --prompt TEXT, or --chat")
    device = Executable(image, **mode)
    if given.texts:
        return image, _run_texts(device, path, given.texts, stage)
    drawn = draw_inputs(image, given.seed)
    return image, _launch(device, drawn | read_inputs(given.inputs or {}, tuple(spec.name for spec in specs)), stage)


def _run_texts(device: Executable, path: str, texts: Sequence[str], stage: Stages) -> dict[str, Array]:
    """As many launches as the image's batch size asks for."""
    from runtime.cli.session import image_tokenizer

    image = device.image
    shapes = {spec.name: spec.shape for spec in image.entry().inputs}
    if "input_ids" not in shapes or len(shapes["input_ids"]) != 2:
        raise InputError(
            "the image takes no token ids", path, f"its inputs are {', '.join(shapes)}; give them with --input"
        )
    tokenizer, (batch, seq) = image_tokenizer(image, path), shapes["input_ids"]
    results: dict[str, list[Array]] = {}
    for first in range(0, len(texts), batch):
        some = texts[first : first + batch]
        tokens = tokenize(tokenizer, some, seq, seq, batch)
        for name, array in _launch(device, tokens.inputs(tuple(shapes)), stage).items():
            results.setdefault(name, []).append(array[: len(some)])
    return {name: np.concatenate(parts) for name, parts in results.items()}


def _launch(device: Executable, arrays: dict[str, Array], stage: Stages) -> dict[str, Array]:
    stage("run on the emulated chip")
    return device(arrays)


def _print(document: dict[str, Any]) -> None:
    if "similarity" in document:
        print_similarity(document["texts"], document["similarity"])
    elif "classification" in document:
        _print_labels(document["classification"])
    else:
        _print_outputs(document["outputs"])
    console = stdout()
    for name, output in document["outputs"].items():
        if "file" in output:
            console.print(f"{name} → {output['file']}", soft_wrap=True)
    seconds = document["seconds"].get("run on the emulated chip", 0.0)
    console.print(
        f"{document['words']} instructions on chip {document['chip']}, emulated in {seconds:.1f} s", style="dim"
    )


def print_similarity(texts: Sequence[str], table: Sequence[Sequence[float]]) -> None:
    stdout().print(styled(("cosine similarity", "italic")))
    columns = [
        Column("#", right=True, style="dim"),
        Column("text", prose=True),
        *(Column(str(n + 1), right=True) for n in range(len(texts))),
    ]
    rows: list[list[Cell]] = []
    for number, (text, row) in enumerate(zip(texts, table, strict=True)):
        cells = [(f"{value:.3f}", _color(value) if other != number else "dim") for other, value in enumerate(row)]
        rows.append([str(number + 1), text, *cells])
    show(columns, rows)


def _color(value: float) -> str:
    return "bold green" if value >= 0.5 else "yellow" if value >= 0.25 else "default"


def _print_labels(results: Sequence[dict[str, Any]]) -> None:
    columns = [
        Column("text", prose=True),
        Column("label", style="bold green"),
        *(Column(name, right=True) for name in results[0]["probabilities"]),
    ]
    show(columns, [[r["text"], r["label"], *(f"{p:.3f}" for p in r["probabilities"].values())] for r in results])


def _print_outputs(outputs: dict[str, Any]) -> None:
    columns = [Column("output"), Column("shape"), Column("type"), Column("first values", prose=True)]
    rows = [
        (name, str(o["shape"]), o["dtype"], ", ".join(f"{value:.5g}" for value in o["first"]))
        for name, o in outputs.items()
    ]
    show(columns, rows)
