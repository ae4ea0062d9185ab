"""Entry point of `llmcc`: finds the verb, imports only its module, and turns every failure into one line and an exit
code.

Exit codes: 0 ok, 1 the answer is no (mismatch, finding, trap), 2 unusable arguments, input, model or file, 130
interrupted.
"""

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO, cast

import click

from isa.errors import AssemblyError, Error, Trap, described, interrupted
from isa.shown import shown, shown_lines, shown_styled

OK, NO, UNUSABLE, INTERRUPTED = 0, 1, 2, 130
STDOUT = "standard output"
STOPPED = {"kind": "interrupted", "what": "interrupted", "where": "", "hint": ""}

# The first line of each verb's help stands here, so that `llmcc --help` imports none of them.
VERBS = {
    "compile": "Compile a model to an image file.",
    "run": "Run a model or an image on the emulated chip.",
    "explain": "Say which operations of a model go to the chip, and which fall back and why.",
    "verify": "Compare the chip with PyTorch, bit for bit, node by node.",
    "lint": "Prove a program free of races and other faults, without running it.",
    "profile": "Show where a program's time and energy go.",
    "debug": "Step through a program, forwards and backwards.",
    "info": "Show what an image holds: sections, shapes, chip, model, hashes.",
    "disasm": "Print an image as assembly text.",
    "compare": "Say what has changed between two programs or chips, where, and why.",
    "asm": "Assemble text to an image file.",
    "lsp": "Serve an editor that edits assembly text.",
    "isa": "Show the instruction set, or one instruction.",
    "chips": "List the stock chips, or print one as TOML.",
    "sweep": "Compile and time models on many chips.",
    "report": "Write one page about a model on a chip, for a colleague.",
    "quantize": "Find out which layers can have how few bits, on your own data.",
    "cache": "Show or clear the images that are kept so that nothing is compiled twice.",
    "models": "List the bundled models and what a MODEL argument may be.",
    "doctor": "Show what is installed here, and try the arithmetic that llmchip relies on.",
}


class _Verbs(click.Group):
    """A group whose verbs are modules of this package, imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"runtime.cli.{cmd_name}_verb").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], VERBS, 1)
            raise click.UsageError(f"no verb '{args[0]}'{f', did you mean {near[0]}?' if near else ''}", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


def _version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    from isa.architecture import ISA_VERSION

    click.echo(f"llmcc {version('llmchip')}, ISA version {ISA_VERSION}")
    ctx.exit()


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog='\b\nStart with:\n  llmcc run minilm --text "a cat sits" --text "a kitten rests"\n  llmcc compile minilm -o minilm.llmchip\n'
    'Shell completion:\n  eval "$(_LLMCC_COMPLETE=bash_source llmcc)"   (or zsh_source, fish_source)',
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version and exit."
)
def cli() -> None:
    """Compile Hugging Face models for the llmchip accelerator and run them on its emulator, bit for bit."""


def main(args: Sequence[str] | None = None) -> int:
    """Run `llmcc`; gives the exit code."""
    arguments = list(sys.argv[1:] if args is None else args)
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        cast(TextIO, _Plain(stream or open(os.devnull, "w"), name))  # noqa: SIM115 - None: closed before we began
        for stream, name in ((out, STDOUT), (err, "standard error"))
    )
    try:
        return _main(arguments)
    finally:
        sys.stdout, sys.stderr = out, err


class _Plain:
    """A stream that nothing but text and colours passes, whoever writes to it: the last net, see isa.shown. `raw` is
    the stream itself; an OSError of it has its `name`."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self.raw, self.name = stream, name

    def write(self, text: str) -> int:
        with self._named():
            self.raw.write(
                shown_styled(text)
                .encode(self.raw.encoding or "utf-8", "backslashreplace")
                .decode(self.raw.encoding or "utf-8")
            )
        return len(text)

    def flush(self) -> None:
        with self._named():
            self.raw.flush()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.name) from error

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


def _main(arguments: list[str]) -> int:
    as_json, traceback = (flag in arguments for flag in ("--json", "--traceback"))
    try:
        code = cli.main(arguments, prog_name="llmcc", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else OK
    except BrokenPipeError:  # the reader of our output has seen enough, as `| head` has
        _leave_stdout()
        return OK
    except (KeyboardInterrupt, click.Abort):
        _fail(STOPPED, as_json)
        return INTERRUPTED
    except click.ClickException as error:
        _fail(_usage(error), as_json)
        return UNUSABLE
    except Exception as error:
        if interrupted(error):
            _fail(STOPPED, as_json)
            return INTERRUPTED
        if traceback:
            sys.excepthook(type(error), error, error.__traceback__)
        if isinstance(error, OSError) and error.filename == STDOUT:  # what we say does not fit
            _leave_stdout()
            as_json = False
        _fail(_document(error), as_json)
        return NO if isinstance(error, Trap) else UNUSABLE


def _leave_stdout() -> None:
    """Nothing more can be written there; what is still waiting must not fail when Python ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage(error: click.ClickException) -> dict[str, str]:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "llmcc"
    return {"kind": "usage", "what": error.format_message(), "where": path, "hint": f"see '{path} --help'"}


def _document(error: Exception) -> dict[str, str]:
    if isinstance(error, Error):
        return described(error)
    if isinstance(error, OSError):
        return {"kind": "file", "what": error.strerror or str(error), "where": str(error.filename or ""), "hint": ""}
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # PyTorch's own
        return {"kind": "memory", "what": "not enough memory", "where": "", "hint": "try a smaller --batch or --seq"}
    text = " ".join(str(error).split())[:300]
    return {
        "kind": "internal",
        "what": f"{type(error).__name__}: {text}",
        "where": "",
        "hint": "this is a bug in llmchip; --traceback shows where",
    }


def _fail(error: dict[str, str], as_json: bool) -> None:
    """The error as the document on stdout, or as text on stderr."""
    with contextlib.suppress(OSError, ValueError):  # nobody listens
        if as_json:
            click.echo(json.dumps({"error": error}, indent=2))
            return
        place = f"{error['where']}: " if error["where"] and error["kind"] != "usage" else ""
        click.echo(
            click.style("error: ", fg="red", bold=True) + shown(place) + _lines(error["what"], error["kind"]), err=True
        )
        if error["hint"]:
            click.echo(click.style("hint: ", fg="cyan") + shown(error["hint"]), err=True)


def _lines(what: str, kind: str) -> str:
    """An error is one line, whatever names are in it; only the assembler shows the place in the text below."""
    if kind == AssemblyError.kind:
        return shown_lines(what)
    return shown(" ".join(what.split("\n")) if kind == "usage" else what)


def run() -> Any:
    """For `python -m runtime.cli`."""
    sys.exit(main())
