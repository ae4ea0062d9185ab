"""What the verbs share: options, replies, progress.

Options are declared here once; a verb picks the groups it needs (`@model_options`). A reply is one JSON document on
stdout with `--json`, text otherwise; everything else goes to stderr.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from emulator.budget import DEFAULT
from isa.errors import InputError
from isa.shown import shown, shown_json
from runtime.cli import completion
from runtime.cli.outputs import check_outputs, remember_inputs
from runtime.profile.words import size as size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

    from isa.chip import Chip

Command = TypeVar("Command", bound=Callable[..., Any])
_MOST_SIZE, _MOST_SEED = 1 << 24, 2**63 - 1
PATIENCE = 2.0  # seconds before progress is shown


def examples(*lines: str) -> str:
    """The epilog of a verb's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def group(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    def apply(function: Command) -> Command:
        for option in reversed(options):
            function = option(function)
        return function

    return apply


def pairs(_ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """`NAME=VALUE` options as a dictionary; a bare value is under the name ''. Raises BadParameter."""
    found: dict[str, str] = {}
    for value in values:
        name, equals, rest = value.partition("=")
        name, rest = (name, rest) if equals else ("", value)
        if not name and param.name in ("option", "settings"):
            raise click.BadParameter(f"'{value}' is not KEY=VALUE", param=param)
        if name in found:
            raise click.BadParameter(f"'{name or value}' is given twice", param=param)
        found[name] = rest
    return found


def _extend(ctx: click.Context, _param: click.Parameter, sources: tuple[str, ...]) -> None:
    if sources:
        from runtime.extension import extend

        remember_inputs(ctx, "--extension", sources)
        for source in sources:
            extend(source)


_common_options = group(
    click.option(
        "--extension", metavar="FILE", multiple=True, is_eager=True, expose_value=False, callback=_extend,
        help="Instructions of your own: a Python file, which is run (repeatable).",
    ),
    click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout; everything else on stderr."),
    click.option("--traceback", is_flag=True, help="On failure, show the Python traceback too."),
)  # fmt: skip


def common_options(command: Command) -> Command:
    """The options of every verb, and what is checked before any of them begins."""

    @wraps(command)
    def checked(**given: Any) -> Any:
        check_outputs(click.get_current_context())
        return command(**given)

    return _common_options(cast(Command, checked))


color_option = click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="auto: on a terminal, unless NO_COLOR is set.",
)


def wants_color(asked: str) -> bool:
    """What `--color` means for stdout."""
    return asked == "always" or (asked == "auto" and sys.stdout.isatty() and not os.environ.get("NO_COLOR"))


settings_option = click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    callback=pairs,
    shell_complete=completion.parameters,
    help="A parameter of the chip, as mxu.rows=64, sram.bytes=4MiB (repeatable; docs/chip.md has them all).",
)
chip_option = click.option(
    "--chip", metavar="NAME|FILE.toml", shell_complete=completion.chips, help="Chip to compile for. [default: edge]"
)
building_options = group(
    click.option(
        "--seed",
        type=click.IntRange(0, _MOST_SEED),
        default=0,
        show_default=True,
        help="Seed of everything that is drawn.",
    ),
    click.option(
        "--option", metavar="KEY=VALUE", multiple=True, callback=pairs, help="A compiler option (repeatable)."
    ),
    click.option(
        "--calibration",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False),
        help="Texts on which the float model is run first, one a line, for --option quantization=… that takes them.",
    ),
    click.option(
        "--class", "class_name", metavar="NAME", help="Transformers class of a folder. [default: config.architectures]"
    ),
    click.option(
        "--random-weights",
        metavar="SEED",
        type=click.IntRange(0, _MOST_SEED),
        help="Make up the weights of a folder from this seed.",
    ),
    click.option(
        "--task",
        type=click.Choice(["auto", "model", "embed"]),
        default="auto",
        show_default=True,
        help="embed adds mean pooling and normalisation; auto does so for sentence-embedding folders.",
    ),
    click.option(
        "--max-memory",
        metavar="BYTES",
        type=click.IntRange(0),
        help="What a program may declare. [default: the machine's memory, at most the chip's 64 GiB]",
    ),
    click.option(
        "--trust", is_flag=True, help="Load a .pt2 with all that is pickled in it: that runs code of whoever made it."
    ),
)
build_options = group(
    settings_option,
    click.option(
        "--seq", type=click.IntRange(1, _MOST_SIZE), help="Sequence length. [default: the longest text, or 128]"
    ),
    click.option(
        "--batch", type=click.IntRange(1, _MOST_SIZE), help="Batch size. [default: the number of texts, or 1]"
    ),
    building_options,
)
model_options = group(chip_option, build_options)

input_options = group(
    click.option("--text", "texts", metavar="TEXT", multiple=True, help="A text to tokenize (repeatable)."),
    click.option(
        "--input",
        "inputs",
        metavar="NAME=FILE.npy",
        multiple=True,
        callback=pairs,
        help="An input tensor (repeatable).",
    ),
)


entry_option = click.option(
    "--entry", metavar="NAME", help="Of a program with several entries the one to run. [default: the first]"
)

limit_options = group(
    click.option(
        "--max-instructions", metavar="N", type=click.IntRange(1), default=DEFAULT, show_default=True,
        help="End a launch after so many instructions; one of more than 2^20 elements counts for each of these.",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Given:
    """What the user said about model and inputs: the values of `model_options` and `input_options`."""

    chip: str | None = None
    settings: dict[str, str] | None = None
    seq: int | None = None
    batch: int | None = None
    seed: int = 0
    option: dict[str, str] | None = None
    calibration: str | None = None
    class_name: str | None = None
    random_weights: int | None = None
    task: str = "auto"
    trust: bool = False
    max_memory: int | None = None
    texts: tuple[str, ...] = ()
    inputs: dict[str, str] | None = None

    @cached_property
    def wanted_chip(self) -> "Chip | None":
        """The chip that was asked for, with what was set of it; None if nothing was said. Raises ChipError."""
        from isa.chip import DEFAULT_CHIP, changed, load_chip

        if not (self.chip or self.settings):
            return None
        return changed(load_chip(self.chip or DEFAULT_CHIP), self.settings or {}, "--set")

    @property
    def target(self) -> "Chip":
        """The chip to compile for. Raises ChipError."""
        from isa.chip import load_chip

        return self.wanted_chip or load_chip()

    def check_for_image(self, path: str, **more: object) -> None:
        """An image is what it is. Raises InputError for options that would change the model, rather than ignore
        them."""
        given = {
            "--seq": self.seq,
            "--batch": self.batch,
            "--option": self.option or None,
            "--calibration": self.calibration,
            **more,
        }
        for flag, value in given.items():
            if value is not None:
                raise InputError(
                    f"{flag} does not go with an image",
                    path,
                    "it was decided when the image was compiled; compile again",
                )


def reply(document: Any, as_json: bool, text: Callable[[], None]) -> None:
    """Say the answer: the document, or what `text` prints."""
    if as_json:
        click.echo(shown_json(json.dumps(document, indent=2, default=_plain, ensure_ascii=False)))
    else:
        text()


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return value.tolist()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    return str(value)


def stdout() -> "Console":
    """rich's console; wide and plain when the output is not a terminal. Strings are data: no markup, nothing but text.
    Styles: `styled`."""
    from rich.console import Console
    from rich.text import Text

    class Plain(Console):
        def render_str(self, text: str, **given: Any) -> Text:
            return super().render_str(shown(text), **given)

    always: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
    return Plain(**always) if sys.stdout.isatty() else Plain(width=160, no_color=True, **always)


def styled(*pieces: str | tuple[str, str]) -> "Text":
    """Text for `stdout()` of which some pieces have a style: `styled(("no finding", "bold green"), ": 12
    instructions")`."""
    from rich.text import Text

    return Text.assemble(*(shown(p) if isinstance(p, str) else (shown(p[0]), p[1]) for p in pieces))


def say(text: str) -> None:
    """A line of the answer, on stdout. It stays one line, whatever names are in it."""
    click.echo(shown(text))


def say_lines(text: str) -> None:
    """Lines of the answer that our own code has put together; names in them are escaped already."""
    for line in text.splitlines():
        say(line)


def note(text: str) -> None:
    """A remark beside the answer, on stderr."""
    click.echo(shown(text), err=True)


class Stages:
    """Names what is being done; shown, with the time it takes, on a terminal once `PATIENCE` is over."""

    def __init__(self, title: str) -> None:
        self.title, self.seconds = title, dict[str, float]()
        self._shown: Progress | None = None
        self._lock, self._started = threading.Lock(), time.perf_counter()
        self._current = ""

    def __call__(self, stage: str) -> None:
        now = time.perf_counter()
        if self._current:
            self.seconds[self._current] = self.seconds.get(self._current, 0.0) + now - self._started
        self._current, self._started = stage, now
        with self._lock:
            if self._shown is not None:
                self._shown.update(self._shown.task_ids[0], description=self._text())

    def _text(self) -> str:
        return f"{self.title}: {self._current}"

    def show(self) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        with self._lock:
            columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
            self._shown = Progress(
                *columns, console=Console(file=getattr(sys.stderr, "raw", sys.stderr)), transient=True
            )
            self._shown.add_task(self._text(), total=None)
            self._shown.start()

    def close(self) -> None:
        self("")
        with self._lock:
            if self._shown is not None:
                self._shown.stop()
                self._shown = None


@contextlib.contextmanager
def stages(title: str) -> Iterator[Stages]:
    """Progress of a longer job: `with stages("compile") as stage: stage("capture"); ...`"""
    stage = Stages(title)
    timer = threading.Timer(PATIENCE, stage.show)
    timer.daemon = True
    if sys.stderr.isatty():
        timer.start()
    try:
        yield stage
    finally:
        timer.cancel()
        stage.close()


def signed_size(count: float) -> str:
    """A difference in bytes for people."""
    return f"{'-' if count < 0 else '+'}{size(round(abs(count)))}" if round(count) else "0"


def need(condition: object, what: str, where: str = "", hint: str = "") -> None:
    """Raise InputError unless `condition`."""
    if not condition:
        raise InputError(what, where, hint)
