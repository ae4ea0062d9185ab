r"""Text of files on its way to a person: whatever is not printable is shown as an escape, \x1b for one.

Printable is what Unicode says: not control characters (C0, DEL, C1), not formatting (bidirectional marks, zero width),
not line and paragraph separators, not lone surrogates. So a name can neither move the cursor nor change the order of
what is read.
"""

import re

_SPACES = "\n\t"
_STYLE = re.compile(r"(\x1b\[[0-9;]{0,16}m)")  # colours and weights, which only our own code writes
_STRING_ODD = re.compile(r"[^\x20-\x7e\n]")


def shown(text: str, keep: str = "") -> str:
    """`text` with escapes for what is not printable, except the characters in `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escape(c) for c in text)


def shown_lines(text: str) -> str:
    """The same for a text of several lines."""
    return shown(text, _SPACES)


def shown_styled(text: str) -> str:
    """The last net before a terminal: lines with colours pass, all other control is escaped."""
    if text.isprintable() or text.replace("\n", "").isprintable():
        return text
    return "".join(piece if number % 2 else shown_lines(piece) for number, piece in enumerate(_STYLE.split(text)))


def shown_json(document: str) -> str:
    """JSON text, which may hold any character inside its strings, with escapes of JSON for those that are not
    printable."""
    return _STRING_ODD.sub(lambda found: found[0] if found[0].isprintable() else _json_escape(found[0]), document)


def _escape(c: str) -> str:
    code = ord(c)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(c: str) -> str:
    code = ord(c)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
