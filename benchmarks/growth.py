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
FIGURES = {  # title, factor and unit to show it in
    "compile_seconds": ("compile", 1.0, "s"),
    "emulation_milliseconds": ("emulation", 1.0, "ms"),
    "peak_bytes": ("memory", 2.0**-20, "MiB"),
}
RESULTS = Path(__file__).parent / "results"


def point(axis: str, value: int) -> dict[str, float]:
    """CPU time of compiling (passes and packing) and of a launch by plan, and the process's peak memory."""
    os.environ["LLMCHIP_CACHE"] = "off"
    from benchmarks.measure import bert, inputs, timed
    from compiler.frontend.capture import capture
    from compiler.pipeline import compile_captured
    from runtime.device.executable import Executable

    size = {**USUAL, axis: value}
    given = inputs(size["batch"], size["sequence"])
    captured = capture(bert(size["layers"], size["hidden"]), (), given)
    made: list[Any] = []
    seconds = timed(lambda: made.append(compile_captured(captured).image()))[1]
    device, arrays = Executable(made[0]), {name: tensor.numpy() for name, tensor in given.items()}
    for _ in range(2):
        device(arrays)
    launch = min(timed(lambda: device(arrays))[1] for _ in range(5))
    return dict(
        zip(FIGURES, (seconds, 1e3 * launch, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0), strict=True)
    )


def exponent(xs: list[float], ys: list[float]) -> float:
    """Slope of the least-squares line through the upper half of the points, both axes logarithmic."""
    half = max(2, (len(xs) + 1) // 2)
    u, v = [math.log(x) for x in xs[-half:]], [math.log(max(y, 1e-9)) for y in ys[-half:]]
    mean_u, mean_v = sum(u) / half, sum(v) / half
    return sum((a - mean_u) * (b - mean_v) for a, b in zip(u, v, strict=True)) / sum((a - mean_u) ** 2 for a in u)


Found = dict[str, dict[str, dict[str, float]]]


def table(found: Found, threads: int) -> str:
    lines = [
        f"Two layers of hidden size 256, 128 tokens, batch 1, and one of these at a time; {threads} thread(s); CPU time.",
        "The exponent is the slope of the upper half of the points, both axes logarithmic: 1 is linear.",
        "",
    ]
    for axis, points in found.items():
        lines += [f"| {axis} | " + " | ".join(points) + " | exponent |", "|---|" + "---|" * (len(points) + 1)]
        for figure, (title, scale, unit) in FIGURES.items():
            ys = [entry[figure] for entry in points.values()]
            shown = " | ".join(f"{y * scale:.0f}" if y * scale >= 100 else f"{y * scale:.2g}" for y in ys)
            lines.append(f"| {title}, {unit} | {shown} | {exponent([float(v) for v in points], ys):.2f} |")
        lines.append("")
    return "\n".join(lines)


def draw(found: Found, path: Path) -> None:
    """All curves: a column per axis, a row per figure, logarithmic both ways, with a line of slope 1 to compare
    with."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "growth"  # the same figures give the same file
    from matplotlib import pyplot

    figure, plots = pyplot.subplots(
        len(FIGURES), len(found), figsize=(3.2 * len(found), 2.6 * len(FIGURES)), layout="constrained", squeeze=False
    )
    for column, (axis, points) in enumerate(found.items()):
        xs = [float(value) for value in points]
        for row, (name, (title, scale, unit)) in enumerate(FIGURES.items()):
            ys, plot = [entry[name] * scale for entry in points.values()], plots[row][column]
            plot.loglog(xs, ys, "o-", color="#2a6f97")
            plot.loglog(xs, [ys[-1] * x / xs[-1] for x in xs], ":", color="#999999")
            plot.set_xticks(xs, list(points))
            plot.minorticks_off()
            plot.set_title(f"exponent {exponent(xs, ys):.2f}", fontsize=9)
            if row == len(FIGURES) - 1:
                plot.set_xlabel(axis)
            if column == 0:
                plot.set_ylabel(f"{title}, {unit}")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main(threads: int = 1) -> None:
    found: Found = {}
    for axis, values in AXES.items():
        for value in values:
            limits = dict.fromkeys(("OMP_NUM_THREADS", "LLMCHIP_THREADS"), str(threads))
            command = [sys.executable, "-m", "benchmarks.growth", axis, str(value)]
            done = subprocess.run(
                command,
                env={**os.environ, **limits},
                capture_output=True,
                text=True,
                check=True,
                cwd=Path(__file__).parents[1],
            )
            found.setdefault(axis, {})[str(value)] = json.loads(done.stdout.strip().splitlines()[-1])
            print(axis, value, found[axis][str(value)], file=sys.stderr, flush=True)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "growth.json").write_text(json.dumps(found, indent=1) + "\n")
        (RESULTS / "growth.md").write_text(f"![growth](growth.svg)\n\n{table(found, threads)}")
    draw(found, RESULTS / "growth.svg")
    print(table(found, threads))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(point(sys.argv[1], int(sys.argv[2]))))
    else:
        main()
