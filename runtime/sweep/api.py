"""`llmchip.sweep`: many chips and shapes from Python."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isa.chip import Chip, load_chip
from isa.errors import InputError
from runtime.sweep.axes import axis, grid
from runtime.sweep.engines import Engine, Local
from runtime.sweep.result import Sweep
from runtime.sweep.store import Store, default_path
from runtime.sweep.sweep import Runner, Told, Workload

if TYPE_CHECKING:
    from compiler.options import Options
    from runtime.sweep.frozen import FrozenModel

Sizes = int | Sequence[int] | None


def sweep(
    models: Any,
    inputs: Any = None,
    *,
    set: Mapping[str, object] | None = None,
    chip: str | PathLike[str] | Chip = "edge",
    seq: Sizes = None,
    batch: Sizes = None,
    workers: int | None = None,
    store: str | PathLike[str] | None = None,
    **options: Any,
) -> Sweep:
    """Compile and time models on every chip of a grid.

    `models` is a MODEL as on the command line, several of them, or a module with its example `inputs`. `set` maps a
    parameter of the chip to the values that it takes. Results are kept in `store` (default: beside the image cache).
    """
    from compiler.options import Options

    axes = [axis(key, values) for key, values in (set or {}).items()]
    settings = Options.from_strings(options)
    workloads = _workloads(models, inputs, seq, batch, settings)
    return run(workloads, axes, load_chip(chip), Local(workers or default_workers()), _path(store))


def run(
    workloads: Sequence[Workload],
    axes: Sequence[Any],
    base: Chip,
    engine: Engine,
    path: Path | None,
    told: Told | None = None,
) -> Sweep:
    """The whole grid. The engine is closed behind it."""
    places = grid(axes)
    store = Store(path)
    try:
        return Sweep(tuple(axes), tuple(Runner(engine, store, told).measure(workloads, places, base)))
    finally:
        engine.close()
        store.close()


def default_workers() -> int:
    """One for each processor that this process may use."""
    return max(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 1)


def _path(store: str | PathLike[str] | None) -> Path | None:
    return default_path() if store is None else Path(store)


def _workloads(models: Any, inputs: Any, seq: Sizes, batch: Sizes, options: "Options") -> list[Workload]:
    if inputs is not None:
        for name, value in {"seq": seq, "batch": batch}.items():
            if value is not None:
                raise InputError(f"{name} does not go with example inputs", hint="they have a shape of their own")
        return [Workload(type(models).__name__, None, None, partial(_freeze_module, models, inputs, options))]
    names = [models] if isinstance(models, str) else list(models)
    if not all(isinstance(name, str) for name in names):
        raise InputError("example inputs are missing", hint="llmchip.sweep(module, inputs), or the names of models")
    return [
        Workload(name, length, count, partial(_freeze_named, name, length, count, options))
        for name in names
        for length in _sizes(seq)
        for count in _sizes(batch)
    ]


def _sizes(given: Sizes) -> list[int | None]:
    return [given] if given is None or isinstance(given, int) else list(given)


def _freeze_module(model: Any, inputs: Any, options: "Options") -> "FrozenModel":
    from runtime.program import captured_model
    from runtime.sweep.frozen import freeze

    return freeze(captured_model(model, inputs), options)


def _freeze_named(name: str, seq: int | None, batch: int | None, options: "Options") -> "FrozenModel":
    from runtime.models.models import Recipe, build

    built = build(Recipe(name, seq=seq, batch=batch))
    return _freeze_module(built.model, built.example, options)
