"""On a real terminal: colours, progress, Ctrl-C. A pseudo-terminal stands in for the person."""

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def on_terminal(code: str, environment: dict[str, str] | None = None, until: str = "", timeout: float = 60) -> tuple[int, str]:
    """Run Python with a terminal for stdin, stdout and stderr. After `until` is seen, press Ctrl-C."""
    main, side = pty.openpty()
    settings = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "CI", "FORCE_COLOR")}
    settings |= {"TERM": "xterm-256color", "COLUMNS": "120", **(environment or {})}
    process = subprocess.Popen([sys.executable, "-c", code], stdin=side, stdout=side, stderr=side, env=settings, start_new_session=True)
    os.close(side)
    text, deadline, pressed = "", time.monotonic() + timeout, False
    while time.monotonic() < deadline:
        ready, _, _ = select.select([main], [], [], 0.2)
        if ready:
            try:
                data = os.read(main, 65536)
            except OSError:  # the other side is closed
                break
            if not data:
                break
            text += data.decode(errors="replace")
        if until and until in text and not pressed:
            pressed = True
            os.killpg(process.pid, signal.SIGINT)
    with contextlib.suppress(ProcessLookupError):
        if time.monotonic() >= deadline:
            os.killpg(process.pid, signal.SIGKILL)
    os.close(main)
    return process.wait(), text


def script(*arguments: object, patience: float = 2.0) -> str:
    return (
        "import sys, runtime.cli.common as common\n"
        f"common.PATIENCE = {patience}\n"
        "from runtime.cli.main import main\n"
        f"sys.exit(main({[str(argument) for argument in arguments]!r}))"
    )


def test_colours_on_a_terminal_only() -> None:
    code, text = on_terminal(script("chips"))
    assert code == 0
    assert "\x1b[1m" in text
    piped = subprocess.run([sys.executable, "-c", script("chips")], capture_output=True, text=True, check=True)
    assert "\x1b[" not in piped.stdout


@pytest.mark.slow
def test_progress_is_shown_when_it_takes_long(bert: Path) -> None:
    """Breaks when a person waits and sees nothing; and when progress gets into stdout (it is on stderr, here the same terminal)."""
    code, text = on_terminal(script("verify", bert, "--seq", "4", patience=0.1))
    assert code == 0, text
    assert "verify: load the model" in text or "verify: capture" in text
    assert "bit-exact" in text


def test_no_progress_without_a_terminal(bert: Path) -> None:
    done = subprocess.run([sys.executable, "-c", script("compile", bert, "--list-passes", patience=0.0)], capture_output=True, text=True)
    assert done.stderr == ""


@pytest.mark.parametrize("moment", [pytest.param("compile: capture", marks=pytest.mark.slow), "compile: pack the weights"])
def test_ctrl_c_leaves_no_file(bert: Path, tmp_path: Path, moment: str) -> None:
    target = tmp_path / "out.llmchip"
    code, text = on_terminal(script("compile", bert, "--seq", "8", "-o", target, patience=0.0), until=moment)
    if code == 0:  # it had finished before the key was pressed
        assert target.exists()
        return
    assert code == 130, text
    assert "Traceback" not in text
    assert list(tmp_path.iterdir()) == []
