"""Which compiled kernels a processor gets. The kernels' bits are those of every other test here: one processor runs one
kernel."""

import subprocess
import sys
from pathlib import Path

import pytest

intrinsics = pytest.importorskip("emulator.replay.intrinsics", reason="numba is not installed")


@pytest.mark.parametrize(
    ("features", "name"), [("avx2 avx512f", "avx2"), ("avx2 avx512vnni avx512f avx512bw", "avx512vnni")]
)
def test_the_best_kernel_whose_instructions_are_all_there(features: str, name: str) -> None:
    """Breaks when a kernel is chosen by one of its features alone: LLVM then ends the process."""
    assert intrinsics.choose(dict.fromkeys(features.split(), True)).name == name


def test_without_a_kernel_the_interpreter_runs() -> None:
    """Breaks when anything is compiled before the processor was asked (seen: an abort at import on processors without
    VNNI)."""
    code = """
import llvmlite.binding as llvm
llvm.get_host_cpu_features = llvm.FeatureMap
from emulator.machine import Machine
from emulator.replay.replays import plans
machine = Machine(64, 64)
assert plans(machine.memory, machine._scratch) is None
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _twice(number: int) -> int:
    return 2 * number


def test_kernels_are_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when compiled code finds no place although there is one: every process compiles for half a minute then,
    and nothing says so.

    Seen: the key of the cache read a source file that had been moved.
    """
    from emulator.replay import cached

    monkeypatch.setenv("LLMCHIP_CACHE", str(tmp_path))
    assert cached.compiled(_twice, "int64(int64)")(3) == 6
    assert list(tmp_path.rglob("*.nbi")) and list(tmp_path.rglob("*.nbc"))


def test_kernels_are_made_again_when_a_constant_changes() -> None:
    """Breaks if a module whose constants are compiled into kernels is not among those that a stored kernel is valid
    for: isa/spec.py was divided, and kernels of the old table would have been used with the new one."""
    from emulator.replay.cached import sources

    names = {"/".join(path.parts[-2:]) for path in sources()}
    assert {
        "isa/architecture.py",
        "isa/constants.py",
        "isa/spec.py",
        "emulator/functions.py",
        "replay/rows.py",
    } <= names
    assert "emulator/machine.py" not in names  # which runs kernels, and is in none
