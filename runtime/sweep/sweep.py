"""A sweep: every workload on every chip of a grid, or on those that a search asks for.

    sweep = llmchip.sweep("minilm", set={"mxu.rows": [64, 128], "sram.bytes": "1MiB..8MiB"}, seq=128)
    sweep.rows      sweep.front()      sweep.write_csv("points.csv")

What was measured before is taken from the store. The rest goes to the engine's workers, while the next model is
captured here; what they find is kept at once.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from isa.chip import Chip, Energy, to_toml
from isa.errors import Error, described
from runtime.sweep.axes import Place, chip_at
from runtime.sweep.engines import WORKER, Engine
from runtime.sweep.store import Store, key_of

if TYPE_CHECKING:
    from runtime.sweep.frozen import FrozenModel


Name = tuple[str, int | None, int | None]  # of a workload


@dataclass(frozen=True, eq=False)
class Workload:
    """A model for one shape of its inputs. `freeze` captures and lowers it."""

    model: str
    seq: int | None
    batch: int | None
    freeze: "Callable[[], FrozenModel]"

    @property
    def name(self) -> Name:
        return self.model, self.seq, self.batch

    @cached_property
    def frozen(self) -> "FrozenModel | Error":
        """Done once; a model that cannot be had fails at each of its points, with the same reason."""
        try:
            return self.freeze()
        except Error as error:
            return error


@dataclass(frozen=True)
class Row:
    """A point and what came of it: its figures, or the reason why there are none."""

    model: str
    seq: int | None
    batch: int | None
    place: Place
    chip: str
    outcome: dict[str, Any]
    seconds: float  # that it took to find out, here or before

    @property
    def failed(self) -> bool:
        return "error" in self.outcome

    @property
    def workload(self) -> Name:
        return self.model, self.seq, self.batch

    @property
    def sizes(self) -> dict[str, int]:
        """Those of its inputs that were asked for."""
        return {name: size for name, size in (("seq", self.seq), ("batch", self.batch)) if size is not None}

    @property
    def reason(self) -> str:
        """Why it failed, in one line."""
        error = self.outcome.get("error")
        return "" if error is None else ": ".join(filter(None, (error["where"], error["what"])))


@dataclass
class Progress:
    """What a progress bar shows. `left` are the seconds until the end, as far as they can be told."""

    total: int = 0
    done: int = 0
    known: int = 0  # of these, what was in the store
    workers: int = 1
    capturing: str = ""
    spent: dict[Name, list[float]] = field(default_factory=dict)
    waiting: dict[Name, int] = field(default_factory=dict)

    @property
    def left(self) -> float | None:
        """By what points of the same model have taken; those of models that have none yet take what all others do."""
        times = [second for found in self.spent.values() for second in found]
        if not times:
            return None
        mean = sum(times) / len(times)
        work = 0.0
        for workload, count in self.waiting.items():
            own = self.spent.get(workload)
            work += count * (sum(own) / len(own) if own else mean)
        return work / self.workers


Told = Callable[[Progress], None]


@dataclass(frozen=True)
class Job:
    """A point to be computed, and where its row and its place in the store are. `twins` are points that
    come out the same: of the same chip under another description, or of a model that differs in weights alone."""

    number: int
    row: Row
    model: "FrozenModel"
    chip: Chip
    key: str
    twins: list[tuple[int, Row]] = field(default_factory=list)


def shared_out(jobs: Sequence[Job], workers: int) -> list[list[Job]]:
    """Parts of the jobs of one model, each for one worker. Chips that differ in DRAM alone are tiled much alike, and a
    worker does not emit again what it has emitted of late: they stay together, in as many parts as keep all workers
    busy."""
    alike: dict[object, list[Job]] = {}
    for job in jobs:
        rest = msgspec.structs.replace(job.chip, name="", description="", dram=jobs[0].chip.dram, energy=Energy())
        alike.setdefault(to_toml(rest), []).append(job)
    most = max(1, len(jobs) // (4 * workers))
    return [group[low : low + most] for group in alike.values() for low in range(0, len(group), most)]


class Runner:
    """Measures points: those of the store are there at once, others are computed and kept."""

    def __init__(self, engine: Engine, store: Store, told: Told | None = None) -> None:
        self.engine, self.store, self.told = engine, store, told or (lambda _: None)
        self.progress, self._lock = Progress(workers=engine.workers), threading.Lock()
        self._ready, self._stopped, self._expected = False, False, 0

    def expect(self, workloads: Sequence[Workload], count: int) -> None:
        """There will be so many points of each workload, in one call of `measure` or in several."""
        self._expected = count
        self.progress.total += count * len(workloads)
        for workload in workloads:
            self.progress.waiting[workload.name] = self.progress.waiting.get(workload.name, 0) + count

    def measure(self, workloads: Sequence[Workload], places: Sequence[Place], base: Chip) -> list[Row]:
        """A row for each workload at each place, in this order."""
        points = list(itertools.product(workloads, places))
        if not self._expected:
            self.expect(workloads, len(places))
        self._expected -= len(places)
        rows: dict[int, Row] = {}
        jobs: dict[str, Job] = {}
        with ThreadPoolExecutor(self.engine.workers) as pool:
            try:
                futures = []
                for _, own in itertools.groupby(enumerate(points), lambda point: point[1][0]):
                    parts = shared_out(list(self._unknown(own, base, rows, jobs)), self.engine.workers)
                    futures += [pool.submit(self._compute, part, rows) for part in parts]
                for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                    future.result()
            except BaseException:
                self._stopped = True
                self.engine.close()  # what waits for a worker ends with it
                pool.shutdown(cancel_futures=True)
                raise
        for job in jobs.values():
            for number, row in job.twins:
                first = rows[job.number]
                self._finish(rows, number, replace(row, outcome=first.outcome, seconds=first.seconds), known=True)
        return [rows[number] for number in range(len(points))]

    def _unknown(
        self,
        points: Iterable[tuple[int, tuple[Workload, Place]]],
        base: Chip,
        rows: dict[int, Row],
        jobs: dict[str, Job],
    ) -> Iterator[Job]:
        """Those of one workload's points that are not known, which are also added to the `jobs` by their keys. Its model
        is captured now, while workers are busy."""
        for number, (workload, place) in points:
            row = Row(*workload.name, place, "", {}, 0.0)
            model = self._captured(workload)
            try:
                chip = chip_at(base, place)
                if isinstance(model, Error):
                    raise model
            except Error as error:
                self._finish(rows, number, replace(row, outcome={"error": described(error)}), known=True)
                continue
            row, key = replace(row, chip=chip.name), key_of(model, chip)
            if (known := self.store.get(key)) is not None:
                self._finish(rows, number, replace(row, outcome=known[0], seconds=known[1]), known=True)
            elif key in jobs:
                jobs[key].twins.append((number, row))
            else:
                yield jobs.setdefault(key, Job(number, row, model, chip, key))

    def _compute(self, jobs: Sequence[Job], rows: dict[int, Row]) -> None:
        """One after the other."""
        for job in jobs:
            if self._stopped:
                return
            start = time.perf_counter()
            outcome = self.engine.call(job.model, to_toml(job.chip))
            seconds = time.perf_counter() - start
            if outcome.get("error", {}).get("kind") != WORKER:  # which says nothing of the point
                self.store.put(job.key, outcome, seconds)
            self._finish(rows, job.number, replace(job.row, outcome=outcome, seconds=seconds), known=False)

    def _captured(self, workload: Workload) -> "FrozenModel | Error":
        if "frozen" not in vars(workload):
            if not self._ready:
                self.engine.ready()
                self._ready = True
            self.progress.capturing = workload.model
            self.told(self.progress)
            workload.frozen  # noqa: B018 - now, while it is shown
            self.progress.capturing = ""
            self.told(self.progress)
        return workload.frozen

    def _finish(self, rows: dict[int, Row], number: int, row: Row, known: bool) -> None:
        progress = self.progress
        with self._lock:
            rows[number] = row
            progress.done += 1
            progress.known += known
            progress.waiting[row.workload] -= 1
            if not known:
                progress.spent.setdefault(row.workload, []).append(row.seconds)
        self.told(progress)
