"""How fast the tools are for the person who waits: `make bench-host` prints the table and stores it under
benchmarks/results/.

python -m benchmarks.bench_host [--threads 1,2] [--runs N] [--only NAME] [--growth]
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import MEASUREMENTS

RESULTS = Path(__file__).parent / "results"
Figures = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """One line of the table: which measurement, which of its figures, and what it must reach."""

    title: str
    measurement: str
    figure: Callable[[Figures], float]
    reach: float
    unit: str = ""
    detail: Callable[[Figures], str] = lambda found: ""


def _times(found: Figures) -> str:
    cpu = f"CPU {found['cpu_milliseconds']:.0f} / {found['eager_cpu_milliseconds']:.0f} ms"
    return f"{cpu}, wall {found['milliseconds']:.0f} / {found['eager_milliseconds']:.0f} ms"


def _speeds(found: Figures) -> str:
    return f"{found['bytes_per_second'] / 1e9:.1f} / {found['read_bytes_per_second'] / 1e9:.1f} GB/s"


LINES = (
    Line("BERT-base seq 128 batch 1, emulation ÷ eager", "base-128-1", lambda f: f["cpu_ratio"], 1.0, "", _times),
    Line("… without numba", "base-128-1-numpy", lambda f: f["cpu_ratio"], float("inf"), "", _times),
    Line("BERT-base seq 128 batch 8", "base-128-8", lambda f: f["cpu_ratio"], 1.0, "", _times),
    Line("BERT-base seq 512 batch 1", "base-512-1", lambda f: f["cpu_ratio"], 1.2, "", _times),
    Line("MiniLM seq 128 batch 1", "minilm-128-1", lambda f: f["cpu_ratio"], 1.2, "", _times),
    Line("… without numba", "minilm-128-1-numpy", lambda f: f["cpu_ratio"], float("inf"), "", _times),
    Line(
        "BERT-base: compile after export (CPU)",
        "compile",
        lambda f: f["cold"][1],
        8,
        "s",
        lambda f: f"wall {f['cold'][0]:.1f} s",
    ),
    Line(
        "second compile, from the cache (CPU)",
        "compile",
        lambda f: f["warm"][1],
        2,
        "s",
        lambda f: f"wall {f['warm'][0]:.1f} s",
    ),
    Line(
        "first call without Dynamo and AOT ÷ inductor's",
        "first-call",
        lambda f: f["ratio"],
        0.5,
        "",
        lambda f: f"{f['seconds']:.1f} / {f['inductor_seconds']:.1f} s",
    ),
    Line(
        "compile 24 layers ÷ 12 layers (CPU)",
        "layers",
        lambda f: f["cpu_ratio"],
        1.3,
        "",
        lambda f: f"wall {f['ratio']:.2f}",
    ),
    Line(
        "peak memory of compiling to a file ÷ float weights",
        "compile-memory",
        lambda f: f["ratio"],
        2,
        "",
        lambda f: f"{f['bytes'] >> 20} / {f['weight_bytes'] >> 20} MiB, the model's own weights included",
    ),
    Line(
        "peak memory of running ÷ image",
        "memory",
        lambda f: f["ratio"],
        6,
        "",
        lambda f: f"{f['bytes'] >> 20} / {f['image_bytes'] >> 20} MiB",
    ),
    Line("torch.compile call beyond the emulation", "overhead", lambda f: f["milliseconds"], 2, "ms"),
    Line("one row × 576 × 1536, time ÷ a plain read", "vector-576-1536", lambda f: f["ratio"], 1.25, "", _speeds),
    Line("one row × 4096 × 4096, time ÷ a plain read", "vector-4096-4096", lambda f: f["ratio"], 1.25, "", _speeds),
)


def measure(name: str, threads: int, runs: int) -> Figures:
    """In a process of its own, with its own thread limits."""
    limits = dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LLMCHIP_THREADS"), str(threads)
    )
    command = [sys.executable, "-m", "benchmarks.measure", name, str(threads), str(runs)]
    done = subprocess.run(
        command, env={**os.environ, **limits}, capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    found: Figures = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def table(found: dict[str, dict[str, Figures]], runs: int) -> str:
    """One column per number of threads; details are those of the first."""
    counts = sorted(found, key=int)
    columns = [f"{count} thread{'s' if count != '1' else ''}" for count in counts]
    lines = [
        f"Threads: {' and '.join(counts)}, for PyTorch and for the emulator alike.",
        f"Median of {runs} pairs; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.",
        f"{platform.platform()}, Python {platform.python_version()}. Ratios are of CPU time, which other jobs disturb least; wall clock beside them.",
        "PyTorch's threads wait for each other actively: on a busy machine eager with two threads takes much longer, CPU time included, and ratios flatter.",
        "",
        f"| figure | {' | '.join(columns)} | reach | detail |",
        "|---|" + "---|" * (len(columns) + 2),
    ]
    for line in LINES:
        figures = {count: found[count][line.measurement] for count in counts if line.measurement in found[count]}
        if not figures:
            continue
        values = {count: line.figure(entry) for count, entry in figures.items()}
        cells = [f"{values[count]:.2f} {line.unit}".strip() if count in values else "" for count in counts]
        met = "yes" if all(value <= line.reach for value in values.values()) else "NO"
        reach = "" if line.reach == float("inf") else f"≤ {line.reach:g} {line.unit} {met}".replace("  ", " ")
        details = "; ".join(dict.fromkeys(filter(None, (line.detail(entry) for entry in figures.values()))))
        lines.append(f"| {line.title} | {' | '.join(cells)} | {reach} | {details} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", default="1,2", help="numbers of threads to measure with, separated by commas")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--only", action="append", choices=sorted(MEASUREMENTS))
    parser.add_argument(
        "--growth", action="store_true", help="curves over layers, sequence, batch and hidden size (long)"
    )
    given = parser.parse_args()
    counts = given.threads.split(",")
    if given.growth:
        from benchmarks.growth import main as growth

        growth(int(counts[0]))
        return
    path = RESULTS / "host.json"
    found: dict[str, dict[str, Figures]] = (
        json.loads(path.read_text())["figures"] if given.only and path.exists() else {}
    )
    RESULTS.mkdir(exist_ok=True)
    for count in counts:
        for name in given.only or MEASUREMENTS:
            print(f"{name}, {count} thread(s) …", file=sys.stderr, flush=True)
            found.setdefault(count, {})[name] = measure(name, int(count), given.runs)
            path.write_text(json.dumps({"runs": given.runs, "figures": found}, indent=1) + "\n")
    text = table(found, given.runs)
    (RESULTS / "host.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
