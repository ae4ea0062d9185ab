"""What people wait for with SmolLM2: a step of the emulation beside one of PyTorch, and the compiler.

    python -m benchmarks.llm_host NAME THREADS RUNS        one measurement in its own process, prints a JSON object

Emulation and PyTorch take turns, so that whatever else the machine does hits both; a ratio is the median of the ratios
of neighbours. Beside the wall clock stands the processor time of all threads.
"""

import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.llm_models import dequantized, shaped, smollm2
from benchmarks.measure import timed
from compiler.entries import compile_entries
from compiler.frontend.capture import Captured
from compiler.frontend.decoder import capture_decoder
from compiler.lower import lower
from compiler.options import Options
from compiler.pipeline import finish
from isa.chip import load_chip
from isa.image.steps import TOKENS, scalar
from runtime.device.executable import Executable

Row = dict[str, Any]
CAPACITY, PROMPT = 1280, 256
CONTEXTS = (16, 1000)
WARM = 2  # steps that nobody counts, as the issue allows


def emulation(weights: str, runs: int) -> Row:
    """Decode steps at two contexts and a prompt, ÷ the same in PyTorch eager float32 over a static cache."""
    from transformers import StaticCache

    model = smollm2()
    eager = dequantized(model)
    steps = {"prefill": PROMPT, "decode": 1}
    source = model if weights == "gguf" else eager
    image = compile_entries(
        {name: capture_decoder(source, 1, count, CAPACITY) for name, count in steps.items()}
    ).image()
    chip = Executable(image)
    ids = np.random.default_rng(0).integers(100, 40000, (1, CAPACITY)).astype(np.int32)

    def launch(entry: str, at: int) -> None:
        chip({TOKENS: ids[:, at : at + steps[entry]]}, entry=entry, scalars={scalar(0): at})

    cache = StaticCache(config=eager.config, max_cache_len=CAPACITY)
    wide = torch.from_numpy(ids).long()

    def float_step(at: int, count: int) -> None:
        with torch.no_grad():
            places = torch.arange(at, at + count)
            eager(wide[:, at : at + count], past_key_values=cache, position_ids=places[None])

    def float_prompt() -> None:
        with torch.no_grad():
            eager(wide[:, :PROMPT], use_cache=False)

    def decode(at: int, number: int) -> None:
        launch("decode", at + number)

    def float_decode(at: int, number: int) -> None:
        float_step(at + number, 1)

    found: Row = {}
    for start in range(0, 1024, PROMPT):
        launch("prefill", start)
        float_step(start, PROMPT)
    found["prefill"] = _pairs(lambda _: launch("prefill", 0), lambda _: float_prompt(), max(3, runs // 3))
    for context in CONTEXTS:
        cache.reset()  # it counts its tokens itself
        for start in range(0, context, PROMPT):
            float_step(start, min(PROMPT, context - start))
        found[f"decode at {context:,}"] = _pairs(partial(decode, context), partial(float_decode, context), runs)
    return found


def _pairs(ours: Callable[[int], None], theirs: Callable[[int], None], runs: int) -> Row:
    pairs = [(timed(partial(ours, n)), timed(partial(theirs, n))) for n in range(WARM + runs)][WARM:]
    return {
        "ratio": statistics.median(a[0] / b[0] for a, b in pairs),
        "cpu_ratio": statistics.median(a[1] / b[1] for a, b in pairs),
        "milliseconds": 1e3 * statistics.median(a[0] for a, _ in pairs),
        "eager_milliseconds": 1e3 * statistics.median(b[0] for _, b in pairs),
        "slowest_ratio": max(a[0] / b[0] for a, b in pairs),
    }


def compiling(weights: str, _runs: int) -> Row:
    """Prefill of 256 and decode from captured steps to an image, in seconds, and the most memory from capture on beyond
    what the process had before there was a model, ÷ the weights of its image."""
    before = _status("VmRSS")
    model = smollm2()
    if weights != "gguf":
        model = dequantized(model)
    own = sum(t.nbytes for t in {id(t): t for t in (*model.parameters(), *model.buffers())}.values())
    start = time.perf_counter()
    captured = {
        name: capture_decoder(model, 1, count, CAPACITY) for name, count in (("prefill", PROMPT), ("decode", 1))
    }
    exported = time.perf_counter() - start
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    wall, cpu = time.perf_counter(), time.process_time()
    image = compile_entries(captured).image()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = _status("VmHWM") - before
    packed = len(image.weights) + len(image.const)
    return {
        "seconds": wall, "cpu_seconds": cpu, "export_seconds": exported, "peak_bytes": peak,
        "image_bytes": packed, "weight_bytes": own, "ratio": peak / own,
    }  # fmt: skip


def _compile(captured: Captured) -> None:
    finish(lower(captured), Options(), load_chip("edge"))


def layers(_runs: int) -> Row:
    """Lowering and compiling the decode step of a Llama's shape without weights: 32 layers ÷ 4 layers. They take turns,
    and the least time of each counts."""
    captured = {n: capture_decoder(shaped("SmolLM2", num_hidden_layers=n), 1, 1, 1024) for n in (4, 32)}
    times: dict[int, list[tuple[float, float]]] = {4: [], 32: []}
    for count in (4, 32) * 4:
        gc.collect()
        times[count].append(timed(partial(_compile, captured[count])))
    least = {n: [min(column) for column in zip(*found, strict=True)] for n, found in times.items()}
    return {
        "ratio": least[32][0] / least[4][0],
        "cpu_ratio": least[32][1] / least[4][1],
        "seconds": least[32][0],
        "few_seconds": least[4][0],
    }


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


MEASUREMENTS: Mapping[str, Callable[[int], Row]] = {
    "emulation-w8a8": partial(emulation, "w8a8"),
    "emulation-gguf": partial(emulation, "gguf"),
    "compile-w8a8": partial(compiling, "w8a8"),
    "compile-gguf": partial(compiling, "gguf"),
    "layers": layers,
}


def main() -> None:
    name, threads, runs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    print(json.dumps(MEASUREMENTS[name](runs)))


if __name__ == "__main__":
    main()
