"""What a launch with new scalars costs, and how fast one row meets packed weights. `python -m benchmarks.bench_kernels`
prints both; the least of many runs, because other work on the machine only adds."""

import ctypes
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any, Final

import numpy as np

from emulator import threads
from emulator.machine import Machine
from emulator.replay import executor
from emulator.replay.executor import MATMUL, PACKED
from emulator.replay.gemm import BLOCK, packed_bytes
from emulator.replay.gemm import WIDTH as ROW_WIDTH
from emulator.replay.rows import FIRST_SLOT, SLOT_WIDTH, WIDTH
from isa.architecture import GIVEN_REGIONS, Dtype, Region
from isa.asm.assemble import assemble

LAYERS: Final = 30
CAPACITY: Final = 1024
HEAD: Final = """
vset v=v1, space=dram, region=params, dtype=i32, base=0x0
sld d=s1, v=v1, off=0x0
salu f=add, d=s2, a=s1, bi, imm=0x1
vset v=v2, space=dram, region=in, dtype=f32, base=0x0
vset v=v3, space=sram, dtype=f32, base=0x0
lda d=v3, a=v2, rows=1, cols=576
"""
LINEAR: Final = """
vset v=v4, space=dram, region=weights, dtype=i8, base={base:#x}, rs=576
vinc v=v4, level=0, inc={layer:#x}
vset v=v5, space=sram, dtype=i8, base=0x100000, rs=576
ldw d=v5, a=v4, rows={n}, cols=576
vset v=v6, space=sram, dtype=i8, base=0x4000
vset v=v7, space=sram, dtype=f32, base=0x5000
vset v=v3, space=sram, dtype=f32, base=0x0
vqd d=v6, s=v7, a=v3, rows=1, cols=576
vset v=v8, space=acc, dtype=i32, base=0x0
mm c=v8, a=v6, w=v5, m=1, n={n}, k=576, wt
vset v=v10, space=sram, dtype=f32, base=0x5000, cs=0
vset v=v9, space=sram, dtype=f32, base=0x6000
vaff d=v9, a=v8, rs=v10, rows=1, cols=576
"""
ROW: Final = """
vset v=v11, space=sram, dtype=f32, base={base:#x}
vset v=v12, space=sram, dtype=f32, base=0x6100
vop f=mul, d=v11, a=v11, b=v12, rows=1, cols=64
"""
ATTENTION: Final = """
vset v=v13, space=dram, region=state, dtype=i8, base=0x0
vinc v=v13, level=0, inc={layer:#x}
vadd v=v13, s=s1, scale=192
sto d=v13, a=v6, rows=1, cols=192
vset v=v15, space=dram, region=state, dtype=i8, base=0x0, rs=192
vinc v=v15, level=0, inc={layer:#x}
vset v=v16, space=sram, dtype=i8, base=0x80000, rs=192
lda d=v16, a=v15, rows=1, cols=192, dyn=rows, dyn_s=s2
vset v=v17, space=acc, dtype=i32, base=0x8000
mm c=v17, a=v6, w=v16, m=1, n=1, k=64, wt, dyn=n, dyn_s=s2
vset v=v18, space=sram, dtype=f32, base=0x8000
vaff d=v18, a=v17, rs=v10, rows=1, cols=1, dyn=cols, dyn_s=s2
"""
TAIL: Final = """
vset v=v21, space=dram, region=out, dtype=f32, base=0x0
sto d=v21, a=v9, rows=1, cols=576
halt code=0x0
"""


def least(work: Callable[[], Any], runs: int) -> float:
    """Seconds of the quickest run."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def decode_program() -> tuple[str, int, int]:
    """Assembly of a decode step of 30 layers, its engine instructions, and bytes of weights."""
    widths, body, base = (576, 576, 576, 576, 1536, 1536, 1536), "", 0
    layer = sum(widths) * 576
    for n in widths:
        body += LINEAR.format(base=base, layer=layer, n=n) + "".join(
            ROW.format(base=0x6000 + 256 * j) for j in range(9)
        )
        base += n * 576
    body += ATTENTION.format(layer=CAPACITY * 192)
    lines = body.split("\n")
    words = [line for line in lines if line]
    engine = sum(not line.startswith(("vset", "vinc", "vadd")) for line in words)
    return f"{HEAD}loop level=0, len={len(words)}, count={LAYERS}\n{body}{TAIL}", LAYERS * engine + 2, LAYERS * layer


def expansion() -> None:
    """A launch with new scalars against one with the same."""
    text, engine, size = decode_program()
    weights = np.random.default_rng(0).integers(0, 255, size, dtype=np.uint8)
    weights.flags.writeable = False
    params, row = np.zeros(16, np.uint8), np.ones(576, np.float32).view(np.uint8)
    regions = {Region.WEIGHTS: weights, Region.PARAMS: params, Region.IN: row, Region.OUT: np.zeros(2304, np.uint8)}
    regions[Region.STATE] = np.zeros(CAPACITY * 192 * LAYERS, np.uint8)
    machine, code = Machine(8 << 20, 1 << 20, regions, GIVEN_REGIONS), assemble(text).code
    position = iter(range(CAPACITY))

    def launch(moves: bool) -> None:
        if moves:
            params.view(np.int32)[0] = next(position)
        machine.run(code)

    for _ in range(3):
        launch(True)
    assert machine._replays is not None and machine._replays._plans is not None
    plans = machine._replays._plans
    (plan,) = plans._plans.values()
    new, same = [], []
    for _ in range(100):
        new.append(least(partial(launch, True), 1))
        same.append(least(partial(launch, False), 1))
    hot = least(lambda: plans._expand(plan, (), 1 << 24), 500)
    print(f"{engine} engine instructions: expanded in {hot * 1e6:.0f} us, {hot / engine * 1e9:.0f} us per 1,000")
    print(f"launch with the same scalars {min(same) * 1e3:.2f} ms, with others {min(new) * 1e3:.2f} ms")
    assert machine.interpreted == 1


def few_rows(m: int, k: int, n: int, workers: int, total: int = 3 << 26) -> tuple[float, float]:
    """Bytes per second of products of m rows with packed weights of `total` bytes, and of a search for a byte that is not
    in them."""
    size = int(packed_bytes(k, n))
    data = np.resize(np.random.default_rng(0).integers(0, 255, size, dtype=np.uint8), total // size * size)
    left, result = np.ones((m, k), np.int8), np.zeros((m, n), np.int32)
    steps = np.zeros((len(data) // size, WIDTH), np.int64)
    for number, step in enumerate(steps):
        step[:6] = MATMUL, 1, m, n, 0, k
        slots = (result.ctypes.data, 0, 4 * n, 4, Dtype.I32), (left.ctypes.data, 0, k, 1, Dtype.I8)
        for slot, values in enumerate(slots):
            step[FIRST_SLOT + slot * SLOT_WIDTH : FIRST_SLOT + (slot + 1) * SLOT_WIDTH] = values
        step[PACKED] = data.ctypes.data + number * size
    libc = ctypes.CDLL(None)
    libc.memchr.argtypes, libc.memchr.restype = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], ctypes.c_void_p
    spaces = [executor.workspace(1, -(-m // BLOCK) * BLOCK, m * (k + 3) * ROW_WIDTH, 1) for _ in range(workers)]
    part = len(data) // workers
    jobs = [partial(libc.memchr, data.ctypes.data + i * part, 255, part) for i in range(workers)]
    ours, read = least(partial(executor.run, steps, spaces), 30), least(partial(threads.run_all, jobs), 30)
    return len(data) / ours, len(data) / read


if __name__ == "__main__":
    expansion()
    for m, (k, n), workers in product((1, 2, 4, 8), ((576, 1536), (4096, 4096)), sorted({1, threads.WORKERS})):
        ours, read = (speed / 1e9 for speed in few_rows(m, k, n, workers))
        print(f"{m} x {k} x {n}, {workers} threads: {ours:.1f} GB/s, read {read:.1f} GB/s, ratio {ours / read:.2f}")
