"""Real texts: one a line of a file."""

from isa.errors import InputError
from isa.files import read_text

_BYTES = 64 << 20


def read_texts(path: str, most: int) -> tuple[tuple[str, ...], int]:
    """The first `most` texts of a UTF-8 file, one a line, and how many there are beyond; empty lines do not count.
    Raises InputError for a file without any, and for one that cannot be read."""
    try:
        lines = read_text(path, _BYTES).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the texts: {error}", path, "a text file in UTF-8, one text a line") from error
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise InputError("the file has no texts", path, "write one a line")
    return tuple(texts[:most]), max(len(texts) - most, 0)
