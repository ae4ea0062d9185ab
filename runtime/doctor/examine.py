"""Looks at packages, processor, folders and memory, and puts the document together."""

import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

import torch

from compiler.tested import TESTED
from emulator.threads import WORKERS
from runtime.device.memory import allowed, machine_memory
from runtime.doctor.document import DoctorDocument, Folder, Memory, Processor, Version
from runtime.doctor.environment import environment
from runtime.doctor.rules import self_test
from runtime.pytorch import cache
from runtime.version import __version__

NEEDED: Final = ("torch", "transformers", "numpy")
USEFUL: Final = ("numba", "tokenizers", "safetensors", "torchao", "sentence-transformers")
LEAST_PYTHON: Final = (3, 11)


def examined() -> DoctorDocument:
    """All that there is to say. Raises nothing."""
    versions, processor, tried, settings = tuple(_versions()), _processor(), self_test(), environment()
    folders = tuple(_folders())
    missing = [v for v in versions if not v.version and v.name in NEEDED]
    remarks = [
        *(f"{v.name} is tested {v.tested}" for v in versions if v.version and not v.fine),
        *(f"{v.name} is missing, without which nothing runs" for v in missing),
        *(f"{f.what}: {f.problem}" for f in folders if f.problem),
        *(f"{s.name}: {s.problem}" for s in settings if s.problem),
        *([processor.problem] if processor.problem else []),
    ]
    fine = all(row.fine for row in tried) and not missing and not processor.problem
    return DoctorDocument(fine, versions, processor, _memory(), folders, settings, tried, tuple(remarks))


def _versions() -> Iterator[Version]:
    yield Version("llmchip", __version__)
    python = ".".join(map(str, LEAST_PYTHON))
    yield Version("python", platform.python_version(), f">={python}", sys.version_info >= LEAST_PYTHON)
    for name in (*NEEDED, *USEFUL):
        tested = TESTED.get(name)
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Version(name, "", str(tested or ""), name not in NEEDED)
            continue
        yield Version(name, version, str(tested or ""), tested is None or tested.holds(version))


def _processor() -> Processor:
    features, kernel, able, problem = _kernels()
    return Processor(
        _model() or platform.processor() or platform.machine(),
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        WORKERS,
        features,
        kernel,
        able,
        torch.backends.cpu.get_cpu_capability(),
        problem,
    )


def _kernels() -> tuple[tuple[str, ...], str, tuple[str, ...], str]:
    """Features of this processor that any kernel asks for, the kernel that is chosen, those that can run, and why none
    could be chosen. A wrong LLMCHIP_KERNEL fails where the kernels are imported."""
    try:
        import llvmlite.binding as llvm

        from emulator.replay import blocks
    except ImportError as error:
        return (), "numpy", (), f"without numba ({error}) the emulator is several times slower"
    except ValueError as error:
        return (), "none", (), str(error)
    found = llvm.get_host_cpu_features()
    asked = dict.fromkeys(name for kernel in blocks.KERNELS for name in kernel.features)
    able = [kernel.name for kernel in blocks.KERNELS if all(found.get(name) for name in kernel.features)]
    chosen = blocks.KERNEL
    return tuple(name for name in asked if found.get(name)), chosen.name if chosen else "numpy", tuple(able), ""


def _model() -> str:
    """The processor's name, as Linux has it."""
    return _line(Path("/proc/cpuinfo"), "model name")


def _line(path: Path, name: str) -> str:
    """The value of `name: value` in a file of Linux; empty elsewhere."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _memory() -> Memory:
    words = _line(Path("/proc/meminfo"), "MemAvailable").split()
    machine = machine_memory()
    free = int(words[0]) << 10 if words else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return Memory(machine, min(free, machine), allowed())


def _folders() -> Iterator[Folder]:
    images = cache.folder()
    if images is not None:
        yield Folder("compiled images", str(images), _unwritable(images))
    compiled = os.environ.get("NUMBA_CACHE_DIR") or Path(__file__).parents[2] / "compiler" / "plan" / "__pycache__"
    yield Folder("numba's compiled code", str(compiled), _unwritable(Path(compiled)))
    yield Folder("reports of faults", tempfile.gettempdir(), _unwritable(Path(tempfile.gettempdir())))


def _unwritable(folder: Path) -> str:
    """Why nothing can be written there. A folder that does not exist yet is one that can be made; nothing is left
    behind."""
    place = next((parent for parent in (folder, *folder.parents) if parent.exists()), folder)
    if not place.is_dir():
        return f"{place} is no folder"
    try:
        with tempfile.TemporaryFile(dir=place):
            return ""
    except OSError as error:
        return f"cannot be written: {error.strerror or error}"
