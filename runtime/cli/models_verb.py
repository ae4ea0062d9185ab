"""`llmcc models`: the bundled models, and what else a MODEL may be."""

from typing import Any

import click

from runtime.cli.common import common_options, examples, reply
from runtime.cli.tables import Column, show
from runtime.models.models import BUNDLED


@click.command(name="models", epilog=examples("llmcc models", "llmcc models --json"))
@common_options
def command(as_json: bool, traceback: bool) -> int:
    """List the bundled models. They come from installed packages; nothing is ever downloaded."""
    models = [
        {
            "name": model.name, "description": model.description, "installed": model.installed,
            "folder": str(model.folder()) if model.installed else None, "install": model.pip,
        }
        for model in BUNDLED.values()
    ]  # fmt: skip
    reply(models, as_json, lambda: _print(models))
    return 0


def _print(models: list[dict[str, Any]]) -> None:
    rows = [
        (m["name"], m["description"], m["folder"] if m["installed"] else f"not installed: {m['install']}")
        for m in models
    ]
    show(
        [
            Column("model", style="bold"),
            Column("description", prose=True),
            Column("folder", prose=True, by_end=True, spare=1),
        ],
        rows,
    )
    click.echo(
        "\nA MODEL may also be a Hugging Face folder, a .pt2 file (torch.export.save),\nor package.module:factory."
    )
