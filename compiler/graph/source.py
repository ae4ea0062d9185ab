"""Where in the user's model a node comes from: one line of Python, kept through every pass."""

import re
import sysconfig
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in [^\n]*\n(?P<code>[^\n]*)')
_TORCH_FOLDER = str(Path(torch.__file__).parent)
_OWN_FOLDER = str(Path(__file__).parents[1])
GENERATED = ("<eval_with_key>", "<frozen ")  # code without a file that is not the user's; "<stdin>" and "<string>" are
_STDLIB_FOLDER = sysconfig.get_paths()["stdlib"]


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line of the model: `file`:`line` and its text."""

    file: str
    line: int
    code: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.code}"

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


UNKNOWN = SourceLine("<unknown>", 0, "")


@lru_cache(maxsize=4096)
def source_line(stack_trace: str | None) -> SourceLine:
    """The innermost frame that is neither torch's own code nor the standard library's.

    A model made only of torch modules (nn.Sequential) has no such frame: then the innermost of torch still says more
    than nothing. Dynamo gives none at all of a torch module that is compiled as it is: nothing of the compiler's own,
    or of what torch generates, takes its place.
    """
    frames = [SourceLine(m["file"], int(m["line"]), m["code"].strip()) for m in _FRAME.finditer(stack_trace or "")]
    models = [frame for frame in frames if not frame.file.startswith((_OWN_FOLDER, *GENERATED))]
    users = [frame for frame in models if not _is_foreign(frame.file)]
    return (users or models or [UNKNOWN])[-1]


def _is_foreign(file: str) -> bool:
    """Torch's and Python's own files."""
    inside_stdlib = file.startswith(_STDLIB_FOLDER) and "site-packages" not in file
    return file.startswith(_TORCH_FOLDER) or inside_stdlib
