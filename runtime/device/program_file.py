"""Programs on disk: image files and assembly text, opened alike. Needs no torch."""

import os
from pathlib import Path

from isa.chip import Chip
from isa.image.image import Image, is_image, load_image

SUFFIXES = (".s", ".asm")


def is_assembly(path: str | os.PathLike[str]) -> bool:
    """Whether the file is assembly text, which its name says."""
    return Path(path).suffix.lower() in SUFFIXES and not is_image(path)


def open_program(path: str | os.PathLike[str], chip: Chip | str | None = None) -> Image:
    """The image in a file, or the image that an assembly text means. Raises ImageError or AssemblyError."""
    if not is_assembly(path):
        return load_image(path, chip)
    from isa.asm.assemble import assemble_file  # the parser is only needed for text

    return assemble_file(path, chip)
