"""`llmcc doctor`: says what is here, and that a machine whose arithmetic is another fails."""

import os
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
import torch
from cli_harness import call

from runtime.doctor import environment
from runtime.doctor.rules import RULES, Rule, _unary, self_test


def test_every_rule_holds_here() -> None:
    """Breaks when PyTorch or this machine rounds otherwise, or a rule compares nothing."""
    found = self_test()
    assert [row for row in found if not row.fine] == []
    assert all(row.elements for row in found) and len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize(
    "rule",
    [
        Rule("forbidden", _unary(torch.exp, np.exp)),
        Rule("another type", _unary(torch.floor, lambda x: np.floor(x).astype(np.float64))),
        Rule("refused", _unary(lambda a: a @ torch.ones(1, 2), np.floor)),
    ],
)
def test_a_rule_that_does_not_hold_fails(rule: Rule) -> None:
    """Breaks when a difference of one bit, another type, or an operation that raises passes."""
    assert not rule.tried().fine


def test_flushed_subnormals_are_found() -> None:
    """Breaks when a process that flushes subnormals, where numpy does as well, passes; or llmcc says that all is well."""
    assert torch.set_flush_denormal(True)
    try:
        result = call("doctor")
    finally:
        torch.set_flush_denormal(False)
    assert result.code == 1
    assert "FAIL  subnormals are kept" in result.out and "rules of arithmetic fail here" in result.out


def test_what_a_user_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a version, the tested range, the kernel, or a variable that spoils a comparison is not told, or a line
    is wider than a narrow terminal."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("LLMCHIP_CACHE", "/proc/nowhere")
    result = call("doctor")
    assert result.code == 0
    lines = result.out.splitlines()
    assert any(line.startswith("torch ") and torch.__version__ in line and "tested >=" in line for line in lines)
    assert any(line.startswith("int8 kernel") for line in lines)
    assert "remark: ONEDNN_MAX_CPU_ISA: torchao's own int8 linear" in result.out
    assert "remark: compiled images: cannot be written" in result.out
    assert all(len(line) <= 80 for line in lines if not line.startswith("remark:"))


def test_a_version_that_is_not_tested_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a version outside the one table of tested ranges passes in silence, or fails: it only warns."""
    monkeypatch.setattr(metadata, "version", lambda name: "9.0")
    found = call("doctor", "--json").document
    assert found["fine"] and [v["fine"] for v in found["versions"] if v["name"] == "torch"] == [False]
    assert any(remark.startswith("torch is tested >=") for remark in found["remarks"])


@pytest.mark.wide
def test_a_kernel_that_there_is_not() -> None:
    """Breaks when a wrong LLMCHIP_KERNEL ends `doctor` with a traceback, or passes."""
    done = subprocess.run(
        [sys.executable, "-m", "runtime.cli", "doctor"],
        env={**os.environ, "LLMCHIP_KERNEL": "abacus"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "remark: LLMCHIP_KERNEL=abacus: this processor can run" in done.stdout


def test_variables_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a variable that is not set is listed, or one that cannot be used is taken for fine."""
    for name in environment.KNOWN:
        monkeypatch.delenv(name, raising=False)
    assert environment.environment() == ()
    monkeypatch.setenv("LLMCHIP_THREADS", "many")
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "0")
    assert [(s.name, bool(s.problem)) for s in environment.environment()] == [
        ("LLMCHIP_THREADS", True),
        ("NUMBA_DISABLE_JIT", False),
    ]
