"""`llmchip.sweep`: many chips and shapes from Python."""

import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeGuard

from isa.chip import Chip, load_chip
from isa.errors import InputError
from runtime.sweep.axes import Axis, axis, check_apart, grid
from runtime.sweep.engines import Engine, Local
from runtime.sweep.measures import OBJECTIVES, objectives
from runtime.sweep.ray_engine import OnRay
from runtime.sweep.result import Sweep
from runtime.sweep.search import search as search_chips
from runtime.sweep.store import Store, default_path
from runtime.sweep.sweep import Row, Runner, Told, Workload

if TYPE_CHECKING:
    from compiler.options import Options
    from runtime.models.models import Recipe
    from runtime.sweep.frozen import FrozenModel

Sizes = SupportsIndex | Iterable[SupportsIndex] | None
ENGINES: Mapping[str, Callable[[int], Engine]] = {"local": Local, "ray": OnRay}


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
    engine: str = "local",
    search: int | None = None,
    minimize: str | Sequence[str] = tuple(OBJECTIVES),
    seed: int = 0,
    **options: Any,
) -> Sweep:
    """Compile and time models on every chip of a grid.

        llmchip.sweep(model, (x,), set={"mxu.rows+mxu.cols": [64, 128], "sram.bytes": "1MiB..8MiB"})
        llmchip.sweep("minilm", set={"chip": ["edge", "server"]}, seq=[64, 128])

    `models` is a MODEL as on the command line or several of them, for every `seq` and `batch`, or a module with its
    example `inputs`. `set` maps a parameter of the chip to the values that it takes: a list, or a range that doubles;
    parameters joined by + have the same value; the others are those of `chip`. Points are computed by `workers`
    processes (default: one for each processor), or with `engine="ray"` on a cluster. Results are kept in `store`
    (default: beside the image cache), where the same points are found again. With `search` so many trials of a search,
    seeded with `seed`, take the place of the whole grid; they and the front look for small values of `minimize`.
    `options` are those of `llmcc compile --option`.

    A point that fails is a row with its reason. Raises ChipError for an axis that no chip has, InputError for other
    arguments that cannot be used.
    """
    from compiler.options import Options

    axes = [axis(key, values) for key, values in (set or {}).items()]
    settings = Options.from_strings(options)
    workloads = _workloads(models, inputs, seq, batch, settings)
    wanted = objectives([minimize] if isinstance(minimize, str) else minimize)
    trials = None if search is None else _whole("search", search)
    plan = Plan(tuple(axes), load_chip(chip), wanted, trials, _whole("seed", seed))
    processes = None if workers is None else _whole("workers", workers)
    return run(workloads, plan, engine_of(engine, processes), _path(store))


@dataclass(frozen=True)
class Plan:
    """Which chips, and what is looked for: the whole grid, or `trials` of a search. Raises ChipError for axes that
    contradict each other."""

    axes: tuple[Axis, ...]
    base: Chip
    minimized: tuple[str, ...] = tuple(OBJECTIVES)
    trials: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_apart(self.axes)


def run(
    workloads: Sequence[Workload], plan: Plan, engine: Engine, path: Path | None, told: Told | None = None
) -> Sweep:
    """Do what the plan says. The engine is closed behind it. Raises InputError for a store that cannot be used, a search
    without Optuna or without axes."""
    try:
        store = Store(path)
        try:
            runner = Runner(engine, store, told)
            return Sweep(plan.axes, tuple(_rows(runner, workloads, plan)), plan.minimized)
        finally:
            store.close()
    finally:
        engine.close()


def _rows(runner: Runner, workloads: Sequence[Workload], plan: Plan) -> list[Row]:
    if plan.trials is None:
        return runner.measure(workloads, grid(plan.axes), plan.base)
    if plan.trials < 1:
        raise InputError(f"a search of {plan.trials} trials finds nothing", "--search", "at least 1")
    if not plan.axes:
        raise InputError("a search needs axes", "--search", "--set mxu.rows=32..256, for example")
    return search_chips(runner, workloads, plan.axes, plan.base, plan.trials, plan.minimized, plan.seed)


def engine_of(name: str, workers: int | None) -> Engine:
    """The engine of this name. Raises InputError for another name, workers that are none, or Ray without its package."""
    if workers is not None and workers < 1:
        raise InputError(f"{workers} workers do no work", hint="at least 1, or None for one for each processor")
    if name not in ENGINES:
        raise InputError(f"there is no engine '{name}'", hint=f"they are {', '.join(ENGINES)}")
    return ENGINES[name](workers or default_workers())


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
    names = list(models) if _is_several(models) else [models]
    if not names:
        raise InputError(
            "there is no model to sweep", hint="llmchip.sweep('minilm', set={...}), or a module and its inputs"
        )
    if not all(isinstance(name, str) for name in names):
        raise InputError("example inputs are missing", hint="llmchip.sweep(module, inputs), or the names of models")
    from runtime.models.models import Recipe, check_recipe

    found = []
    for name, length, count in product(names, _sizes("seq", seq), _sizes("batch", batch)):
        recipe = Recipe(name, seq=length, batch=count)
        check_recipe(recipe)
        found.append(Workload(name, length, count, partial(_freeze_named, recipe, options)))
    return found


def _sizes(name: str, given: Sizes) -> list[int | None]:
    """Raises InputError for no size, for one that nothing has, and for what is no integer."""
    asked: list[Any] = list(given) if _is_several(given) else [given]
    sizes = [None if size is None else _whole(name, size) for size in asked]
    if not sizes or any(size is not None and size < 1 for size in sizes):
        raise InputError(
            f"{name} cannot be {asked if _is_several(given) else given}", hint="a size of at least 1, or several"
        )
    return sizes


def _is_several(given: Any) -> TypeGuard[Iterable[Any]]:
    """Whether it is iterable, and not text. An array or tensor without dimensions says that it is, and is not."""
    if not isinstance(given, Iterable) or isinstance(given, str | bytes):
        return False
    try:
        iter(given)
    except TypeError:
        return False
    return True


def _whole(name: str, given: Any) -> int:
    """An integer of any type, NumPy's too. Raises InputError for others, which text is one of."""
    try:
        return operator.index(given)
    except TypeError:
        raise InputError(f"{name} cannot be {given!r}", hint="an integer, such as 64") from None


def _freeze_module(model: Any, inputs: Any, options: "Options") -> "FrozenModel":
    from compiler.frontend.calibration import marked
    from runtime.program import captured_model
    from runtime.sweep.frozen import freeze

    return freeze(marked(captured_model(model, inputs), options.quant_config, None), options)


def _freeze_named(recipe: "Recipe", options: "Options") -> "FrozenModel":
    from runtime.models.models import build

    built = build(recipe)
    return _freeze_module(built.model, built.example, options)
