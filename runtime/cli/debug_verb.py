"""`llmcc debug`: step through a program, forwards and backwards."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from isa.chip import Chip
from isa.errors import InputError
from isa.files import read_text
from isa.image.image import Image
from runtime.cli import completion
from runtime.cli.common import (
    Given,
    color_option,
    common_options,
    entry_option,
    examples,
    input_options,
    limit_options,
    model_options,
    need,
    note,
    pairs,
    reply,
    say,
    stages,
    wants_color,
)
from runtime.cli.outputs import check_replaces_none
from runtime.cli.programs import entry_of, scalars_of
from runtime.cli.tensors import read_inputs
from runtime.device.arrays import Array
from runtime.device.drawing import draw_inputs
from runtime.device.memory import check_memory
from runtime.device.program_file import is_assembly, open_program
from runtime.models.models import kind_of
from runtime.models.recorded import record_of
from runtime.models.tokenize import tokenize

if TYPE_CHECKING:
    from runtime.cli.session import Session as ModelSession
    from runtime.debug.commands import Shell
    from runtime.debug.launch import Reference


@click.command(
    name="debug",
    epilog=examples(
        'llmcc debug minilm.llmchip --text "a cat sits on the mat"',
        "llmcc debug minilm.llmchip --script commands.txt",
        "printf 'break activation\\nrun\\nfinish activation\\nprint activation\\n' | llmcc debug bert.llmchip --seed 3",
        "llmcc debug program.s --input x=x.npy",
    ),
)
@click.argument("model", metavar="FILE|MODEL", shell_complete=completion.models)
@click.option(
    "--script", metavar="FILE", type=click.Path(), help="Read the commands from this file instead of the terminal."
)
@click.option(
    "--model",
    "override",
    metavar="MODEL",
    help="The model that 'compare' runs in PyTorch, not the recorded one; needed if that brings code.",
)
@entry_option
@click.option(
    "--scalar",
    "scalars",
    metavar="NAME=VALUE",
    multiple=True,
    callback=pairs,
    help="A scalar argument of the launch, such as a position (repeatable).",
)
@limit_options
@model_options
@input_options
@color_option
@common_options
def command(
    model: str,
    script: str | None,
    override: str | None,
    entry: str | None,
    scalars: dict[str, str],
    max_instructions: int,
    color: str,
    as_json: bool,
    traceback: bool,
    **rest: Any,
) -> int:
    """Step through an image (or assembly text, or a model, which is compiled first), instruction by instruction.

    Breakpoints on instructions, nodes, source lines and memory writes, with conditions; tensors of any node so far;
    comparison of any node with PyTorch; and all of it backwards. 'help' lists the commands. Without inputs they are
    drawn from --seed.
    Commands come from the terminal, --script or a pipe. Exit code 1 if a command failed, the program trapped, a
    comparison found a difference, or the condition of a breakpoint could not be told.
    """
    from runtime.debug.commands import Shell
    from runtime.debug.session import Session

    given = Given(**rest)
    lines = _read_script(script) if script is not None else None
    with stages("debug") as stage:
        stage("load")
        opened = _opened(model, override, entry, given)
        image = opened.image
        values = scalars_of(image.entry(), scalars, model)
        session = Session(image, opened.inputs, opened.reference, scalars=values, max_instructions=max_instructions)
    context = click.get_current_context()
    shell = Shell(session, opened.unfused, lambda path: check_replaces_none(context, [path]))
    if as_json:
        document = [shell.document(line) for line in _until_done(shell, lines or _stdin())]
        reply(
            {"file": model, "commands": document, "failed": shell.failed, "words": shell.session.stepper.time},
            True,
            lambda: None,
        )
        return 1 if shell.failed else 0
    from runtime.debug import terminal

    if lines is None and sys.stdin.isatty():
        note(
            f"{image.words} instructions, {len(image.debug.nodes)} nodes, chip {image.chip.name}; 'help' lists the commands"
        )
        terminal.run_terminal(shell, _writer(color))
        return 0
    terminal.run_lines(shell, lines if lines is not None else _stdin(), _writer(color))
    return 1 if shell.failed else 0


def _writer(color: str) -> Callable[[str], None]:
    """What prints a line. Colours go to terminals only, or where they are asked for."""
    if not wants_color(color):
        return say
    from runtime.debug.styled import coloured

    def write(line: str) -> None:
        sys.stdout.write(coloured(line) + "\n")
        sys.stdout.flush()

    return write


def _until_done(shell: "Shell", lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if shell.done:
            return
        if line.split("#", 1)[0].strip():
            yield line.strip()


def _read_script(path: str) -> list[str]:
    try:
        return read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read the script: {error.strerror if isinstance(error, OSError) else error}", path
        ) from error


def _stdin() -> Iterator[str]:
    for line in sys.stdin:
        yield line.rstrip("\n")


@dataclass(frozen=True)
class _Opened:
    """A program with its inputs, and how to have PyTorch's side of it, and the program without fusing."""

    image: Image
    inputs: Mapping[str, Array]
    reference: "Callable[[Mapping[str, Array]], Reference]"
    unfused: Callable[[], Image] | None


def _opened(argument: str, override: str | None, entry: str | None, given: Given) -> _Opened:
    if is_assembly(argument) or kind_of(argument) == "image":
        image = open_program(argument, given.wanted_chip)
        check_memory(image, argument, given.max_memory)
        given.check_for_image(argument)
        if entry is not None:  # becomes the first, which all look at
            chosen = entry_of(image, entry, argument)
            image = replace(image, entries=(chosen, *(other for other in image.entries if other is not chosen)))
    else:
        need(entry is None, "--entry only goes with a file", argument, "leave it out")
        need(override is None, "--model only goes with a file", argument, "leave it out")
        return _compiled(argument, given)
    model = _Recorded(image, argument, override, given)
    unfused = None if is_assembly(argument) else model.unfused
    return _Opened(image, _inputs(image, argument, given), model.reference, unfused)


def _compiled(argument: str, given: Given) -> _Opened:
    """A model: compile it first."""
    from runtime.cli.common import Stages
    from runtime.cli.session import open_model

    session = open_model(argument, given, Stages("debug"))
    compiled = session.compile()

    def reference(inputs: Mapping[str, Array]) -> "Reference":
        from runtime.debug.reference import of_lowered

        return of_lowered(compiled.lowered)(inputs)

    return _Opened(
        compiled.image(metadata=session.metadata()),
        session.arrays(),
        reference,
        lambda: _unfused(session, session.chip),
    )


def _unfused(session: "ModelSession", chip: Chip) -> Image:
    """The model without what keeps values from memory; no bit of a result is another."""
    from compiler.options import FUSING
    from runtime.pytorch.compilation import Compilation

    options = replace(session.options, disable=(*session.options.disable, *FUSING))
    return Compilation(session.captured, options, chip).image(metadata=session.metadata())


@dataclass(frozen=True)
class _Recorded:
    """The model of an image: the recorded one, or --model, captured and lowered when it is asked for."""

    image: Image
    path: str
    override: str | None
    given: Given

    @cached_property
    def session(self) -> "ModelSession":
        return open_recorded(self.image, self.path, self.override, self.given)

    def reference(self, inputs: Mapping[str, Array]) -> "Reference":
        """PyTorch's side of the image."""
        from compiler.lower import lower
        from runtime.debug.reference import of_lowered

        lowered = lower(self.session.captured, self.session.options)
        self._check([(info.name, info.shape) for info in lowered.inputs])
        return of_lowered(lowered)(inputs)

    def unfused(self) -> Image:
        """The image, compiled again without fusing."""
        image = _unfused(self.session, self.image.chip)
        self._check([(spec.name, spec.shape) for spec in image.entry().inputs])
        return image

    def _check(self, fresh: list[tuple[str, tuple[int, ...]]]) -> None:
        own = [(spec.name, spec.shape) for spec in self.image.entry().inputs]
        need(
            own == fresh,
            f"the image takes {own}, the model {fresh}",
            self.path,
            "give the model that it was compiled from with --model",
        )


def open_recorded(image: Image, path: str, override: str | None, given: Given) -> "ModelSession":
    """The image's model, at the image's shapes, with its weights checked."""
    from runtime.cli.common import Stages
    from runtime.cli.session import open_model
    from runtime.cli.verify_verb import _check_weights, recipe_of

    recipe = recipe_of(image, path, override, given)
    shape = next((spec.shape for spec in image.entry().inputs if spec.name == "input_ids"), ())
    quiet = replace(given, texts=(), inputs={})
    sized = replace(quiet, seq=shape[1], batch=shape[0]) if len(shape) == 2 else quiet
    session = open_model(recipe.argument, sized, Stages("debug"), recipe, record_of(image, path).options)
    _check_weights(image, session, path, recipe.argument)
    return session


def _inputs(image: Image, path: str, given: Given) -> Mapping[str, Array]:
    specs = image.entry().inputs
    if given.texts and given.inputs:
        raise InputError("--text and --input do not go together", hint="give texts or tensors")
    if given.inputs:
        return read_inputs(given.inputs, tuple(spec.name for spec in specs))
    if given.texts:
        from runtime.cli.session import image_tokenizer

        shapes = {spec.name: spec.shape for spec in specs}
        need(
            len(shapes.get("input_ids", ())) == 2,
            "the image takes no token ids",
            path,
            f"its inputs are {', '.join(shapes)}",
        )
        batch, seq = shapes["input_ids"]
        need(
            len(given.texts) <= batch,
            f"{len(given.texts)} texts, but the image takes {batch} at a time",
            path,
            "debug them one by one",
        )
        return tokenize(image_tokenizer(image, path), given.texts, seq, seq, batch).inputs(tuple(shapes))
    return draw_inputs(image, given.seed)
