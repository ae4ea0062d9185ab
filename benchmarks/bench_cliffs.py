"""What more instances, more shapes and a buffer that moves cost: ratios measured in one run.
`python -m benchmarks.bench_cliffs [NAME ...]`

instances     twelve compiled instances of one block ÷ the same twelve in one program, CPU time of a call        at most
3
buffer        a call after a small buffer has changed ÷ one without                                             what it
costs to pack it
shapes        resident memory with a hundred input shapes of a 100 MB model ÷ with one                          at most
1.3
calls         the same after nine hundred calls more ÷ before                                                   1: flat
"""

import gc
import sys
import time
from collections.abc import Callable, Iterator

import torch
from torch import nn

import llmchip

SHAPES = 100
RUNS = 5  # of which the least counts


def cpu(call: Callable[[], object]) -> float:
    """CPU seconds of a call: the least of some."""
    times = []
    for _ in range(RUNS):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def resident() -> int:
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def compiled(model: nn.Module) -> Callable[..., torch.Tensor]:
    result: Callable[..., torch.Tensor] = torch.compile(model.eval(), backend=llmchip.backend)
    return result


def instances() -> Iterator[str]:
    layers, x = [nn.Linear(1024, 1024) for _ in range(12)], torch.randn(4, 1024)
    blocks, whole = [compiled(layer) for layer in layers], compiled(nn.Sequential(*layers))
    for _ in range(3):
        [block(x) for block in blocks], whole(x)
    apart, together = cpu(lambda: [block(x) for block in blocks]), cpu(lambda: whole(x))
    yield f"instances  {apart / together:6.2f}   ({1e3 * apart:.1f} ms for twelve blocks, {1e3 * together:.1f} ms in one program)"


class Stepping(nn.Module):
    """Twelve million weights and a thousand numbers that move."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(12)))
        self.register_buffer("step", torch.zeros(1024))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(x) + self.step
        return result


def buffer() -> Iterator[str]:
    model, x = Stepping(), torch.randn(4, 1024)
    call = compiled(model)
    for _ in range(3):
        call(x)
    still = cpu(lambda: call(x))
    for how in ("in place", "replaced"):

        def moved(how: str = how) -> object:
            model.step = model.step.add_(1) if how == "in place" else model.step + 1
            return call(x)

        moved()
        moving = cpu(moved)
        yield f"buffer     {moving / still:6.2f}   ({1e3 * moving:.1f} ms with a buffer that is {how}, {1e3 * still:.1f} ms without)"


def shapes() -> Iterator[str]:
    model = nn.Sequential(*(layer for _ in range(6) for layer in (nn.Linear(2048, 2048), nn.ReLU())))
    call = compiled(model)
    inputs = [torch.randn(rows, 2048) for rows in range(2, 2 + SHAPES)]
    call(inputs[0]), call(inputs[0])
    one = resident()
    for number, x in enumerate(inputs):
        call(x), call(x)
        if number + 1 in (SHAPES // 10, SHAPES // 2, SHAPES):
            now = resident()
            yield f"shapes     {now / one:6.2f}   ({number + 1} shapes: {now >> 20} MiB, one: {one >> 20} MiB; {llmchip.packed_weights()})"
    for _ in range(9):
        for x in inputs:
            call(x)
    later = resident()
    yield f"calls      {later / now:6.3f}   ({later >> 20} MiB after {9 * SHAPES} calls more)"


PARTS: dict[str, Callable[[], Iterator[str]]] = {"instances": instances, "buffer": buffer, "shapes": shapes}


def main() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for name in sys.argv[1:] or PARTS:
            torch._dynamo.reset()
            for line in PARTS[name]():
                print(line, flush=True)


if __name__ == "__main__":
    main()
