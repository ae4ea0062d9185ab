"""Which compiled kernels a processor gets. The kernels' bits are those of every other test here: one processor runs one kernel."""

import subprocess
import sys

import pytest

intrinsics = pytest.importorskip("emulator.replay.intrinsics", reason="numba is not installed")


@pytest.mark.parametrize(("features", "name"), [("avx2 avx512f", "avx2"), ("avx2 avx512vnni avx512f avx512bw", "avx512vnni")])
def test_the_best_kernel_whose_instructions_are_all_there(features: str, name: str) -> None:
    """Breaks when a kernel is chosen by one of its features alone: LLVM then ends the process."""
    assert intrinsics.choose(dict.fromkeys(features.split(), True)).name == name


def test_without_a_kernel_the_interpreter_runs() -> None:
    """Breaks when anything is compiled before the processor was asked (seen: an abort at import on processors without VNNI)."""
    code = """
import llvmlite.binding as llvm
llvm.get_host_cpu_features = llvm.FeatureMap
from emulator.machine import compiler
from emulator.replay.recording import interpreted
assert compiler() is interpreted
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
