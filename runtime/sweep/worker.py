"""A worker process: jobs come in as lines of JSON, outcomes go out as lines of JSON.

    python -m runtime.sweep.worker        {"model": "/tmp/.../0.model", "chip": "..."}   →   {"cycles": ...}

It ends when its input does, so that none is left behind by a sweep that was killed.
"""

import gc
import json
import os
import pickle
import sys
from functools import lru_cache
from pathlib import Path

from runtime.sweep.figures import outcome
from runtime.sweep.frozen import FrozenModel


@lru_cache(maxsize=2)
def read_model(path: str) -> FrozenModel:
    """The sweep's own file, in a folder that only its user can write to."""
    model: FrozenModel = pickle.loads(Path(path).read_bytes())
    gc.collect()
    gc.freeze()  # the model and all modules are looked through at every collection otherwise: 15 % of a point's time
    gc.set_threshold(100_000, 20, 50)  # what a search makes lives as long as the search: another tenth
    return model


def main() -> None:
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what anyone prints is not an outcome
    for line in sys.stdin:
        job = json.loads(line)
        out.write(json.dumps(outcome(read_model(job["model"]), job["chip"])) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
