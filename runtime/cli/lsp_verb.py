"""`llmcc lsp`: the language server, which an editor starts."""

import sys
from typing import Any, cast

import click

from isa.errors import InputError
from runtime.cli.common import common_options, examples, need


@click.command(
    name="lsp",
    epilog=examples("llmcc lsp", "llmcc lsp --extension my_instructions.py"),
)
@common_options
def command(as_json: bool, traceback: bool) -> int:
    """Serve an editor: what is wrong with assembly text while it is typed, what words mean, where names are.

    Speaks the Language Server Protocol over stdin and stdout, so an editor starts it, not a person; editors/vscode is
    an extension that does (docs/editors.md). Needs the extra 'lsp'.
    """
    try:
        from runtime.lsp.features import serve
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("pygls", "lsprotocol"):
            raise
        raise InputError(
            f"the package {error.name.partition('.')[0]} is not installed", hint="pip install 'llmchip[lsp]'"
        ) from error
    need(not as_json, "--json does not go with a server", "", "the protocol is JSON already")
    need(not sys.stdin.isatty(), "stdin is a terminal", "", "an editor starts 'llmcc lsp'; docs/editors.md says how")
    raw: Any = cast(Any, sys.stdout).raw  # no text but the protocol's may go there
    sys.stdout = sys.stderr
    serve(sys.stdin.buffer, raw.buffer)
    return 0
