"""`llmcc report`: one page about a model on a chip, for a colleague."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from msgspec import to_builtins

from isa.files import write_atomic
from runtime.cli import completion
from runtime.cli.asked import context_option
from runtime.cli.common import Given, Stages, common_options, examples, model_options, need, reply, size, stages, stdout
from runtime.cli.launches import DRAWN, measured
from runtime.cli.outputs import OutputFile
from runtime.cli.tables import Column, show
from runtime.models.models import folder_of, kind_of
from runtime.plotting import check_plotting

if TYPE_CHECKING:
    from runtime.profile.profile import Profile
    from runtime.report.document import Accuracy, ModelFacts, ReportDocument
    from runtime.verify.steps import StepsDocument
    from runtime.verify.verify import Verification


@click.command(
    name="report",
    epilog=examples(
        "llmcc report minilm --data sentences.txt -o minilm.html",
        "llmcc report ./my-classifier --data reviews.txt --samples 200 --batch 8 -o report.html",
        "llmcc report mine:make --chip server -o report.html --json",
        "llmcc report smollm2 --data texts.txt --samples 16 -o smollm2.html",
    ),
)
@click.argument("model", shell_complete=completion.models)
@click.option("-o", "output", metavar="FILE", type=OutputFile(check_plotting), required=True, help="The page.")
@click.option(
    "--data",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Texts to compare chip and float model on, one a line. [default: inputs drawn from --seed]",
)
@click.option(
    "--samples",
    metavar="N",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Of --data the first so many texts; without it, so many drawn inputs, at most 8.",
)
@context_option
@model_options
@common_options
def command(
    model: str,
    output: str,
    data: str | None,
    samples: int,
    context: int | None,
    as_json: bool,
    traceback: bool,
    **rest: Any,
) -> int:
    """Write one self-contained page about a model on a chip: what it is, how near the float model, whether the bits are
    PyTorch's, cycles, energy, area, memory, the slowest layers, and the command that made it.

    The page has the whole profile, too, as 'llmcc profile --html' shows it. Exit code 1 if a bit differs; the page is
    written all the same.
    """
    kind = kind_of(model)
    need(kind != "image", "an image is no model", model, "name the model that it was compiled from")
    need(context is None or kind == "gguf", "--context goes with a language model in GGUF", model, "leave it out")
    need(
        data is None or kind in ("folder", "gguf"),
        "--data has texts, and only a Hugging Face folder or a GGUF file has a tokenizer",
        model,
        "leave --data out: inputs are drawn then",
    )
    with stages("report") as stage:
        given, typed = Given(**rest), _typed()
        if kind == "gguf":
            document, page = _language(model, given, context, data, samples, typed, stage)
        else:
            document, page = _made(model, given, data, samples, typed, stage)
        stage("write the page")
        write_atomic(output, [page.encode("utf-8", "backslashreplace")])
    found = {**to_builtins(document), "files": [output], "seconds_spent": stage.seconds}
    reply(found, as_json, lambda: _print(document, output))
    return 0 if document.bit_exact else 1


def _made(
    model: str, given: Given, data: str | None, most: int, typed: str, stage: Stages
) -> "tuple[ReportDocument, str]":
    """The report and its page."""
    from runtime.cli.session import open_model, tokenize_for
    from runtime.models.config_json import read_config
    from runtime.models.texts import read_texts
    from runtime.profile.profile import profile, timing
    from runtime.report import report
    from runtime.verify.verify import verify_image

    texts, left_out = read_texts(data, most) if data is not None else ((), 0)
    if texts:  # the program is as long as the longest needs it
        longest = tokenize_for(model, replace(given, texts=texts, batch=None)).input_ids.shape[1]
        batch = min(given.batch or 1, len(texts))
        given = replace(given, seq=longest, batch=batch, texts=texts[:batch])
    session = open_model(model, given, stage)
    stage("compile")
    compilation = session.compile()
    stage("pack the weights")
    image = compilation.image(metadata=session.metadata())
    stage("compare the bits")
    verification = verify_image(image, compilation, session.arrays(), session.expected())
    accuracy = measured(session, image, given, texts or None, data or DRAWN, left_out, min(most, 8), stage)
    stage("time the program")
    with timing(model):
        run = profile(image, compilation)
    config = read_config(folder_of(model)) if kind_of(model) == "folder" else {}
    facts = report.model_facts(session.built, session.captured, image, config)
    return _finished(run, model, typed, facts, accuracy, verification=verification)


def _language(
    model: str, given: Given, context: int | None, data: str | None, most: int, typed: str, stage: Stages
) -> "tuple[ReportDocument, str]":
    """The report of a language model in GGUF, and its page."""
    from runtime.cli.language import language_image
    from runtime.cli.session import make_options
    from runtime.models.texts import read_texts
    from runtime.profile.context import lengths, over_context
    from runtime.profile.profile import profile, timing
    from runtime.report import report
    from runtime.report.language import LanguageReport, plain_model

    texts, left_out = read_texts(data, most) if data is not None else ((), 0)
    image = language_image(model, given, context, stage)
    stage("capture")
    found = LanguageReport.of(Path(folder_of(model)), image, make_options(given))
    tokens = found.tokens(texts, min(most, 8), given.seed)
    stage("compare the bits")
    steps = found.verify(tokens[0])
    accuracy = found.accuracy(tokens, texts, data or DRAWN, left_out, stage)
    stage("time the program")
    with timing(model):
        run = profile(image, entry=found.entry)
        points = over_context(image, found.entry, lengths(f"1:{found.context}:9", image, found.entry))
    facts = report.language_facts(found.model, plain_model(found.model), image, found.entry, model)
    context_points = tuple(point.as_dict() for point in points)
    return _finished(run, model, typed, facts, accuracy, steps=steps, context=context_points)


def _finished(
    run: "Profile", model: str, typed: str, facts: "ModelFacts", accuracy: "Accuracy",
    verification: "Verification | None" = None, steps: "StepsDocument | None" = None,
    context: Sequence[Mapping[str, int | float]] = (),
) -> "tuple[ReportDocument, str]":  # fmt: skip
    from runtime.html.report_page import page
    from runtime.report import report
    from runtime.report.document import ReportDocument

    image = run.image
    document = ReportDocument(
        title=f"{facts.architecture} on chip {image.chip.name}",
        command=typed,
        model=facts,
        accuracy=accuracy,
        verification=verification,
        steps=steps,
        profile=run.document(model),
        area_mm2=image.chip.area(),
        memory=report.memory(image),
        versions=report.versions(image),
        hashes=report.hashes(image, image.chip),
        context=tuple(context),
    )
    return document, page(run, document)


_UNSAID = ("extension", "as_json", "traceback")  # they change nothing of the page, or are no value


def _typed() -> str:
    """The command as it can be typed again: every option that was given, by its long name."""
    context = click.get_current_context()
    words = ["llmcc", "report"]
    for param in context.command.params:
        name = param.name or ""
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE or name in _UNSAID:
            continue
        value = context.params.get(name)
        if isinstance(param, click.Argument):
            words.append(str(value))
        elif isinstance(param, click.Option) and param.is_flag:
            words.append(param.opts[-1])
        else:
            words += [word for one in _values(value) for word in (param.opts[-1], one)]
    return shlex.join(words)


def _values(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [f"{name}={part}" for name, part in value.items()]
    return [str(part) for part in value] if isinstance(value, tuple) else [str(value)]


def _print(d: "ReportDocument", path: str) -> None:
    console, p = stdout(), d.profile
    verdict = "bit-exact" if d.bit_exact else "NOT bit-exact"
    console.print(f"{d.title}: {d.model.parameters:,} parameters, {verdict}", soft_wrap=True)
    rows = [
        (o.name, *(f"{x:.5f}" if x is not None else "" for x in (o.cosine, o.least_cosine, o.argmax, o.nearest)))
        for o in d.accuracy.outputs
    ]
    show([Column("output", prose=True), *(Column(name, right=True) for name in _TITLES)], rows)
    if d.accuracy.perplexity is not None:
        console.print("perplexity {:.2f} on the chip, {:.2f} in float".format(*d.accuracy.perplexity))
    console.print(
        f"{d.accuracy.samples} samples, {d.accuracy.source}; {p.cycles:,} cycles, {p.seconds * 1e6:,.1f} µs, "
        f"{p.total_joules * 1e3:.3f} mJ, {sum(d.area_mm2.values()):.1f} mm², {size(d.model.weight_bytes)} of weights",
        soft_wrap=True,
    )
    console.print(f"wrote {path}", soft_wrap=True)


_TITLES = ("cosine", "worst", "argmax", "nearest")
