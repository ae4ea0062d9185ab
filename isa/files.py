"""Files: written whole or not at all, and read only if they are ordinary files of a bounded size."""

import contextlib
import errno
import os
import stat
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

_DESCRIPTORS = ("/dev/fd", "/proc/self/fd")  # folders of names for what this process has open
_LINKS = 40  # followed from one name, as Linux does
TEXT_BYTES = 32 << 20  # of a text: assembly with all that it includes, a script, a config.json
_PLAIN = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """The file, opened for reading. OSError for what is none: a pipe would be waited for, a device has no end."""
    try:
        number = os.open(path, _PLAIN)
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    try:
        kind = os.fstat(number).st_mode
        if not stat.S_ISREG(kind):
            raise OSError(
                errno.EINVAL,
                "not a regular file but a folder" if stat.S_ISDIR(kind) else "not a regular file",
                str(path),
            )
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def read_regular(path: str | os.PathLike[str], limit: int | None = None) -> bytes:
    """The bytes of a regular file of at most `limit` bytes. Raises OSError."""
    with open_regular(path) as file:
        if limit is None:
            return file.read()
        data = file.read(
            min(os.fstat(file.fileno()).st_size, limit) + 1
        )  # a byte more than there should be: what grows is no smaller
        if len(data) > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
        return data


def read_text(path: str | os.PathLike[str], limit: int = TEXT_BYTES) -> str:
    """The text of a regular file, line ends as \\n. Raises OSError, and UnicodeDecodeError for what is not UTF-8."""
    return read_regular(path, limit).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def below(folder: str | os.PathLike[str], name: str) -> Path:
    """The path of `name` in `folder`. OSError if it leads out of it: absolute, by `..`, or by a symbolic link."""
    try:
        home = Path(os.path.realpath(folder))
        path = Path(os.path.realpath(home / name))
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, str(error), name) from error
    if not path.is_relative_to(home):
        raise OSError(errno.EACCES, "it is outside the folder of the text", name)
    return path


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise OSError, which names `path`, unless `write_atomic` could write there now. Nothing stays behind."""
    name = os.fspath(path)
    try:
        number = _descriptor(path)
        if number is not None:
            with _blamed(name):
                os.write(number, b"")  # writes nothing; refused for what is closed, or open for reading alone
            refused = None
        elif _is_special(path):
            refused = None if os.access(path, os.W_OK) else errno.EACCES
        elif os.path.isdir(path):
            refused = errno.EISDIR
        elif os.path.exists(path) and not os.access(path, os.W_OK):
            refused = errno.EACCES  # a rename would replace it all the same
        else:
            refused = None
            temporary = _beside(Path(os.path.realpath(path)))
            with _blamed(name, temporary):
                temporary.touch()
                temporary.unlink()
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, str(error), name) from error
    if refused is not None:
        raise OSError(refused, os.strerror(refused), name)


def write_atomic(path: str | os.PathLike[str], chunks: Iterable[bytes | bytearray | memoryview]) -> None:
    """Write `chunks` to a temporary file in the same folder, then rename it to `path`.

    Whatever happens before the rename, Ctrl-C included, `path` is untouched and the temporary file is removed. A device
    or pipe, which a rename would put a file in the place of, is written to as it is; so is what this process has open
    already, such as /dev/stdout, even if it is a file: behind what was written to it. An OSError names `path`.
    """
    number = _descriptor(path)
    if number is not None:
        with _blamed(path), open(number, "wb", closefd=False) as opened:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None and not stream.closed:
                    stream.flush()  # what was printed before comes before
            opened.writelines(chunks)
        return
    if _is_special(path):
        with _blamed(path), open(path, "wb") as device:
            device.writelines(chunks)
        return
    target = Path(os.path.realpath(path))
    temporary = _beside(target)
    try:
        with _blamed(path, temporary):
            with open(temporary, "wb") as file:
                file.writelines(chunks)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _is_special(path: str | os.PathLike[str]) -> bool:
    """Whether it is there, and neither file nor folder: a device, a pipe, /dev/stdout into a pipe."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _descriptor(path: str | os.PathLike[str]) -> int | None:
    """The number of an open file, of which `path` is a name: /dev/stdout, /dev/fd/3, or a link to one of these."""
    homes = {os.path.realpath(folder) for folder in _DESCRIPTORS}
    name = os.path.abspath(path)
    for _ in range(_LINKS):
        folder, last = os.path.realpath(os.path.dirname(name)), os.path.basename(name)
        if folder in homes and last.isdigit() and os.path.lexists(name):
            return int(last)
        if not os.path.islink(name):
            return None
        name = os.path.join(folder, os.readlink(name))
    return None


def _beside(target: Path) -> Path:
    """The temporary file of `target`: a name of its own in the same folder, never longer than a folder allows."""
    return target.with_name(f".{target.name[:40]}.{os.getpid()}.{threading.get_ident()}.tmp")


@contextlib.contextmanager
def _blamed(path: str | os.PathLike[str], temporary: Path | None = None) -> Iterator[None]:
    """Errors of writing name what the user asked for; those of other files keep their name."""
    try:
        yield
    except OSError as error:
        if error.filename is None or error.filename == str(temporary):
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise
