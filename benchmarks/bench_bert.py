"""What it costs to compile and run BERT-base (random weights, seq 128, batch 1): `python benchmarks/bench_bert.py`.

Prints whole compile (export to image), emulation against PyTorch eager float32 in the same run, and the peak memory of
a process that compiles and of one that only runs the image. Ratios within one run; absolute times are this machine's.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REACH = {"compile_seconds": 60.0, "emulation_over_eager": 4.0, "peak_gib": 3.0}
RUN = """
import json, resource, sys, time, numpy as np, llmchip
program = llmchip.load(sys.argv[1]); inputs = {s.name: np.ones(s.shape, s.dtype) for s in program.inputs}
times = []
for _ in range(int(sys.argv[2])):
    start = time.perf_counter(); program(**inputs); times.append(time.perf_counter() - start)
print(json.dumps({"first": times[0], "times": times[2:], "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""


def main(runs: int = 7) -> int:
    import torch
    from transformers import BertConfig, BertModel

    import llmchip

    model = BertModel(BertConfig()).eval()
    given = {"input_ids": torch.ones(1, 128, dtype=torch.long), "attention_mask": torch.ones(1, 128, dtype=torch.long)}
    start = time.perf_counter()
    program = llmchip.compile(model, given)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bert.llmchip"
        program.save(path)
        compiled = time.perf_counter() - start
        compiling_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with torch.no_grad():
            eager = [_timed(lambda: model(**given)) for _ in range(runs)]
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(path), str(runs + 2)], capture_output=True, text=True, check=True
        )
    ran = json.loads(done.stdout)
    figures = {
        "compile_seconds": compiled,
        "emulation_over_eager": statistics.median(ran["times"]) / statistics.median(eager[1:]),
        "first_launch_over_eager": ran["first"] / statistics.median(eager[1:]),
        "peak_gib": max(compiling_peak, ran["peak"]) / 2**20,
        "peak_running_gib": ran["peak"] / 2**20,
    }
    for name, value in figures.items():
        print(f"{name:26} {value:8.2f}" + (f"   reach {REACH[name]:g}" if name in REACH else ""))
    print(
        f"{torch.get_num_threads()} threads; eager {statistics.median(eager[1:]) * 1000:.0f} ms, emulation {statistics.median(ran['times']) * 1000:.0f} ms"
    )
    return 0 if all(figures[name] <= most for name, most in REACH.items()) else 1


def _timed(call: object) -> float:
    assert callable(call)
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
