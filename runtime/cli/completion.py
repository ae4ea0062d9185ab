"""What the shell offers for an argument: names that we know, and files."""

from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem


def files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files and folders, as the shell itself finds them."""
    return [CompletionItem(incomplete, type="file")]


def models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Bundled models, and files."""
    from runtime.models.models import BUNDLED

    return [*_starting(incomplete, BUNDLED), *files(ctx, param, incomplete)]


def chips(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Stock chips, and files."""
    from isa.chip import chip_names

    return [*_starting(incomplete, chip_names()), *files(ctx, param, incomplete)]


def parameters(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Parameters of a chip, up to the value."""
    from isa.chip import parameters as known

    return _starting(incomplete, (f"{key}=" for key in known()))


def instructions(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Mnemonics."""
    from isa.spec import ISA

    return _starting(incomplete, ISA)


def _starting(incomplete: str, names: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
