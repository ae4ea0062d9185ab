"""Files and folders that a verb writes, and what is checked of them before it begins to work.

An option is an output because its type is `OutputFile` or `OutputFolder`. What else names files on a command line says
so in its metavar: FILE or MODEL.
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from isa.errors import InputError
from isa.files import check_writable

STDOUT = "-"
_MORE = "llmchip.inputs"  # key of the click context: inputs that are no value of a parameter of their own
# What is read of a Hugging Face folder. Other files may lie there too, such as those that llmcc wrote last time.
_OF_A_MODEL = (
    "*config*.json", "*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model*.bin.index.json",
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "modules.json", "*.py",
    "1_Pooling/config.json",
)  # fmt: skip


class OutputFile(click.Path):
    """The type of an option that names a file to write. `needs` raises InputError where something that makes the file is
    not installed; with `allow_dash` - is stdout."""

    def __init__(self, needs: Callable[[], None] | None = None, allow_dash: bool = False) -> None:
        super().__init__(allow_dash=allow_dash)
        self.needs = needs


class OutputFolder(click.Path):
    """The type of an option that names a folder to write files into; it is made if only it is missing."""


def remember_inputs(context: click.Context, flag: str, paths: Iterable[str]) -> None:
    """These are read, too, though no parameter says so."""
    context.meta[_MORE] = (*context.meta.get(_MORE, ()), *((flag, Path(path)) for path in paths))


def check_outputs(context: click.Context) -> None:
    """Raise InputError for an output that cannot be written, or that would replace an input or another output."""
    outputs: dict[Any, str] = {}  # who has said so, by file
    for flag, kind, path in _given(context):
        if isinstance(kind, OutputFolder):
            check_folder(path)
            continue
        _check_file(kind, path)
        known = None if path == STDOUT else _identity(path)
        if known is None:
            continue
        if known in outputs:
            raise InputError(f"{outputs[known]} and {flag} name one file", path, "name two")
        outputs[known] = flag
    if outputs:
        _check_inputs(context, outputs)


def check_replaces_none(context: click.Context, paths: Iterable[str | os.PathLike[str]]) -> None:
    """Raise InputError if one of these files, which the verb will write, is an input."""
    _check_inputs(context, {identity: Path(path).name for path in paths if (identity := _identity(path)) is not None})


def check_folder(path: str) -> None:
    """Raise InputError unless files can be written into this folder, which may be missing itself."""
    _check_place(path)
    if os.path.lexists(path) and not os.path.isdir(path):
        raise InputError("this is a file, and a folder is wanted", path, "name another")
    with _said(path):
        if os.path.isdir(path):
            with tempfile.TemporaryFile(dir=path):  # a name that nothing in the folder has
                pass
        else:
            check_writable(path)


def _check_file(kind: OutputFile, path: str) -> None:
    if path == STDOUT:
        if kind.allow_dash:
            return
        raise InputError("this output is not written to stdout", path, "name a file; one of this name is ./-")
    _check_place(path)
    if path.endswith(("/", os.sep)):
        raise InputError("this is the name of a folder, and a file is wanted", path, "name a file in it")
    with _said(path):
        check_writable(path)
    if kind.needs is not None:
        kind.needs()


def _check_place(path: str) -> None:
    if not path:
        raise InputError("the name of the file to write is empty", hint="name a file")
    with _said(path):
        folder = Path(path).resolve().parent
    if not folder.is_dir():
        raise InputError("the folder does not exist", path, "make it first")


@contextmanager
def _said(path: str) -> Iterator[None]:
    """What is wrong with a path, in one line of ours."""
    try:
        yield
    except ValueError as error:  # a NUL in the name
        raise InputError(f"this cannot be the name of a file: {error}", path) from error
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead to each other
        what = error.strerror if isinstance(error, OSError) else None
        raise InputError(f"this cannot be written: {what or error}", path, "name another file") from error


def _given(context: click.Context) -> Iterator[tuple[str, OutputFile | OutputFolder, str]]:
    """The outputs that the user has named: option, type, path."""
    for param in context.command.params:
        name = param.name or ""
        if isinstance(param.type, (OutputFile, OutputFolder)) and _is_given(context, name):
            for path in _words(context.params.get(name)):
                yield param.opts[-1], param.type, path


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) not in (None, ParameterSource.DEFAULT)


def _check_inputs(context: click.Context, outputs: Mapping[Any, str]) -> None:
    for name, path in _inputs(context):
        flag = outputs.get(_identity(path))
        if flag is not None:
            raise InputError(f"{flag} would replace {name}, which is read", str(path), "name another file")


def _inputs(context: click.Context) -> Iterator[tuple[str, Path]]:
    """Every file that the command line names to be read, or whose folder or text it names, with what it is called."""
    for param in context.command.params:
        if isinstance(param.type, (OutputFile, OutputFolder)) or not _names_files(param):
            continue
        title = (param.metavar or param.name or "").upper() if isinstance(param, click.Argument) else param.opts[-1]
        for word in _words(context.params.get(param.name or "")):
            yield from ((title, path) for path in _files_of(word))
    yield from context.meta.get(_MORE, ())


def _names_files(param: click.Parameter) -> bool:
    return isinstance(param, click.Argument) or any(word in (param.metavar or "") for word in ("FILE", "MODEL"))


def _words(value: Any) -> Iterator[str]:
    """The paths in a parameter's value: one, several, or `NAME=FILE` pairs."""
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _words(part)
    elif isinstance(value, (str, Path)):
        yield str(value)


def _files_of(word: str) -> Iterator[Path]:
    """What is read because of a word: a file, what an assembly text includes, a model's folder, a factory's module."""
    from runtime.device.program_file import SUFFIXES
    from runtime.models.models import BUNDLED, module_files

    path = Path(word)
    if word in BUNDLED:
        return
    if path.is_dir():
        for pattern in _OF_A_MODEL:
            yield from path.glob(pattern)
    elif path.is_file():
        yield path
        if path.suffix.lower() in SUFFIXES:
            yield from _included(path)
    else:
        yield from module_files(word)


def _included(path: Path) -> Iterator[Path]:
    from isa.asm.includes import included_files

    with suppress(OSError, UnicodeDecodeError):  # whoever opens it says what is wrong
        yield from included_files(path)


def _identity(path: str | os.PathLike[str]) -> Any:
    """Equal for two names of one file; None for a device or a pipe, which nothing replaces, and for a name that no file
    can have (NUL in an assembly text: the assembler says so)."""
    if not os.path.exists(path):
        try:
            return os.path.realpath(path)
        except ValueError:
            return None
    if not os.path.isfile(path):
        return None
    found = os.stat(path)
    return found.st_dev, found.st_ino
