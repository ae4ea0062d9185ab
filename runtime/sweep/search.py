"""A search: chips that are asked for one batch after the other, each with a look at what the batches before have shown.

Optuna's sampler (TPE, several objectives) asks. It is seeded and told in the order in which it asked, whatever worker
was first, so the same search asks for the same chips: one that was interrupted is asked again from the beginning, finds
its points in the store, and goes on where it was.
"""

import warnings
from collections.abc import Iterator, Sequence
from math import prod

from isa.chip import Chip
from isa.errors import InputError
from runtime.sweep.axes import Axis, Place
from runtime.sweep.measures import OBJECTIVES
from runtime.sweep.sweep import Row, Runner, Workload

BATCH = 8  # chips that are asked for at once, so that workers have something to do; no matter how many there are


def search(
    runner: Runner, workloads: Sequence[Workload], axes: Sequence[Axis], base: Chip, count: int,
    minimized: Sequence[str], seed: int,
) -> list[Row]:  # fmt: skip
    """The rows of `count` trials, by workload; chips that were asked for twice are there once. Raises InputError
    without Optuna."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise InputError("a search needs Optuna", hint="pip install 'optuna>=4', or llmchip[sweep]") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    study = optuna.create_study(directions=["minimize"] * len(minimized), sampler=sampler)
    runner.expect(workloads, count)
    found: dict[tuple[object, ...], Row] = {}
    for size in _batches(count):
        trials = [study.ask() for _ in range(size)]
        places = [
            {axis.key: axis.values[trial.suggest_int(axis.key, 0, len(axis.values) - 1)] for axis in axes}
            for trial in trials
        ]
        rows = runner.measure(workloads, places, base)
        for number, (trial, place) in enumerate(zip(trials, places, strict=True)):
            mine = rows[number :: len(places)]
            found.update({_identity(row, place): row for row in mine})
            if any(row.failed for row in mine):
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, [_mean(mine, name) for name in minimized])
    order = {workload.name: number for number, workload in enumerate(workloads)}
    return sorted(found.values(), key=lambda row: order[row.workload])


def _batches(count: int) -> Iterator[int]:
    while count > 0:
        yield min(count, BATCH)
        count -= BATCH


def _identity(row: Row, place: Place) -> tuple[object, ...]:
    return row.workload, tuple(place.items())


def _mean(rows: Sequence[Row], name: str) -> float:
    """Over all workloads, the geometric mean: a tenth less counts the same, for a small model and a large one."""
    return float(prod(row.outcome[OBJECTIVES[name]] for row in rows) ** (1 / len(rows)))
