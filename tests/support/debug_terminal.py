"""A person who types into `llmcc debug` on a pseudo-terminal."""

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

TIMEOUT = 30
_ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")


def environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "TERM": "xterm",
        "XDG_STATE_HOME": str(folder / "state"),
        "OMP_NUM_THREADS": "1",
        "PROMPT_TOOLKIT_NO_CPR": "1",
    }


class Person:
    """Types into `llmcc debug` on a pseudo-terminal and reads the screen."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.main, side = pty.openpty()
        command = [sys.executable, "-m", "runtime.cli", "debug", *arguments]
        self.process = subprocess.Popen(
            command, stdin=side, stdout=side, stderr=side, env=environment(folder), start_new_session=True
        )
        os.close(side)
        self.screen = b""

    def sees(self, text: str) -> str:
        """Read until `text` is on the screen; give what stood before it, and forget it."""
        deadline = time.monotonic() + TIMEOUT
        while text.encode() not in (plain := _ESCAPES.sub(b"", self.screen)):
            assert time.monotonic() < deadline, f"never saw {text!r} in {plain.decode(errors='replace')!r}"
            if select.select([self.main], [], [], 0.2)[0]:
                try:
                    self.screen += os.read(self.main, 65536)
                except OSError:
                    raise AssertionError(f"ended without {text!r}: {plain.decode(errors='replace')!r}") from None
        before, _, self.screen = plain.partition(text.encode())
        return before.decode(errors="replace")

    def waits_for_work(self) -> None:
        """Until the line editor has handed the line over: then the terminal is no longer raw."""
        deadline = time.monotonic() + TIMEOUT
        while not termios.tcgetattr(self.main)[3] & termios.ICANON:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.2)

    def types(self, text: str) -> None:
        os.write(self.main, text.encode())

    def leaves(self) -> int:
        code = self.process.wait(TIMEOUT)
        os.close(self.main)
        return code
