"""How compile time, emulation time and memory grow with the model: curves, and the exponent of each.

    python -m benchmarks.growth            everything (long); one point is `python -m benchmarks.growth layers 12`
"""

import json
import math
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

AXES: dict[str, tuple[int, ...]] = {
    "layers": (1, 2, 4, 8, 12, 24, 48),
    "sequence": (16, 32, 64, 128, 256, 512),
    "batch": (1, 2, 4, 8, 16, 32),
    "hidden": (128, 256, 512, 1024, 2048),
}
USUAL = {"layers": 2, "sequence": 128, "batch": 1, "hidden": 256}
FIGURES = ("compile_seconds", "emulation_milliseconds", "peak_bytes")
RESULTS = Path(__file__).parent / "results"


def point(axis: str, value: int) -> dict[str, float]:
    """CPU time of compiling (passes and packing) and of a launch by plan, and the process's peak memory."""
    os.environ["LLMCHIP_CACHE"] = os.environ.get("LLMCHIP_CACHE", "off")
    from benchmarks.measure import bert, inputs, timed
    from compiler.frontend.capture import capture
    from compiler.pipeline import compile_captured
    from runtime.executable import Executable

    size = {**USUAL, axis: value}
    given = inputs(size["batch"], size["sequence"])
    captured = capture(bert(size["layers"], size["hidden"]), (), given)
    made: list[Any] = []
    seconds = timed(lambda: made.append(compile_captured(captured).image()))[1]
    device, arrays = Executable(made[0]), {name: tensor.numpy() for name, tensor in given.items()}
    for _ in range(2):
        device(arrays)
    launch = min(timed(lambda: device(arrays))[1] for _ in range(5))
    return dict(zip(FIGURES, (seconds, 1e3 * launch, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0), strict=True))


def exponent(xs: list[float], ys: list[float]) -> float:
    """Slope of the least-squares line through the upper half of the points, both axes logarithmic."""
    half = max(2, (len(xs) + 1) // 2)
    u, v = [math.log(x) for x in xs[-half:]], [math.log(max(y, 1e-9)) for y in ys[-half:]]
    mean_u, mean_v = sum(u) / half, sum(v) / half
    return sum((a - mean_u) * (b - mean_v) for a, b in zip(u, v, strict=True)) / sum((a - mean_u) ** 2 for a in u)


def curve(values: list[float]) -> str:
    """The points as bars, on a logarithmic scale."""
    low, high = math.log(min(values)), math.log(max(values))
    return "".join("▁▂▃▄▅▆▇█"[round(7 * (math.log(v) - low) / (high - low or 1))] for v in values)


def main(threads: int = 1) -> None:
    found: dict[str, dict[str, dict[str, float]]] = {}
    lines = [f"Two layers of hidden size 256, 128 tokens, batch 1, and one of these at a time; {threads} thread(s); CPU time.", ""]
    for axis, values in AXES.items():
        found[axis] = {}
        for value in values:
            limits = dict.fromkeys(("OMP_NUM_THREADS", "LLMCHIP_THREADS"), str(threads))
            command = [sys.executable, "-m", "benchmarks.growth", axis, str(value)]
            done = subprocess.run(command, env={**os.environ, **limits}, capture_output=True, text=True, check=True)
            found[axis][str(value)] = json.loads(done.stdout.strip().splitlines()[-1])
            print(axis, value, found[axis][str(value)], file=sys.stderr, flush=True)
        lines += [f"| {axis} | " + " | ".join(map(str, values)) + " | curve | exponent |", "|---|" + "---|" * (len(values) + 2)]
        for figure in FIGURES:
            ys = [found[axis][str(value)][figure] for value in values]
            shown = " | ".join(f"{y / 2**20:.0f} MiB" if figure == "peak_bytes" else f"{y:.2f}" for y in ys)
            lines.append(f"| {figure.replace('_', ' ')} | {shown} | {curve(ys)} | {exponent([float(v) for v in values], ys):.2f} |")
        lines.append("")
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "growth.json").write_text(json.dumps(found, indent=1) + "\n")
        (RESULTS / "growth.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(point(sys.argv[1], int(sys.argv[2]))))
    else:
        main()
