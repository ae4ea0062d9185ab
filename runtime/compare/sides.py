"""What can be compared: a run, a program, or a file of either."""

from os import PathLike, fspath
from pathlib import Path
from typing import Any

import msgspec

from isa.errors import InputError
from isa.files import read_regular
from isa.image.image import Image
from runtime.compare.compare import THRESHOLD, Side
from runtime.compare.compare import compare as _compare
from runtime.compare.comparison import Comparison
from runtime.device.program_file import open_program
from runtime.profile import profile as timed_run
from runtime.profile.document import ProfileDocument
from runtime.profile.profile import Profile, timing

_MOST = 256 << 20  # bytes of a profile


def compare(a: Any, b: Any, threshold: float = THRESHOLD) -> Comparison:
    """What has changed from `a` to `b`: each a program, a profile, an image, or the path of an image, of assembly text
    or of a profile as `llmcc profile --json` writes it. Raises InputError for anything else."""
    return _compare(side(a, "A"), side(b, "B"), threshold)


def profile(source: Any) -> Profile:
    """Where cycles and energy of a program go: of one that was compiled or loaded, an image, or the path of an image or
    of assembly text. The limit is that of its own instructions; `program.profile()` knows the model's. Raises InputError
    for anything else."""
    run = side(source, "the program").run
    if not isinstance(run, Profile):
        raise InputError("a stored profile is given", str(source), "give the program")
    return run


def side(source: Any, name: str) -> Side:
    """A program is timed with its scalars at their maximum. Raises InputError, and what opening a file raises."""
    if isinstance(source, (Profile, ProfileDocument)):
        return Side(name, source)
    if isinstance(source, (str, PathLike)):
        path = fspath(source)
        return Side(path, read_profile(path) if is_profile(path) else timed(open_program(path), path))
    image = source if isinstance(source, Image) else getattr(source, "image", None)
    if not isinstance(image, Image):
        raise InputError(
            f"this is no program: {type(source).__name__}",
            name,
            "give programs, profiles, images or the paths of files",
        )
    return Side(name, timed(image, name))


def timed(image: Image, where: str) -> Profile:
    """The image's run. Raises InputError for a program that cannot be timed."""
    with timing(where):
        return timed_run.profile(image)


def is_profile(path: str) -> bool:
    """Whether the file holds a profile, which its name says."""
    return Path(path).suffix.lower() == ".json"


def read_profile(path: str) -> ProfileDocument:
    """What `llmcc profile --json` wrote. Raises InputError."""
    try:
        return msgspec.json.decode(read_regular(path, _MOST), type=ProfileDocument)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"this is no profile: {error}", path, "make one with 'llmcc profile PROGRAM --json'"
        ) from error
