"""Sweeps: grids, results that are kept, workers."""

import csv
import gc
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkout import ROOT
from cli_harness import call
from torch import nn

import llmchip
from compiler.frontend.capture import capture
from compiler.options import Options
from emulator.timing.simulate import simulate
from isa.chip import load_chip
from isa.errors import ChipError, Error, InputError, UnsupportedError
from runtime.sweep.api import _sizes
from runtime.sweep.axes import axis, chip_at, grid
from runtime.sweep.engines import Local
from runtime.sweep.figures import Outcome, figures, outcome
from runtime.sweep.frozen import FrozenModel, freeze
from runtime.sweep.ray_engine import OnRay
from runtime.sweep.result import Sweep, front
from runtime.sweep.search import search
from runtime.sweep.store import Store, key_of
from runtime.sweep.sweep import Job, Row, Runner, Workload, shared_out

X = torch.randn(8, 32)


class Inside:
    """An engine in this process that counts its points, and may be told to stop."""

    workers = 1

    def __init__(self, stop_at: int | None = None) -> None:
        self.calls, self.stop_at, self.closed = 0, stop_at, False

    def ready(self) -> None:
        pass

    def call(self, model: FrozenModel, chip: str) -> Outcome:
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        self.calls += 1
        return outcome(model, chip)

    def close(self) -> None:
        self.closed = True


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 16)).eval()


@pytest.fixture(scope="module")
def frozen() -> FrozenModel:
    return freeze(capture(mlp(), (X,)), Options())


def workload(frozen: FrozenModel) -> Workload:
    return Workload("mlp", None, None, lambda: frozen)


@pytest.mark.parametrize(
    ("key", "given", "values"),
    [
        ("mxu.rows", "32, 64", ("32", "64")),
        ("mxu.rows", [32, 64], ("32", "64")),
        ("sram.bytes", "1MiB..5MiB", ("1MiB", "2MiB", "4MiB")),
        ("mxu.rows+mxu.cols", "16..32", ("16", "32")),
        ("mxu.split", [False, True], ("false", "true")),
        ("dram.bytes_per_second", "68GB/s,1e11", ("68GB/s", "100GB/s")),
        ("chip", "edge,server", ("edge", "server")),
    ],
)
def test_axes_are_read(key: str, given: object, values: tuple[str, ...]) -> None:
    """Breaks when a value, a range or a list means other points than it says."""
    assert axis(key, given).values == values


@pytest.mark.parametrize(
    ("key", "given", "message"),
    [
        ("mxu.rows", "0,1", "0 is not within 1 to 65536"),
        ("mxu.row", "1", "did you mean 'mxu.rows'"),
        ("mxu.rows", "64,64", "a value is there twice"),
        ("mxu.rows", "64,", "a value is missing"),
        ("mxu.rows", "64..32", "64..32 is no range"),
        ("mxu.rows", "64..100", "64..100 is 64 alone"),
        ("mxu.rows", "32.5", "32.5 is no whole number"),
        ("sram.bytes", "1e400", "'1e400' is not within 1B to 64GiB"),
        ("sram.bytes", "1e999999999", "'1e999999999' is not within 1B to 64GiB"),
        ("mxu.split", "false..true", "is no range"),
    ],
)
def test_axes_that_no_chip_has_are_refused(key: str, given: str, message: str) -> None:
    """Breaks when a sweep begins that can only fail, or the line does not say why."""
    with pytest.raises(ChipError, match=message):
        axis(key, given)


def test_a_grid_is_every_combination() -> None:
    """Breaks when a point is left out, or an axis is applied to another parameter."""
    places = grid([axis("chip", "edge,server"), axis("mxu.rows+mxu.cols", "32,64")])
    chips = [chip_at(load_chip("edge"), place) for place in places]
    assert [(c.mxu.rows, c.mxu.cols, c.mxu.weight_rows_per_cycle) for c in chips] == [
        (32, 32, 4), (64, 64, 4), (32, 32, 16), (64, 64, 16),
    ]  # fmt: skip


def test_figures_are_those_of_the_image(frozen: FrozenModel) -> None:
    """Breaks when a program without its weights, or of the graph that was pickled, is not the one that is compiled."""
    chip = load_chip("edge").replace(mxu={"rows": 64})
    program = llmchip.compile(mlp(), (X,), chip=chip)
    timeline = simulate(program.image)
    assert figures(frozen, chip)["cycles"] == timeline.cycles
    assert figures(frozen, chip)["program_words"] == program.image.words


def test_a_point_is_measured_once(frozen: FrozenModel, tmp_path: Path) -> None:
    """Breaks when what is in the store is computed again, or two points with one chip are."""
    store, engine = Store(tmp_path / "s.sqlite"), Inside()
    places = grid([axis("mxu.rows", "64,128")])
    first = Runner(engine, store).measure([workload(frozen)], places, load_chip())
    again = Runner(engine, store).measure([workload(frozen)], [*places, *grid([axis("mxu.cols", "128")])], load_chip())
    assert engine.calls == 2
    assert [row.outcome for row in again] == [*(row.outcome for row in first), first[1].outcome]


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize(("banks", "arrays"), [(1, 1), (4, 1), (5, 2), (5, 20)])
def test_chips_that_differ_in_dram_stay_together(frozen: FrozenModel, workers: int, banks: int, arrays: int) -> None:
    """Breaks when a point is lost or done twice, a worker gets chips with nothing in common, or others have nothing to
    do."""
    rates, sizes = [f"{1 + i}GB/s" for i in range(banks)], [str(16 + i) for i in range(arrays)]
    places = grid([axis("dram.bytes_per_second", rates), axis("mxu.rows", sizes)])
    chips = [chip_at(load_chip(), place) for place in places]
    jobs = [
        Job(number, Row("mlp", None, None, place, "", {}, 0.0), frozen, chip, str(number))
        for number, (place, chip) in enumerate(zip(places, chips, strict=True))
    ]
    parts = shared_out(jobs, workers)
    assert sorted(job.number for part in parts for job in part) == list(range(len(jobs)))
    assert all(len({job.chip.mxu.rows for job in part}) == 1 for part in parts)
    assert len(parts) >= min(len(jobs), 2 * workers)
    if len(jobs) >= 4 * workers * banks:
        assert len(parts) == arrays


def test_an_interrupted_sweep_goes_on(frozen: FrozenModel, tmp_path: Path) -> None:
    """Breaks when what was done before an interrupt is lost or done again, or the engine is left running."""
    places = grid([axis("mxu.rows", "32,64,128")])
    engine, store = Inside(stop_at=2), Store(tmp_path / "s.sqlite")
    with pytest.raises(KeyboardInterrupt):
        Runner(engine, store).measure([workload(frozen)], places, load_chip())
    assert engine.closed
    rest = Inside()
    rows = Runner(rest, Store(tmp_path / "s.sqlite")).measure([workload(frozen)], places, load_chip())
    assert (engine.calls, rest.calls) == (2, 1) and not any(row.failed for row in rows)


def test_models_that_differ_in_weights_alone_have_rows_of_their_own(frozen: FrozenModel) -> None:
    """Breaks if a point that comes out like another takes its name, too."""
    loads = [workload(frozen), Workload("twin", 8, 2, lambda: frozen)]
    engine = Inside()
    runner = Runner(engine, Store(None))
    rows = runner.measure(loads, grid([axis("mxu.rows", "64,128")]), load_chip())
    assert [(row.model, row.seq, row.batch) for row in rows] == [("mlp", None, None)] * 2 + [("twin", 8, 2)] * 2
    assert [row.outcome for row in rows[:2]] == [row.outcome for row in rows[2:]] and engine.calls == 2
    assert set(runner.progress.waiting.values()) == {0}


def test_a_point_that_fails_is_a_row(frozen: FrozenModel) -> None:
    """Breaks when a chip that is too small, or a model that is refused, ends the sweep or hides its reason."""

    def refused() -> FrozenModel:
        raise UnsupportedError("no such operation", "conv")

    loads = [workload(frozen), Workload("conv", None, None, refused)]
    rows = Runner(Inside(), Store(None)).measure(loads, grid([axis("sram.bytes", "64,1MiB")]), load_chip())
    assert [row.failed for row in rows] == [True, False, True, True]
    assert "of SRAM" in rows[0].reason and rows[3].reason == "conv: no such operation"
    found = Sweep((), tuple(rows))
    assert [record["error"] is None for record in found.records()] == [False, True, False, False]
    assert found.front() == [rows[1]]


def test_names_are_no_figures(frozen: FrozenModel) -> None:
    """Breaks when a chip's name makes a point another one, or a number of it does not."""
    edge = load_chip("edge")
    assert key_of(frozen, edge) == key_of(frozen, edge.replace(name="mine"))
    assert key_of(frozen, edge) != key_of(frozen, edge.replace(energy={"act": 1}))


def test_the_front_is_what_nothing_beats() -> None:
    """Breaks when a row that another beats in all is among the best, or rows of different models are compared."""

    def row(seconds: float, joules: float, model: str = "m") -> Row:
        return Row(model, 1, 1, {}, "", {"seconds": seconds, "joules": joules, "mm2": 1.0}, 0.0)

    rows = [row(1, 3), row(2, 2), row(3, 1), row(2, 3), row(1, 3), row(9, 9, "other")]
    assert front(rows, ("latency", "energy")) == [rows[0], rows[1], rows[2], rows[4], rows[5]]


def command(folder: Path, *more: object) -> list[str]:
    """A sweep over three arrays of two models, one of which is refused."""
    (folder / "swept.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def small():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Linear(32, 48), nn.ReLU()).eval(), {'input': torch.zeros(4, 32)}\n"
        "class Kth(nn.Module):\n    def forward(self, input):\n        return torch.kthvalue(input, 2).values\n"
        "def refused():\n    return Kth().eval(), {'input': torch.zeros(4, 4)}\n"
    )
    models = ["swept:small", "swept:refused"]
    given = [*models, "--set", "mxu.rows=16,32,64", "--store", folder / "s.sqlite", "--json", *more]
    return [sys.executable, "-m", "runtime.cli", "sweep", *map(str, given)]


@pytest.mark.slow  # four processes that import PyTorch
def test_a_killed_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    """On the command line, with worker processes: breaks when a kill loses a finished point or leaves workers, when a
    point is done twice, or a model that is refused ends the sweep."""
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "LLMCHIP_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(command(tmp_path, "--workers", 1), env=env, stdout=subprocess.PIPE, cwd=ROOT)
    deadline = time.monotonic() + 300
    while not (done := _keys(tmp_path / "s.sqlite")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    result = subprocess.run(
        command(tmp_path, "--workers", 1, "--csv", tmp_path / "s.csv"),
        env=env,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)["rows"]
    assert [row["model"] for row in rows] == ["swept:small"] * 3 + ["swept:refused"] * 3
    assert all(row["cycles"] and row["error"] is None for row in rows[:3])
    assert all(row["cycles"] is None and "kthvalue" in row["error"] for row in rows[3:])
    after = _keys(tmp_path / "s.sqlite")
    assert len(after) == 3 and done and done.items() <= after.items()  # the same outcome, from the same run
    read = list(csv.DictReader(io.StringIO((tmp_path / "s.csv").read_text())))
    assert [int(row["cycles"]) for row in read[:3]] == [row["cycles"] for row in rows[:3]]


def _keys(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return dict(sqlite3.connect(path).execute("SELECT key, seconds FROM points").fetchall())
    except sqlite3.OperationalError:  # not there yet
        return {}


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("minilm", "--set", "mxu.rows=0"), "0 is not within"),
        (("minilm", "--seq", "8,x"), "is not a list of sizes"),
        (("nothing",), "there is no model or file"),
        (("minilm", "--csv", "/no/such/folder/a.csv"), "the folder does not exist"),
        (("minilm", "--store", "/no/such/folder/a.sqlite"), "the folder does not exist"),
        (("no.such.module:make", "--seq", "8,16"), "--seq only goes with a Hugging Face folder"),
        (("minilm", "no.such.module:make", "--batch", "2"), "--batch only goes with a Hugging Face folder"),
    ],
)
def test_a_sweep_that_cannot_be_is_one_line(arguments: tuple[str, ...], what: str) -> None:
    """Breaks when a mistake is found only after the models are captured, or with a traceback."""
    result = call("sweep", *arguments, "--json")
    assert result.code == 2 and what in result.error["what"]


def test_a_sweep_in_python_is_refused_as_early(tmp_path: Path) -> None:
    """Breaks when Python makes folders that nobody asked for, or captures models before it looks at what was asked."""
    with pytest.raises(InputError, match="the folder does not exist"):
        llmchip.sweep("minilm", store=tmp_path / "no" / "s.sqlite")
    with pytest.raises(InputError, match="--seq only goes with a Hugging Face folder"):
        llmchip.sweep("no.such.module:make", seq=[8, 16], store=tmp_path / "s.sqlite")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"models": nn.Linear(2, 2)}, "example inputs are missing"),
        ({"models": []}, "no model"),
        ({"models": "no.such.module:make"}, "cannot import"),
        ({"models": iter(())}, "no model"),
        ({"models": (name for name in ("nothing",))}, "there is no model or file"),
        ({"seq": []}, "seq cannot be"),
        ({"seq": "64"}, "seq cannot be '64'"),
        ({"seq": b"64"}, "seq cannot be b'64'"),
        ({"seq": [64, "128"]}, "seq cannot be '128'"),
        ({"seq": 64.0}, "seq cannot be 64.0"),
        ({"batch": np.int64(0)}, "batch cannot be 0"),
        ({"workers": "2"}, "workers cannot be '2'"),
        ({"seed": "x"}, "seed cannot be 'x'"),
        ({"search": 1.5}, "search cannot be 1.5"),
        ({"batch": 0}, "batch cannot be 0"),
        ({"workers": 0}, "0 workers"),
        ({"minimize": []}, "nothing is to be made small"),
        ({"minimize": "speed"}, "there is no objective 'speed'"),
        ({"search": 0, "set": {"mxu.rows": [64]}}, "a search of 0 trials"),
    ],
)
def test_a_sweep_of_nothing_is_refused(given: dict[str, Any], what: str, tmp_path: Path) -> None:
    """Breaks when what cannot be swept is an empty table, or an error of Python's own."""
    with pytest.raises(Error, match=what):
        llmchip.sweep(**{"models": "minilm", "store": tmp_path / "s.sqlite", **given})


def test_integers_of_numpy_are_integers() -> None:
    """Breaks when a size is asked for its type, not for being whole; what is found is JSON and SQL later."""
    for given in (np.int64(64), [np.int64(64)], np.array([64]), np.array(64), iter([64]), range(64, 65)):
        found = _sizes("seq", given)
        assert found == [64] and type(found[0]) is int
    assert _sizes("seq", None) == [None]


def test_workers_leave_no_pipe_open(recwarn: pytest.WarningsRecorder) -> None:
    """Breaks when what talked to a worker stays open until Python finds it."""
    engine = Local(1)
    engine.ready()
    engine.close()
    engine.close()
    del engine
    gc.collect()
    assert not [str(one.message) for one in recwarn if one.category is ResourceWarning]


def test_parquet_has_the_records(frozen: FrozenModel, tmp_path: Path) -> None:
    """Breaks when a figure is missing or has become text."""
    parquet = pytest.importorskip("pyarrow.parquet")
    axes = (axis("mxu.rows", "64,128"),)
    found = Sweep(axes, tuple(Runner(Inside(), Store(None)).measure([workload(frozen)], grid(axes), load_chip())))
    found.write_parquet(tmp_path / "s.parquet")
    assert parquet.read_table(tmp_path / "s.parquet").to_pylist() == found.records()
    assert repr(found).startswith("Sweep(2 points over mxu.rows, 0 failed")


SPACE = (axis("mxu.rows", "8..256"), axis("sram.bytes", "64,4KiB..4MiB"))


def searched(frozen: FrozenModel, engine: Inside, store: Store, seed: int) -> list[Row]:
    pytest.importorskip("optuna")
    found = search(Runner(engine, store), [workload(frozen)], SPACE, load_chip(), 20, ("latency", "area"), seed)
    return [replace(row, seconds=0.0) for row in found]


def test_a_search_asks_for_the_same_chips_again(frozen: FrozenModel, tmp_path: Path) -> None:
    """Breaks when a search is not seeded, forgets what was measured before it was interrupted, or stops at a point that
    fails."""
    stopped, whole, rest = Inside(stop_at=5), Inside(), Inside()
    with pytest.raises(KeyboardInterrupt):
        searched(frozen, stopped, Store(tmp_path / "s.sqlite"), 1)
    at_once = searched(frozen, whole, Store(None), 1)
    assert searched(frozen, rest, Store(tmp_path / "s.sqlite"), 1) == at_once
    assert stopped.calls + rest.calls == whole.calls == len(at_once) <= 20
    assert any(row.failed for row in at_once) and not all(row.failed for row in at_once)
    assert [row.place for row in searched(frozen, Inside(), Store(None), 2)] != [row.place for row in at_once]


@pytest.mark.slow  # a cluster starts, and two processes that import PyTorch
def test_ray_gives_equal_rows(frozen: FrozenModel) -> None:
    """A local cluster with two workers: breaks when an outcome depends on where it was computed."""
    pytest.importorskip("ray")
    places = grid([axis("mxu.rows", "16..64"), axis("sram.bytes", "64,1MiB")])
    engine = OnRay(2)
    try:
        there = Runner(engine, Store(None)).measure([workload(frozen)], places, load_chip())
    finally:
        engine.close()
    here = Runner(Inside(), Store(None)).measure([workload(frozen)], places, load_chip())
    assert [replace(row, seconds=0.0) for row in there] == [replace(row, seconds=0.0) for row in here]
