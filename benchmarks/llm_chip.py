"""Cycles of language models against the limit: steps of decoding and of reading a prompt, on both chips."""

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.llm_models import MIXTRAL, image_without_weights, shaped, smollm2
from compiler.frontend.decoder import capture_decoder, within
from compiler.lower import lower
from compiler.options import Options
from compiler.pipeline import finish
from emulator.timing.simulate import simulate
from emulator.timing.waterfall import CAUSES, waterfall
from isa.chip import load_chip
from isa.image.steps import scalar
from runtime.profile.roofline import speed_of_light
from runtime.pytorch.decoder_image import REACHES

Row = dict[str, Any]
CONTEXTS = {16: (0.95, 0.60), 1024: (0.95, 0.60), 4096: (0.93, 0.60)}  # part of the limit to reach: edge, server
CHIPS = ("edge", "server")


@dataclass(frozen=True)
class Case:
    """One step of a model: so many new tokens of so many sequences, with so many tokens before them."""

    model: str
    weights: str  # w8a8, w4a8-g32 or gguf
    chip: str
    tokens: int
    capacity: int
    lengths: tuple[int, ...]
    target: float = 0.0

    @property
    def name(self) -> str:
        step = f"prefill {self.tokens}" if self.tokens > 1 else "decode"
        at = f"{self.lengths[0]:,}" if len(self.lengths) == 1 else f"{self.lengths[0]}–{self.lengths[-1]:,}"
        batch = "" if len(self.lengths) == 1 else f" x{len(self.lengths)}"
        return f"{self.model} {self.weights} {self.chip} {step}{batch} at {at} of {self.capacity:,}"

    @property
    def graph(self) -> tuple[object, ...]:
        """Cases with the same one are of one graph."""
        return self.model, self.weights, self.tokens, self.capacity, self.reach, len(self.lengths)

    @property
    def reach(self) -> int:
        """The longest sequence of the program that a session would take for these lengths."""
        needed = max(self.lengths) + self.tokens
        short = (reach for reach in REACHES if needed <= reach and 2 * reach <= self.capacity and self.tokens == 1)
        return next(short, self.capacity)


def cases() -> Iterator[Case]:
    """The table of the issue."""
    for weights in ("w8a8", "gguf"):
        for number, chip in enumerate(CHIPS):
            for length, targets in CONTEXTS.items():
                yield Case("SmolLM2", weights, chip, 1, 4608, (length,), targets[number])
    lengths = tuple(10 + 1990 * number // 15 for number in range(16))
    for number, chip in enumerate(CHIPS):
        yield Case("SmolLM2", "w8a8", chip, 1, 2048, lengths, (0.90, 0.0)[number])
    for weights in ("w8a8", "gguf"):
        for chip in CHIPS:
            yield Case("SmolLM2", weights, chip, 512, 1024, (0,), 0.90)
    for capacity in (256, 65536):
        yield Case("SmolLM2", "w8a8", "edge", 1, capacity, (128,))
    for model in ("Llama-3.2-1B", "Llama-2-7B"):
        for weights in ("w8a8", "w4a8-g32"):
            for number, chip in enumerate(CHIPS):
                yield Case(model, weights, chip, 1, 4096, (1024,), (0.95, 0.0)[number])
    for number, chip in enumerate(CHIPS):
        yield Case(MIXTRAL, "w8a8", chip, 1, 4096, (1024,), (0.95, 0.0)[number])


def measure(chosen: list[Case]) -> Iterator[tuple[Case, Row]]:
    """Each case with its figures. What fails says why."""
    graphs: dict[object, Any] = {}
    programs: dict[object, Any] = {}
    for case in sorted(chosen, key=lambda c: (str(c.graph), c.chip)):
        if case.graph not in graphs:
            graphs, programs = {case.graph: _graph(case)}, {}
            gc.collect()
        key = case.chip
        start = time.perf_counter()
        if key not in programs:
            programs = {key: finish(graphs[case.graph], _options(case), load_chip(case.chip))}
        compiled = programs[key]
        seconds = time.perf_counter() - start
        yield case, _figures(case, compiled, graphs[case.graph]) | {"compile_seconds": round(seconds, 2)}


def _options(case: Case) -> Options:
    return Options(chip=case.chip, quantization="w8a8" if case.weights == "gguf" else case.weights)


def _graph(case: Case) -> Any:
    model = smollm2() if case.weights == "gguf" else shaped(case.model)
    captured = capture_decoder(model, len(case.lengths), case.tokens, case.capacity)
    return lower(within(captured, case.reach), _options(case))


def _figures(case: Case, compiled: Any, lowered: Any) -> Row:
    chip = load_chip(case.chip)
    mean = sum(case.lengths) // len(case.lengths)
    limit = speed_of_light(lowered.main.graph, chip, mean)
    values = {scalar(number): length for number, length in enumerate(case.lengths)}
    timeline = simulate(image_without_weights(compiled), values=values)
    parts = dict.fromkeys(CAUSES, 0)
    for share in waterfall(timeline, limit.resource):
        parts[share.cause] += share.cycles
    return {
        "reach": round(limit.cycles / timeline.cycles, 4),
        "cycles": timeline.cycles,
        "limit_cycles": limit.cycles,
        "limit_resource": limit.resource,
        "tokens_per_second": round(len(case.lengths) * case.tokens / timeline.seconds, 2),
        "dram_bytes": int(timeline.bytes.sum()),
        "words": len(compiled.code.instructions),
        "loop": compiled.tiled.program.loop is not None,
        "waterfall": parts,
        "target": case.target,
    }
