"""`llmcc quantize`: which layers can have how few bits, measured on the user's data."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click
from msgspec import to_builtins

from compiler.quantization import DYNAMIC, EVERY, STATIC, WEIGHT_ONLY, QuantConfig
from isa.errors import Error, InputError
from isa.files import write_atomic
from runtime.cli import completion
from runtime.cli.common import Given, Stages, common_options, examples, model_options, need, reply, say, stages
from runtime.cli.launches import DRAWN, launches, measured
from runtime.cli.outputs import STDOUT, OutputFile
from runtime.cli.tables import Column, show
from runtime.models.models import kind_of
from runtime.models.texts import read_texts
from runtime.plotting import check_plotting

if TYPE_CHECKING:
    from torch import Tensor

    from runtime.cli.session import Session
    from runtime.quantize.document import Layer, Measured, QuantizeDocument
    from runtime.quantize.layers import Layers, Samples

TARGETS = ("cosine", "worst", "argmax")
TRIED = (DYNAMIC, STATIC, WEIGHT_ONLY, "w4a8-g32", "bf16", "float")
OUTPUTS = ("sentence_embedding", "logits")  # what counts, if the model gives it; else its first output
DRAWS = 8
COSINE = 0.998  # what is accurate enough where nothing is said, and how errors are shared out where only others are


def _targets(_ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for value in values:
        name, _, number = value.partition("=")
        try:
            found[name] = float(number)
        except ValueError:
            raise click.BadParameter(f"'{value}' is not NAME=NUMBER", param=param) from None
        if name not in TARGETS or not 0 <= found[name] <= 1:
            raise click.BadParameter(f"'{value}': one of {', '.join(TARGETS)}, from 0 to 1", param=param)
    return found


def _schemes(_ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys([DYNAMIC, *(name.strip() for name in value.split(","))]))
    for name in names:
        if name not in EVERY:
            raise click.BadParameter(f"'{name}' is none of {', '.join(EVERY)}", param=param)
    return names


def _alpha(_ctx: click.Context, param: click.Parameter, value: str) -> float | None:
    if value == "none":
        return None
    try:
        return QuantConfig(smoothing=float(value)).smoothing
    except (ValueError, Error):
        raise click.BadParameter(f"'{value}' is neither a number from 0 to 1 nor none", param=param) from None


@click.command(
    name="quantize",
    epilog=examples(
        "llmcc quantize minilm --data sentences.txt --report minilm.html",
        "llmcc quantize ./my-classifier --data reviews.txt --target cosine=.999 --target argmax=.99",
        "llmcc quantize mine:make --schemes w8a8-dynamic,bf16 --smoothing none --json",
    ),
)
@click.argument("model", shell_complete=completion.models)
@click.option(
    "--data",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Texts to measure on, one a line. [default: inputs drawn from --seed]",
)
@click.option(
    "--samples",
    metavar="N",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Of --data the first so many texts.",
)
@click.option(
    "--target",
    "target",
    metavar="NAME=NUMBER",
    multiple=True,
    callback=_targets,
    help="What is accurate enough (repeatable): cosine, the mean over the samples; worst, that of the worst; argmax, the "
    "share of equal choices of logits. [default: cosine=0.998]",
)
@click.option(
    "--schemes",
    metavar="NAMES",
    default=",".join(TRIED),
    callback=_schemes,
    show_default=True,
    help="What layers may have.",
)
@click.option(
    "--smoothing",
    metavar="ALPHA",
    default="0.5",
    callback=_alpha,
    show_default=True,
    help="Of layers whose activations are quantized; none: without.",
)
@click.option(
    "--report",
    "page",
    metavar="FILE",
    type=OutputFile(check_plotting, allow_dash=True),
    help="Write one page with tables and plots; -: to stdout.",
)
@model_options
@common_options
def command(
    model: str, data: str | None, samples: int, target: dict[str, float], schemes: tuple[str, ...],
    smoothing: float | None, page: str | None, as_json: bool, traceback: bool, **rest: Any,
) -> int:  # fmt: skip
    """Find out which layers of a model can have how few bits.

    Each linear layer alone is quantized in each scheme and the model's output compared with the float model's. From that,
    and from the cycles that are predicted for each layer, schemes are chosen that are accurate enough at the least
    cost; whole models are then measured on the chip. The suggestion is an option for every verb that compiles.
    Calibration is on --calibration, else on the texts of --data. Exit code 1 if nothing that was measured reaches the target.
    """
    given = Given(**rest)
    kind = kind_of(model)
    need(kind in ("folder", "factory"), f"a model in a file of kind {kind} cannot be looked into", model,
         "name a Hugging Face folder or package.module:factory")  # fmt: skip
    need(data is None or kind == "folder", "--data has texts, and only a Hugging Face folder has a tokenizer", model,
         "leave --data out: inputs are drawn then")  # fmt: skip
    need("quantization" not in (given.option or {}), "quantization is what is to be found here", model,
         "leave the option out; --schemes says what layers may have")  # fmt: skip
    need(not (as_json and page == STDOUT), "--json and --report - both go to stdout", hint="name a file for the page")
    with stages("quantize") as stage:
        study = Study(model, given, data, samples, stage)
        document = study.document(target or {"cosine": COSINE}, schemes, smoothing)
        if page is not None:
            stage("write the page")
            from runtime.html.quantize_page import page as html

            text = html(document)
            if page == STDOUT:
                click.echo(text)
            else:
                write_atomic(page, [text.encode("utf-8", "backslashreplace")])
    files = [page] if page not in (None, STDOUT) else []
    found = {**to_builtins(document), "files": files, "seconds_spent": stage.seconds}
    if page != STDOUT:
        reply(found, as_json, lambda: _print(document, files))
    return 0 if document.suggestion is not None else 1


@dataclass
class Study:
    """A model, its data, and what is asked of both."""

    model: str
    given: Given
    data: str | None
    most: int
    stage: Stages

    @cached_property
    def texts(self) -> tuple[str, ...]:
        return read_texts(self.data, self.most)[0] if self.data is not None else ()

    @cached_property
    def session(self) -> "Session":
        from torch import nn

        from runtime.cli.session import open_model, tokenize_for

        given = replace(self.given, calibration=None)
        if self.texts:  # the program is as long as the longest needs it
            longest = tokenize_for(self.model, replace(given, texts=self.texts, batch=None)).input_ids.shape[1]
            batch = min(given.batch or 8, len(self.texts))
            given = replace(given, seq=longest, batch=batch, texts=self.texts[:batch])
        self.given = replace(given, calibration=self.given.calibration)
        session = open_model(self.model, given, self.stage)
        need(isinstance(session.built.model, nn.Module), "an exported program has no layers to look into", self.model)
        return session

    def samples(self) -> "Samples":
        """All texts as one batch, or one that is drawn."""
        from runtime.quantize.layers import Samples

        session = self.session
        if self.texts:
            (found,) = launches(session, self.given, self.texts, len(self.texts), 0)
            inputs, count = found[0], len(self.texts)
        else:
            ((inputs, _),) = launches(session, self.given, None, 0, 1)
            count = next((len(x) for x in inputs.values() if hasattr(x, "dim") and x.dim()), 1)
        return Samples(inputs, count, inputs.get("attention_mask"))

    def calibrating(self) -> "Iterator[Mapping[str, Tensor]]":
        """Inputs to calibrate on: those that `--calibration` with the same file takes, or some that are drawn."""
        from runtime.cli.session import CalibrationFile

        path = self.given.calibration or self.data
        texts = CalibrationFile.of(path).texts if path is not None else None
        batches = launches(self.session, replace(self.given, seq=None), texts, 1, DRAWS)
        return (inputs for inputs, _ in batches)

    def document(
        self, target: Mapping[str, float], schemes: Sequence[str], smoothing: float | None
    ) -> "QuantizeDocument":
        from runtime.calibration import calibrate
        from runtime.quantize.document import QuantizeDocument
        from runtime.quantize.layers import Layers, others_of
        from runtime.quantize.suggest import Search

        session, stage = self.session, self.stage
        names = [info.name for info in session.captured.outputs]
        output = next((name for name in OUTPUTS if name in names), names[0])
        stage("calibrate")
        model: Any = session.built.model
        known = calibrate(model, self.calibrating())
        stage("layers in float")
        layers = Layers(model, self.samples(), names.index(output), known)
        found = tuple(self._layers(layers, schemes, smoothing))
        document = QuantizeDocument(
            model=self.model, chip=session.chip.name, source=self.data or DRAWN,
            calibration=self.given.calibration or self.data or DRAWN, samples=layers.samples.count,
            output=output, target=dict(target), smoothing=smoothing, layers=found, measured=(), suggestion=None,
        )  # fmt: skip

        def measure(config: QuantConfig) -> "Measured":
            return self._measured(config, known, output)

        others = others_of(session.captured, [layer.module for layer in found])
        search = Search(found, others, smoothing, 1 - target.get("cosine", COSINE), measure, document.reaches)
        tried, best = search.run()
        values = {name: getattr(document, name) for name in document.__struct_fields__}
        return QuantizeDocument(**{**values, "measured": tried, "suggestion": best})

    def _layers(self, layers: "Layers", schemes: Sequence[str], smoothing: float | None) -> "Iterator[Layer]":
        from runtime.quantize.document import Choice, Layer
        from runtime.quantize.layers import rows_of

        rows = rows_of(self.session.captured, list(layers.inputs))
        cycles: dict[object, int] = {}
        for number, name in enumerate(layers.inputs, 1):
            if name not in rows:
                continue
            self.stage(f"layer {number} of {len(layers.inputs)}")
            n, k = layers.model.get_submodule(name).weight.shape  # type: ignore[misc]
            choices = []
            for scheme in schemes:
                config = QuantConfig(scheme, smoothing)
                cosines = layers.cosines(name, config)
                key = scheme, rows[name], k, n
                if key not in cycles:
                    cycles[key] = layers.cycles(name, config, rows[name], self.session.chip)
                choices.append(Choice(scheme, 1 - sum(cosines) / len(cosines), min(cosines), cycles[key]))
            yield Layer(name, rows[name], int(k), int(n), tuple(choices))

    def _measured(self, config: QuantConfig, known: Any, output: str) -> "Measured":
        """The whole model on the chip."""
        from compiler.frontend.calibration import marked
        from emulator.timing.simulate import simulate
        from runtime.quantize.document import Measured

        session = self.session
        options = replace(session.options, quantization=str(config))
        whole = replace(session, captured=marked(session.captured, config, known), options=options)
        self.stage(f"compile {config}"[:60])
        image = whole.compile().image()
        accuracy = measured(whole, image, self.given, self.texts or None, self.data or DRAWN, 0, DRAWS, self.stage)
        (found,) = (one for one in accuracy.outputs if one.name == output)
        if found.cosine is None or found.least_cosine is None:
            raise InputError(f"output '{output}' has integers, which have no distance", self.model)
        return Measured(str(config), found.cosine, found.least_cosine, found.argmax, simulate(image).cycles)


def _print(d: "QuantizeDocument", files: Sequence[str]) -> None:
    names = [choice.scheme for choice in d.layers[0].choices] if d.layers else []
    say(f"{d.model} on chip {d.chip}: error of '{d.output}' (1 - cosine) with one layer quantized, {d.samples} samples")
    show(
        [Column("layer", prose=True, by_end=True), *(Column(name, right=True) for name in names)],
        [(layer.module, *(f"{choice.error:.1e}" for choice in layer.choices)) for layer in d.layers],
    )
    say("")
    show(
        [Column(name, right=True) for name in ("cosine", "worst", "argmax", "cycles")]
        + [Column("quantization", prose=True)],
        [
            (f"{m.cosine:.5f}", f"{m.worst:.5f}", "" if m.argmax is None else f"{m.argmax:.3f}", f"{m.cycles:,}",
             _short(m.quantization))
            for m in d.measured
        ],
    )  # fmt: skip
    wanted = ", ".join(f"{name} {least:g}" for name, least in d.target.items())
    say("")
    if d.suggestion is None:
        say(f"nothing that was measured reaches {wanted}")
    else:
        say(f"the cheapest that reaches {wanted}:")
        takes = QuantConfig.parse(d.suggestion).calibrated and d.calibration != DRAWN
        say(
            f"--option quantization='{d.suggestion}'"
            + (f" --calibration {shlex.quote(d.calibration)}" if takes else "")
        )
    for file in files:
        say(f"wrote {file}")


def _short(text: str) -> str:
    """The scheme, and how many modules have another."""
    config = QuantConfig.parse(text)
    base = str(QuantConfig(config.scheme, config.smoothing))
    return f"{base}, {len(config.pairs)} overrides" if config.pairs else base
