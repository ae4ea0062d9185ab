"""Which files an assembly text reads, found without assembling it."""

import re
from collections.abc import Iterator
from pathlib import Path

from isa.asm.tokens import Role, line_tokens
from isa.files import read_text

_CHIP = re.compile(r'\s*\.chip\s+"([^"]+)"')
_TEXTS = 64  # that are looked into, the first included


def included_files(path: Path) -> Iterator[Path]:
    """Files that a text names with `.include`, `.chip` or `file=`, and those that texts it includes name. A name need not
    exist. Raises OSError and UnicodeDecodeError for a text that cannot be read."""
    seen, waiting = {path}, [path]
    while waiting:
        text = waiting.pop()
        for line in read_text(text).splitlines():
            if chip := _CHIP.match(line):
                yield text.parent / chip[1]
            if ".include" not in line and "file" not in line:
                continue
            for token in line_tokens(line):
                if token.role is not Role.FILE:
                    continue
                found = text.parent / token.text
                yield found
                if token.owner == "include" and found not in seen and len(seen) < _TEXTS and found.is_file():
                    seen.add(found)
                    waiting.append(found)
