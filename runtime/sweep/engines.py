"""Where points are computed: worker processes here, or a Ray cluster. Each computes one outcome at a time per worker."""

import json
import os
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from isa.files import write_atomic
from runtime.sweep.figures import Outcome
from runtime.sweep.frozen import FrozenModel

WORKER = "worker"  # the kind of an error that says nothing of the point
_ROOT = Path(__file__).parents[2]


class Engine(Protocol):
    """`call` may be used by as many threads at once as there are `workers`."""

    workers: int

    def ready(self) -> None:
        """There will be work: what takes its time may begin."""

    def call(self, model: FrozenModel, chip: str) -> Outcome: ...

    def close(self) -> None: ...


class Local:
    """Processes of this machine, started when they are needed."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._folder = tempfile.TemporaryDirectory(prefix="llmchip-sweep-")
        self._files: dict[str, str] = {}
        self._free: queue.LifoQueue[subprocess.Popen[str] | None] = queue.LifoQueue()
        self._all: list[subprocess.Popen[str]] = []
        self._lock = threading.Lock()
        for _ in range(workers):
            self._free.put(None)

    def ready(self) -> None:
        """Start all workers: importing PyTorch takes seconds."""
        there = [self._free.get() for _ in range(self.workers)]
        for process in there:
            self._free.put(process or self._start())

    def call(self, model: FrozenModel, chip: str) -> Outcome:
        """One that dies costs its own point only."""
        process = self._free.get()
        try:
            if process is None or process.poll() is not None:
                process = self._start()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(json.dumps({"model": self._file(model), "chip": chip}) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except OSError:
                line = ""
            if not line:
                what = f"the worker ended with code {process.wait()}"
                process = None
                return {"error": {"kind": WORKER, "what": what, "where": "", "hint": "is there enough memory?"}}
            found: Outcome = json.loads(line)
            return found
        finally:
            self._free.put(process)

    def _start(self) -> "subprocess.Popen[str]":
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # one worker per core is faster
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "runtime.sweep.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **threads, "PYTHONPATH": path},
            start_new_session=True,  # an interrupt is ours to handle
        )
        with self._lock:
            self._all.append(process)
        return process

    def _file(self, model: FrozenModel) -> str:
        """The model, written once for all workers."""
        with self._lock:
            if model.program not in self._files:
                path = Path(self._folder.name) / f"{len(self._files)}.model"
                write_atomic(path, [pickle.dumps(model)])
                self._files[model.program] = str(path)
            return self._files[model.program]

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        with self._lock:
            for process in self._all:
                process.kill()
                process.wait()
                for pipe in filter(None, (process.stdin, process.stdout)):
                    with suppress(OSError):  # a job that was not read
                        pipe.close()
        self._folder.cleanup()
