"""Names across a text and what it includes: where they are defined and used, and whether they may be renamed."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from isa.asm.expression import FUNCTIONS
from isa.asm.tokens import NAME, Role, Token, line_tokens, tokens
from isa.errors import InputError
from isa.files import below

DEFINING = (Role.LABEL, Role.DEFINITION)
_MOST_FILES = 64
_LITERAL = re.compile(r"[vs]\d+")


@dataclass(frozen=True)
class Place:
    """A token in a file."""

    file: str
    token: Token


@lru_cache(16)
def _tokens(text: str) -> tuple[Token, ...]:
    """Kept, because several questions are asked of a text before it changes."""
    return tuple(tokens(text))


def unit(path: str, read: Callable[[str], str | None]) -> dict[str, str]:
    """A text and all that it includes, by path. `read` gives None for what cannot be read."""
    root, found = Path(path).parent, dict[str, str]()
    waiting = [path]
    while waiting and len(found) < _MOST_FILES:
        here = waiting.pop(0)
        text = None if here in found else read(here)
        if text is None:
            continue
        found[here] = text
        waiting += [name for token in _tokens(text) if (name := _included(token, here, root))]
    return found


def _included(token: Token, path: str, root: Path) -> str:
    """The path of an included file, "" for other tokens and for files outside the folder."""
    if token.role is not Role.FILE or token.owner != "include":
        return ""
    try:
        return str(below(root, str((Path(path).parent / token.text).absolute().relative_to(root.absolute()))))
    except (OSError, ValueError):
        return ""


def token_at(line: str, number: int, column: int) -> Token | None:
    """The token under a position, or the one that ends there."""
    found = list(line_tokens(line, number))
    under = [token for token in found if token.column <= column < token.end]
    return next(iter(under or [token for token in found if token.end == column]), None)


def places(texts: dict[str, str], name: str) -> Iterator[Place]:
    """Every place where a name stands, if it is defined at all."""
    found = [
        Place(file, token)
        for file, text in texts.items()
        for token in _tokens(text)
        if token.text == name and token.role in (*DEFINING, Role.REFERENCE)
    ]
    if any(place.token.role in DEFINING for place in found):
        yield from found


def definitions(texts: dict[str, str], name: str) -> list[Place]:
    return [place for place in places(texts, name) if place.token.role in DEFINING]


def all_definitions(texts: dict[str, str]) -> list[Place]:
    """What the texts define, in order."""
    return [Place(file, t) for file, text in texts.items() for t in _tokens(text) if t.role in DEFINING]


def included_path(token: Token, path: str, roots: Sequence[str]) -> str:
    """The file that an `.include` names."""
    found = (_included(token, path, Path(root).parent) for root in (*roots, path))
    return next((name for name in found if name), "")


def check_new_name(texts: dict[str, str], old: str, new: str) -> None:
    """Raises InputError for a name that cannot be, or is taken."""
    if not re.fullmatch(NAME, new):
        raise InputError(f"'{new}' is no name", hint="letters, digits, _ and dots, and no digit first")
    if _LITERAL.fullmatch(new):
        raise InputError(f"'{new}' is a register")
    if new in FUNCTIONS:
        raise InputError(f"'{new}' is the name of a function")
    if new != old and any(place.token.text == new for place in all_definitions(texts)):
        raise InputError(f"'{new}' is defined already")
