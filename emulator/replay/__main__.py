"""Compiles the kernels for this processor now, instead of at a program's second launch:
`python -m emulator.replay`, once for a state of these sources (`cached`), the two largest side by side."""

import os
import subprocess
import sys
import time
from importlib.util import find_spec

LARGEST = ("emulator.replay.executor", "emulator.replay.expand")  # that import all others
AT_HAND = 5.0  # seconds, that reading them from disk never takes


def main() -> int:
    """The exit code: 0 where there is nothing to compile with, too."""
    if find_spec("numba") is None or os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return 0
    start = time.monotonic()
    at_work = [subprocess.Popen([sys.executable, "-c", f"import {name}"], stderr=subprocess.PIPE) for name in LARGEST]
    try:
        at_work[0].wait(AT_HAND)
    except subprocess.TimeoutExpired:
        print("compiling the emulator's kernels, once for this machine: about a minute ...", flush=True)
    failed = [error for process in at_work for error in [process.communicate()[1]] if process.returncode]
    told = failed[0].decode(errors="replace").strip().splitlines() if failed else []
    if failed and not (told and told[-1].startswith("ImportError")):  # a processor without the instructions has none
        print("\n".join(told), file=sys.stderr)
        return 1
    if (seconds := time.monotonic() - start) > AT_HAND:
        print(f"compiled in {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
