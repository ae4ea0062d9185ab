"""plotly is an extra: what needs it says so."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from isa.errors import InputError


def check_plotting() -> None:
    """Raises InputError unless pages of plots can be made."""
    if any(find_spec(name) is None for name in ("plotly", "jinja2")):
        raise _needed("the page")


@contextmanager
def plotting(what: str) -> Iterator[None]:
    """While plotly is imported for `what`. Raises InputError where it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise _needed(what) from error


def _needed(what: str) -> InputError:
    return InputError(f"{what} needs the plotting library plotly", hint="pip install 'plotly>=6,<7', or llmchip[html]")
