"""How much memory a program may ask for: what an image declares is compared with it before anything is allocated."""

import os
from pathlib import Path

from isa.chip import ADDRESS_LIMIT
from isa.errors import ImageError
from isa.image.image import Image

_CGROUP = Path("/sys/fs/cgroup/memory.max")


def machine_memory() -> int:
    """Bytes of this machine, or of the group of processes that we may use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int(_CGROUP.read_text()))
    except (OSError, ValueError):  # "max", or no such group
        return total


def allowed(given: int | None = None) -> int:
    """The user's `--max-memory`, else the smaller of what the chip can address and what there is."""
    return given if given is not None else min(ADDRESS_LIMIT, machine_memory())


def declared(image: Image) -> int:
    """Bytes of the DRAM regions, SRAM and ACC."""
    return sum(image.sizes) + image.chip.sram.bytes + image.chip.acc.bytes


def check_memory(image: Image, path: str, given: int | None = None) -> None:
    """Raise ImageError for an image that declares more than is allowed."""
    if declared(image) > allowed(given):
        raise ImageError(
            f"the program declares {declared(image)} bytes of memory, more than {allowed(given)}",
            path,
            "--max-memory BYTES allows more",
        )
