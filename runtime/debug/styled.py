"""Lines of which some pieces have a style. They are plain text for whoever does not care: a pipe, a test, JSON."""

from isa.shown import shown
from runtime.listing.disassembly import ansi


class Styled(str):
    """A line; `pieces` are (style, text), the styles those of the disassembler."""

    pieces: tuple[tuple[str, str], ...]


def styled(*pieces: str | tuple[str, str]) -> Styled:
    """A line of its pieces: `styled(("address", "0x0010"), "  halt")`."""
    parts = tuple(("", piece) if isinstance(piece, str) else piece for piece in pieces)
    line = Styled("".join(text for _, text in parts))
    line.pieces = parts
    return line


def coloured(line: str) -> str:
    """The line for a terminal, on which nothing but our own colours may move anything."""
    if not isinstance(line, Styled):
        return shown(line)
    return "".join(ansi(style, shown(text)) if style else shown(text) for style, text in line.pieces)


def instruction(text: str) -> tuple[tuple[str, str], str]:
    """The pieces of an instruction's text."""
    mnemonic, space, rest = text.partition(" ")
    return ("mnemonic", mnemonic), space + rest
