"""Files that are either complete or not there."""

import contextlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path


def write_atomic(path: str | os.PathLike[str], chunks: Iterable[bytes | bytearray | memoryview]) -> None:
    """Write `chunks` to a temporary file in the same folder, then rename it to `path`.

    Whatever happens before the rename, Ctrl-C included, `path` is untouched and the temporary file is removed.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
