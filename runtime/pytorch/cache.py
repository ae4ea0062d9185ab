"""Compiled images on disk, so that the same model is compiled once: for llmcc, the API and torch.compile alike.

    <cache>/images/<key>.llmchip     key = hash of graph, weights, chip, options and versions (the compiler's own
    sources included)

Any number of processes may use the folder at once: a file appears by one atomic rename, carries its own checksums and
its key, and is only ever removed as a whole. The least recently used images go when the folder outgrows its bound. Only
what took a while to compile is kept. A folder that cannot be used costs one warning.
"""

import contextlib
import hashlib
import os
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from isa import extension
from isa.chip import Chip, chip_hash
from isa.errors import Error, ImageError
from isa.files import open_regular
from isa.image.image import Image, load_image, write_image
from runtime.version import __version__

if TYPE_CHECKING:
    from compiler.frontend.capture import Captured
    from compiler.options import Options

BOUND: Final = 4 << 30  # bytes of images, unless LLMCHIP_CACHE_BYTES says otherwise
WORTH_KEEPING: Final = 0.5  # seconds of work; less is sooner done again than looked up
_BLOCK: Final = 1 << 20  # bytes of a file that are hashed at once
ABANDONED: Final = 3600.0  # seconds since a temporary file was last written to
OFF: Final = ("off", "0")
SUFFIX: Final = ".llmchip"
KEY: Final = (
    "cache key"  # in the metadata of an image in the cache: one that was copied over another is not served for it
)
_SIZE: Final = re.compile(r"(\d+)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Entry:
    """One image in the cache."""

    path: Path
    bytes: int
    used: float  # when, in seconds since 1970


def folder() -> Path | None:
    """Where images are kept: LLMCHIP_CACHE, or ~/.cache/llmchip; None if the cache is off."""
    given = os.environ.get("LLMCHIP_CACHE", "")
    if given.lower() in OFF:
        return None
    base = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmchip"
    return base / "images"


def bound() -> int:
    """Bytes that all images may take up: LLMCHIP_CACHE_BYTES, a number, maybe with K, M, G or T."""
    given = os.environ.get("LLMCHIP_CACHE_BYTES", "").strip()
    found = _SIZE.fullmatch(given)
    if found:
        return int(found[1]) << 10 * " KMGT".index(found[2].upper() or " ")
    if given:
        _warn(f"LLMCHIP_CACHE_BYTES is '{given}', which is no size such as 500M or 4G; the bound is {BOUND >> 30}G")
    return BOUND


def entries() -> list[Entry]:
    """All images, the least recently used first."""
    where, found = folder(), []
    try:
        for path in where.glob(f"*{SUFFIX}") if where is not None and where.is_dir() else ():
            with contextlib.suppress(FileNotFoundError):  # another process may have removed it
                stat = path.stat()
                found.append(Entry(path, stat.st_size, stat.st_mtime))
    except OSError as error:
        _unusable(where, error)
    return sorted(found, key=lambda entry: (entry.used, entry.path))


@cache
def _warn(text: str) -> None:
    """Once in a process."""
    warnings.warn(text, UserWarning, stacklevel=2)


def _unusable(where: Path | None, error: OSError) -> None:
    name = str(where)
    shown = name if len(name) <= 100 else f"{name[:60]}... ({len(name)} characters)"
    _warn(
        f"llmchip cannot use its cache {shown}: {error.strerror or error}; nothing is kept (LLMCHIP_CACHE names another folder, or is 'off')"
    )


def clear() -> list[Entry]:
    """Remove all images; gives what was removed."""
    found = entries()
    for entry in found:
        entry.path.unlink(missing_ok=True)
    return found


def key_of(captured: "Captured", options: "Options", chip: Chip, weights: str) -> str | None:
    """Equal for what compiles to the same image; `weights` is their hash. None if the graph holds something that cannot
    be written down."""
    program = program_key(captured, options)
    return None if program is None else image_key(program, chip, weights)


def program_key(captured: "Captured", options: "Options") -> str | None:
    """Equal for what compiles to the same program on any chip. None if the graph holds something that cannot be written
    down."""
    from compiler.frontend.calibration import schemes_of

    lines = list(_graph_lines(captured))
    if None in lines:
        return None
    settings = {name: value for name, value in vars(options).items() if name != "chip"}
    schemes = sorted(schemes_of(captured.gm.graph, options.quant_config).items())  # by names of modules
    parts = (*lines, repr(sorted(settings.items())), repr(schemes), _versions(), extension.digests())
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def image_key(program: str, chip: Chip, weights: str) -> str | None:
    """The name of an image, of the key of its program. None if the cache is off."""
    if folder() is None:
        return None
    return hashlib.sha256("\n".join(map(str, (program, chip_hash(chip), weights))).encode()).hexdigest()


def key_of_file(path: Path, options: "Options", chip: Chip, *more: object) -> str | None:
    """Equal for what is compiled of one file in one way; `more` says what else decides. None if the cache is off.
    Raises OSError for a file that cannot be read."""
    if folder() is None:
        return None
    content = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(_BLOCK):  # not whole: it may be larger than memory
            content.update(block)
    settings = {name: value for name, value in vars(options).items() if name != "chip"}
    versions = _versions(), version("transformers"), extension.digests()
    parts = (content.hexdigest(), repr(sorted(settings.items())), chip_hash(chip), *versions, *more)
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def joined(keys: Sequence[str | None], names: Sequence[str]) -> str:
    """The key of an image of several programs, with the names of its entries."""
    return hashlib.sha256("\n".join(map(str, (*keys, *names))).encode()).hexdigest()


def _graph_lines(captured: "Captured") -> Iterator[str | None]:
    """Every node with its operands, type and source line; and how the model is called."""
    from torch import Tensor

    for node in captured.gm.graph.nodes:
        if node.op == "get_attr":
            yield None
        value, meta = node.meta.get("val"), node.meta
        shape = f"{value.dtype} {tuple(value.shape)} {value.stride()}" if isinstance(value, Tensor) else repr(value)
        yield f"{node.op} {node.name} {node.target} {node.args} {node.kwargs} {shape} {meta.get('source')} {meta.get('origins')} {meta.get('constant')}"
    yield repr((captured.inputs, captured.outputs, captured.weights))


@cache
def _versions() -> str:
    """The compiler's sources, and PyTorch, which computes the packed weights."""
    import torch

    digest = hashlib.sha256()
    root = Path(__file__).parents[2]
    for package in ("compiler", "isa"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.read_bytes())
        for path in sorted((root / package).rglob("*.toml")):
            digest.update(path.read_bytes())
    return f"{__version__} {torch.__version__} {digest.hexdigest()}"


def find(key: str | None) -> Image | None:
    """The image of this key. A damaged file, or another image's, is removed and counts as missing."""
    where = folder()
    if where is None or key is None:
        return None
    path = where / f"{key}{SUFFIX}"
    try:
        path.stat()
        image = load_image(path)
        if image.metadata.get(KEY) != key:
            raise ImageError("this is another image's entry", str(path), "")
        with contextlib.suppress(OSError):  # a cache that may only be read
            os.utime(path)
    except FileNotFoundError:
        return None
    except (Error, OSError) as error:
        _discard(path, error)
        return None
    return replace(image, metadata={name: value for name, value in image.metadata.items() if name != KEY})


def _discard(path: Path, error: Error | OSError) -> None:
    """Remove what is of no use. What cannot be looked at, or not be removed, stands for a cache that cannot be used."""
    try:
        if isinstance(error, OSError):
            raise error
        path.unlink(missing_ok=True)
    except OSError as trouble:
        _unusable(path.parent, trouble)


def keep(key: str | None, image: Image, seconds: float) -> None:
    """Store an image that took so long to make. A disk that is full or read-only is no reason to fail."""
    where = folder()
    if where is None or key is None or seconds < WORTH_KEEPING:
        return
    try:
        where.mkdir(parents=True, exist_ok=True)
        write_image(replace(image, metadata={**image.metadata, KEY: key}), where / f"{key}{SUFFIX}")
        _shrink()
    except ImageError as error:
        cause = error.__cause__
        _unusable(where, cause if isinstance(cause, OSError) else OSError(str(error)))
    except OSError as error:
        _unusable(where, error)


def _shrink() -> None:
    """Remove what is too much, and what a writer left that was killed."""
    where = folder()
    for path in where.glob(".*.tmp") if where is not None else ():
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()
    found, most = entries(), bound()
    total = sum(entry.bytes for entry in found)
    for entry in found:
        if total <= most:
            return
        entry.path.unlink(missing_ok=True)
        total -= entry.bytes


__all__ = [
    "Entry", "bound", "clear", "entries", "find", "folder", "image_key", "joined", "keep", "key_of", "key_of_file",
    "program_key",
]  # fmt: skip
