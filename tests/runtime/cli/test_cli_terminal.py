"""On a real terminal: colours, progress, Ctrl-C. A pseudo-terminal stands in for the person."""

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_harness import call, script

from runtime.cli import common


def on_terminal(
    code: str, environment: dict[str, str] | None = None, until: str = "", timeout: float = 60
) -> tuple[int, str]:
    """Run Python with a terminal for stdin, stdout and stderr. After `until` is seen, press Ctrl-C."""
    main, side = pty.openpty()
    settings = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "CI", "FORCE_COLOR")}
    settings |= {"TERM": "xterm-256color", "COLUMNS": "120", **(environment or {})}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=side, stdout=side, stderr=side, env=settings, start_new_session=True
    )
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


def test_colours_on_a_terminal_only() -> None:
    code, text = on_terminal(script("chips"))
    assert code == 0
    assert "\x1b[1m" in text
    piped = subprocess.run([sys.executable, "-c", script("chips")], capture_output=True, text=True, check=True)
    assert "\x1b[" not in piped.stdout


@pytest.mark.slow
def test_progress_is_shown_when_it_takes_long(bert: Path) -> None:
    """Breaks when a person waits and sees nothing; and when progress gets into stdout (it is on stderr, here the same
    terminal)."""
    code, text = on_terminal(script("verify", bert, "--seq", "4", patience=0.1))
    assert code == 0, text
    assert "verify: load the model" in text or "verify: capture" in text
    assert "bit-exact" in text


@pytest.mark.parametrize("moment", ["capture", "write the image"])
def test_an_interrupt_leaves_no_file(bert: Path, tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when what Ctrl-C interrupts leaves a file or a trace of Python. In this process, where importing PyTorch
    has been paid for."""
    seen: list[str] = []

    def pressed(stage: common.Stages, name: str, begin: Callable[..., None] = common.Stages.__call__) -> None:
        begin(stage, name)
        seen.append(name)
        if name == moment:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(common.Stages, "__call__", pressed)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # xdist's workers ignore it
    try:
        result = call("compile", bert, "--seq", "8", "-o", tmp_path / "out.llmchip")
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.code == 130 and moment in seen
    assert "Traceback" not in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["compile: capture", "compile: compile"])
def test_ctrl_c_leaves_no_file(bert: Path, tmp_path: Path, moment: str) -> None:
    target = tmp_path / "out.llmchip"
    code, text = on_terminal(script("compile", bert, "--seq", "8", "-o", target, patience=0.0), until=moment)
    assert moment in text, text
    if code == 0:  # it had finished before the key was pressed
        assert target.exists()
        return
    assert code == 130, text
    assert "Traceback" not in text
    assert list(tmp_path.iterdir()) == []
