"""Environment variables that change what llmchip does, or what PyTorch computes beside it: a row for each."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from runtime.doctor.document import Setting


@dataclass(frozen=True)
class Known:
    """`does`: one line for the user. `problem` of a value: why it cannot be used, or what it spoils."""

    does: str
    problem: Callable[[str], str] = lambda value: ""


def _count(value: str) -> str:
    number = value.strip()
    return "" if number.isdigit() and int(number) > 0 else f"'{value}' is no number of threads and is not heeded"


def _jit(value: str) -> str:
    return "the emulator runs without compiled kernels, several times slower" if value.strip() not in ("", "0") else ""


KNOWN: Final[Mapping[str, Known]] = {
    "LLMCHIP_CACHE": Known("where compiled images are kept; 'off' keeps none"),
    "LLMCHIP_CACHE_BYTES": Known("what they may take up"),
    "LLMCHIP_THREADS": Known("threads of the emulator", _count),
    "LLMCHIP_KERNEL": Known("which kernel computes int8 products"),
    "LLMCHIP_STRICT": Known("faults of llmchip are errors under torch.compile, and so is what falls back unasked"),
    "OMP_NUM_THREADS": Known("threads of PyTorch, and of the emulator without LLMCHIP_THREADS"),
    "XDG_CACHE_HOME": Known("where folders for caches are, without LLMCHIP_CACHE"),
    "NUMBA_CACHE_DIR": Known("where numba keeps compiled code"),
    "NUMBA_DISABLE_JIT": Known("numba compiles nothing", _jit),
    "ATEN_CPU_CAPABILITY": Known("which vector instructions PyTorch takes; no bit of llmchip depends on it"),
    "ONEDNN_MAX_CPU_ISA": Known(
        "which instructions PyTorch's oneDNN takes",
        lambda value: "" if value.strip().upper() in ("", "ALL", "DEFAULT") else
        "torchao's own int8 linear gives wrong sums on some processors under it, so that a comparison with torchao may "
        "fail; llmchip and its reference do not use it",
    ),
    "MKL_CBWR": Known("how MKL orders sums of floats; no bit of llmchip depends on it"),
    "HF_HUB_OFFLINE": Known("transformers downloads nothing; llmchip never does"),
}  # fmt: skip


def environment() -> tuple[Setting, ...]:
    """Those that are set."""
    return tuple(
        Setting(name, value, known.does, known.problem(value))
        for name, known in KNOWN.items()
        if (value := os.environ.get(name)) is not None
    )
