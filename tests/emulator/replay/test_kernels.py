"""Which compiled kernels a processor gets, and that each multiplies exactly. Kernels that this processor can run are run
as they are; of the others everything but their one instruction, and that one is looked for in the machine code."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

blocks = pytest.importorskip("emulator.replay.blocks", reason="numba is not installed")

llvm, ir, numba = (pytest.importorskip(name) for name in ("llvmlite.binding", "llvmlite.ir", "numba"))
HERE = llvm.get_host_cpu_features()


@pytest.mark.parametrize(
    ("features", "name"),
    [
        ("avx2 avx512f", "avx2"),
        ("avx2 avxvnni", "avxvnni"),
        ("avx2 avx512vnni avx512f avx512bw", "avx512vnni"),
        ("avx2 avxvnni avx512vnni avx512f avx512bw", "avx512vnni"),
    ],
)
def test_the_best_kernel_whose_instructions_are_all_there(features: str, name: str) -> None:
    """Breaks when a kernel is chosen by one of its features alone: LLVM then ends the process."""
    assert blocks.choose(dict.fromkeys(features.split(), True)).name == name


def test_a_kernel_can_be_forced_if_its_instructions_are_there() -> None:
    """Breaks when a forced kernel is ignored, or taken on a processor that cannot run it."""
    both = dict.fromkeys(["avx2", "avx512vnni", "avx512f", "avx512bw"], True)
    assert blocks.choose(both, "avx2").name == "avx2"
    for name in ("avxvnni", "sse"):
        with pytest.raises(ValueError, match=f"LLMCHIP_KERNEL={name}: this processor can run avx512vnni, avx2"):
            blocks.choose(both, name)


def test_the_choice_comes_from_the_environment() -> None:
    """Breaks when the variable is not read: a wrong name must end in an error that says what there is."""
    code = "import emulator.replay.blocks"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, blocks.CHOICE: "sse"}
    )
    assert "LLMCHIP_KERNEL=sse: this processor can run" in done.stderr


def plain(b: Any, vector: Any, sums: Any, weights: Sequence[Any], quads: Sequence[Any]) -> Any:
    """What vpdpbusd says, in arithmetic that every processor has."""
    byte = ir.VectorType(ir.IntType(8), 4 * vector.count)
    wide = ir.VectorType(ir.IntType(32), 4 * vector.count)
    results = []
    for row, address in zip(sums, quads, strict=True):
        quad = b.bitcast(blocks.splat(b, blocks.load(b, address, ir.IntType(32), 1), vector), byte)
        new = []
        for old, weight in zip(row, weights, strict=True):
            products = b.mul(b.zext(b.bitcast(weight, byte), wide), b.sext(quad, wide))
            for i in range(4):
                mask = ir.Constant(
                    ir.VectorType(ir.IntType(32), vector.count), [4 * j + i for j in range(vector.count)]
                )
                old = b.add(old, b.shuffle_vector(products, ir.Constant(wide, ir.Undefined), mask))
            new.append(old)
        results.append(new)
    return results


@pytest.mark.parametrize("kernel", blocks.KERNELS, ids=lambda kernel: str(kernel.name))
def test_blocks_of_every_kernel_are_exact(kernel: Any) -> None:
    """Breaks when a row, a column or a quad is taken for another, a sum saturates, or widened rows are in another order
    than the weights."""
    runs_here = all(HERE.get(name) for name in kernel.features)
    whole = kernel if runs_here else replace(kernel, dot=plain)
    rows, quads = kernel.rows, 5
    block, widen, width = blocks.dot_block(rows, whole), blocks.widen, kernel.width
    assert runs_here or width == 1

    def once(a: int, lda: int, w: int, c: int, start: int, adds: int) -> None:
        block(a, lda, w, quads, c, 128, start, adds)

    def widened(a: int, out: int, count: int) -> None:
        for at in range(0, count, 16):
            widen(a + at, out + 2 * at)

    run, wide = numba.njit(once), numba.njit(widened)
    rng = np.random.default_rng(0)
    a, w = rng.integers(-128, 128, (rows, 32)).astype(np.int8), rng.integers(0, 256, (32, 4 * quads)).astype(np.uint8)
    a[0], w[0], w[1] = -128, 255, 0
    start, c = rng.integers(-1000, 1000, rows).astype(np.int32), np.zeros((rows, 32), np.int32)
    packed = np.ascontiguousarray(w.reshape(32, quads, 4).transpose(1, 0, 2))
    left = a if width == 1 else np.zeros((rows, 32), np.int16)
    if width == 2:
        wide(a.ctypes.data, left.ctypes.data, a.size)
    want = start[:, None] + a[:, : 4 * quads].astype(np.int32) @ w.astype(np.int32).T
    for adds in (0, 1):
        run(left.ctypes.data, 32 * width, packed.ctypes.data, c.ctypes.data, start.ctypes.data, adds)
        assert np.array_equal(c, want * (1 + adds))


@pytest.mark.parametrize(
    ("name", "words"),
    [("avx512vnni", ["vpdpbusd", "zmm"]), ("avxvnni", ["{vex}\tvpdpbusd", "ymm"]), ("avx2", ["vpmaddwd", "ymm"])],
)
def test_machine_code_has_the_instruction(name: str, words: Sequence[str]) -> None:
    """Breaks when LLVM cannot select an intrinsic for the features of a kernel, or does it in pieces."""
    (kernel,) = (kernel for kernel in blocks.KERNELS if kernel.name == name)
    module, i64 = ir.Module(), ir.IntType(64)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [i64] * 6), "f")
    b = ir.IRBuilder(function.append_basic_block())
    *operands, c = function.args
    vector = ir.VectorType(ir.IntType(32), kernel.lanes)
    for parts in kernel.stretches(kernel.rows):
        for row in blocks._sums(b, kernel, kernel.rows, parts, *operands):
            for total in row:
                b.store(total, b.inttoptr(c, vector.as_pointer()))
    b.ret_void()
    target = llvm.Target.from_triple("x86_64-unknown-linux-gnu")
    machine = target.create_target_machine(features=",".join(f"+{feature}" for feature in kernel.features))
    text = machine.emit_assembly(llvm.parse_assembly(str(module)))
    assert all(word in text for word in words)


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
    and nothing says so; or when it is kept without the kernel that it was made for.

    Seen: the key of the cache read a source file that had been moved.
    """
    from emulator.replay import cached

    monkeypatch.setenv("LLMCHIP_CACHE", str(tmp_path))
    assert cached.compiled(_twice, "int64(int64)")(3) == 6
    (index,) = tmp_path.rglob("*.nbi")
    assert list(tmp_path.rglob("*.nbc")) and index.parent.name.endswith(f"-{blocks.KERNEL.name}")


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


@pytest.mark.slow
@pytest.mark.parametrize("kernel", blocks.KERNELS, ids=lambda kernel: str(kernel.name))
def test_launches_by_other_kernels_that_run_here(kernel: Any) -> None:
    """Breaks when a kernel that is only ever forced gives other bits: the tests of plans once more, by each of them."""
    if kernel is blocks.KERNEL or not all(HERE.get(name) for name in kernel.features):
        pytest.skip("the tests have run with it, or it does not run here")
    names = "test_grouped_panels.py", "test_replay_words.py", "test_expand.py"
    files = [str(Path(__file__).with_name(name)) for name in names]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *files],
        env={**os.environ, blocks.CHOICE: kernel.name}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
