"""Reading the user's extension file: see isa/extension.py. The file is code, run because the user names it on this very
command line."""

import hashlib
import sys
from dataclasses import replace
from importlib import metadata
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from os import PathLike
from pathlib import Path

from isa import extension as table
from isa.errors import InputError
from isa.extension import Extension
from isa.files import read_regular

GROUP = "llmchip.extensions"  # entry points of installed packages; each is an Extension
NAME = "EXTENSION"  # what the file defines


def extend(source: str | PathLike[str]) -> Extension:
    """Install the extension of a file, or the one that an installed package offers under this name. Raises InputError.

    For the rest of the process: programs that use its instructions can be compiled, read and run then.
    """
    found = _of_file(Path(source)) if Path(source).exists() else _of_package(str(source))
    table.add(found)
    _give_meaning(found)
    return found


def _of_file(path: Path) -> Extension:
    try:
        text = read_regular(path)
    except OSError as error:
        raise InputError(f"cannot read the extension: {error.strerror or error}", str(path)) from error
    loader = SourceFileLoader(f"llmchip_extension_{path.stem}", str(path))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = sys.modules[loader.name] = module_from_spec(spec)  # dataclasses look their module up
    try:
        exec(compile(text, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:  # whatever the user's code does
        raise InputError(f"the extension fails: {type(error).__name__}: {error}", str(path)) from error
    found = getattr(module, NAME, None)
    if not isinstance(found, Extension):
        raise InputError(f"the file defines no {NAME}", str(path), "see examples/extension/vector_minimum.py")
    return replace(found, sha256=hashlib.sha256(text).hexdigest())


def _of_package(name: str) -> Extension:
    for point in metadata.entry_points(group=GROUP):
        if point.name == name:
            found = point.load()
            if not isinstance(found, Extension):
                raise InputError(f"the entry point '{name}' is no Extension")
            source = sys.modules[point.module].__file__
            if source is None:
                raise InputError(f"the entry point '{name}' is of no file")
            return replace(found, sha256=hashlib.sha256(Path(source).read_bytes()).hexdigest())
    names = sorted(point.name for point in metadata.entry_points(group=GROUP))
    raise InputError(
        f"there is no file '{name}'",
        "",
        f"installed packages offer {', '.join(names)}" if names else "name the extension's file",
    )


def _give_meaning(extension: Extension) -> None:
    from emulator.context import HANDLERS

    for mnemonic, handler in extension.handlers.items():
        HANDLERS[mnemonic] = handler
