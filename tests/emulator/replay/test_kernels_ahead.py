"""`python -m emulator.replay`, which `make test` runs first."""

import os
import subprocess
import sys

from checkout import ROOT


def run(**environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "emulator.replay"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
    )


def test_where_nothing_can_be_compiled_nothing_is_wrong() -> None:
    """Breaks when a machine whose user switched numba off cannot run the tests."""
    done = run(NUMBA_DISABLE_JIT="1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_kernels_are_made_ahead() -> None:
    """Breaks when the modules with kernels have other names, or cannot be imported alone."""
    done = run()
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
