"""Points on a Ray cluster: the one that RAY_ADDRESS names, or one of this machine that is started for the sweep."""

import os
import threading
from pathlib import Path
from typing import Any

from isa.errors import InputError
from runtime.sweep.engines import WORKER
from runtime.sweep.figures import Outcome, outcome
from runtime.sweep.frozen import FrozenModel

_ROOT = Path(__file__).parents[2]


class OnRay:
    """A model goes into the cluster's object store once. llmchip must be installed on every machine, or be in a folder
    that all have. Raises InputError without ray."""

    def __init__(self, workers: int) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        try:
            import ray
        except ModuleNotFoundError as error:
            raise InputError(
                "the engine needs Ray", "--engine ray", "pip install 'ray>=2.40', or llmchip[ray]"
            ) from error
        self.workers, self._lock = workers, threading.Lock()
        self._ray: Any = ray
        self._task: Any = None  # once there is a cluster
        self._models: dict[str, Any] = {}

    def ready(self) -> None:
        """Join the cluster, or start one."""
        with self._lock:
            if self._task is None:
                self._join()

    def _join(self) -> None:
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        env = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        own: dict[str, Any] = (
            {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": self.workers, "include_dashboard": False}
        )
        self._ray.init(logging_level="ERROR", log_to_driver=False, runtime_env={"env_vars": env}, **own)
        self._task = self._ray.remote(outcome)

    def call(self, model: FrozenModel, chip: str) -> Outcome:
        self.ready()
        with self._lock:
            if model.program not in self._models:
                self._models[model.program] = self._ray.put(model)
        try:
            found: Outcome = self._ray.get(self._task.remote(self._models[model.program], chip))
        except self._ray.exceptions.RayError as error:
            what = " ".join(str(error).split())[:200]
            return {"error": {"kind": WORKER, "what": what, "where": "", "hint": "is llmchip on every machine?"}}
        return found

    def close(self) -> None:
        self._ray.shutdown()
