"""How near the compiled programs come to the speed of light: `make bench-chip` prints the table and stores it.

    python benchmarks/bench_chip.py                      all cases, each optimisation also switched off
    python benchmarks/bench_chip.py --only 'minilm*'     some; the stored figures of the others stay
    python benchmarks/bench_chip.py --plain              only the full compiler

Everything is deterministic. Weights are random and never packed: neither the program nor its timing depends on them.
"""

import argparse
import gc
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import BertConfig, BertModel

from benchmarks.history import History
from compiler.codegen.image import debug_map, region_sizes
from compiler.codegen.program import generate
from compiler.frontend.capture import capture
from compiler.lower import Lowered, lower
from compiler.options import OPTIMISATIONS, Options
from compiler.pipeline import Compiled, finish
from compiler.schedule.addresses import place
from compiler.tile.manager import TileManager
from compiler.tiling import kernel_state, search
from emulator.timing.simulate import simulate
from isa.architecture import Region
from isa.chip import load_chip
from isa.errors import CompileError
from isa.files import write_atomic
from isa.image.image import Image
from runtime.profile.profile import Profile, profile
from runtime.version import __version__

RESULTS = Path(__file__).parent / "results"
BERTS = {
    "bert-base": {},
    "bert-large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
}  # fmt: skip
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A model at one shape, on one chip, and the part of the limit that it must reach."""

    model: str
    seq: int
    batch: int
    chip: str
    target: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.model} {self.seq}x{self.batch} {self.chip}"


CASES = (
    Case("bert-base", 128, 1, "edge", 0.88),
    Case("bert-base", 128, 1, "server", 0.85),
    Case("bert-base", 384, 1, "edge", 0.90),
    Case("bert-base", 384, 8, "edge", 0.92),
    Case("bert-large", 512, 1, "edge", 0.88),
    Case("bert-large", 512, 1, "server", 0.88),
    Case("minilm", 128, 1, "edge", 0.70),
    Case("minilm", 128, 1, "server", 0.70),
    Case("gemm", 4096, 1, "edge", 0.97),
    Case("gemm", 4096, 1, "server", 0.97),
    Case("linear", 4096, 1, "edge"),
    Case("linear", 4096, 1, "server"),
)


class _Gemm(nn.Module):
    """int8 times int8, int32 sums: both operands come from DRAM at run time."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch._int_mm(a, b)


def lowered(case: Case) -> Lowered:
    """The frozen graph; the chip has no part in it."""
    torch.manual_seed(0)
    if case.model == "gemm":
        pair = [torch.randint(-128, 128, (case.seq, case.seq), dtype=torch.int8) for _ in range(2)]
        return lower(capture(_Gemm().eval(), tuple(pair)))
    if case.model == "linear":
        return lower(
            capture(nn.Linear(case.seq, case.seq, bias=False).eval(), (torch.randn(case.batch * case.seq, case.seq),))
        )
    model = BertModel._from_config(BertConfig(**BERTS[case.model])).eval()
    return lower(capture(model, (), {"input_ids": torch.randint(5, 20000, (case.batch, case.seq))}))


def measure(graph: Lowered, case: Case, without: tuple[str, ...], history: History | None = None) -> Row:
    """Compile and time. A program that does not fit the chip without an optimisation says so. `history` is told of the
    program."""
    start, chip = time.perf_counter(), load_chip(case.chip)
    try:
        compiled = finish(graph, Options(chip=case.chip, disable=without), chip)
        report = profile(image_of(compiled), compiled)
        row = _figures(compiled, report)
        what = f"{row['cycles']:,} cycles, {row['words']:,} instructions, reach {row['reach']:.3f}"
    except CompileError as error:
        row = {"failed": error.what}
        what = error.what
        report = None
    print(
        f"{case.name}{''.join(f' without {name}' for name in without)}: {what} ({time.perf_counter() - start:.0f} s)",
        flush=True,
    )
    if report is not None and history is not None:
        history.add(case.name, report)
    return row


def _figures(compiled: Compiled, report: Profile) -> Row:
    limit, timeline, parts = report.limit, report.timeline, report.waterfall
    assert sum(parts.values()) == timeline.cycles >= limit.cycles
    energy = report.activity.totals()
    height, bound = compiled.placement.heights["sram"]
    return {
        "limit_cycles": limit.cycles,
        "limit_resource": limit.resource,
        "limits": dict(limit.by_resource),
        "cycles": timeline.cycles,
        "microseconds": round(timeline.seconds * 1e6, 3),
        "reach": round(limit.cycles / timeline.cycles, 4),
        "words": len(compiled.code.instructions),
        "executed_words": len(timeline.instructions),
        "dram_bytes": int(timeline.bytes.sum()),
        "sram_bytes": height,
        "sram_lower_bound": bound,
        "waterfall": parts,
        "energy_joules": {name: float(f"{value:.6g}") for name, value in energy.items()},
        "total_joules": float(f"{sum(energy.values()):.6g}"),
    }


def image_of(compiled: Compiled) -> Image:
    """The program without its weights: timing reads none."""
    sizes = region_sizes(compiled.tiled, compiled.placement)
    debug = debug_map(compiled.tiled, compiled.code, compiled.lowered.captured.modules())
    return Image(
        code=compiled.code.bytes, sizes=tuple(sizes[region] for region in Region), debug=debug, chip=compiled.chip
    )


def run(cases: tuple[Case, ...], plain: bool) -> Iterator[tuple[Case, Row]]:
    """Each case with its figures, and under `without` those with an optimisation off."""
    known: dict[tuple[str, int, int], Lowered] = {}
    history = History(RESULTS / "chip-history.jsonl")
    for case in cases:
        key = case.model, case.seq, case.batch
        if key not in known:
            known.clear()
            gc.collect()  # one model's weights at a time
            known[key] = lowered(case)
        row = measure(known[key], case, (), history)
        row["target"] = case.target
        row["promises"] = predictions(known[key], case)
        row["without"] = {} if plain else {name: measure(known[key], case, (name,)) for name in OPTIMISATIONS}
        yield case, row


def predictions(graph: Lowered, case: Case) -> list[tuple[int, int]]:
    """For every tiling that the search tries: the cycles that its schedule predicts, and those of the timing mode.
    Those that find no memory are left out."""
    chip = load_chip(case.chip)
    found = []
    start = kernel_state(graph, Options(), chip, TileManager())
    for candidate in search(start, lambda name: True).candidates():
        assert candidate.schedule is not None
        try:
            placement = place(candidate.schedule.program, chip, candidate.schedule.times)
        except CompileError:
            continue
        sizes = region_sizes(candidate.tiled, placement)
        code = generate(candidate.schedule.program, placement, chip, sizes)
        image = Image(code=code.bytes, sizes=tuple(sizes[region] for region in Region), chip=chip)
        found.append((candidate.cycles, simulate(image).cycles))
    return found


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float:
    """Spearman's coefficient: the correlation of the ranks (American Journal of Psychology 15, 1904). Ties share their
    mean rank."""
    columns = [np.array(column) for column in zip(*pairs, strict=True)]
    ranks = [(column[:, None] > column).sum(1) + (column[:, None] == column).sum(1) / 2 for column in columns]
    return float(np.corrcoef(*ranks)[0, 1])


def table(rows: Mapping[str, Row]) -> str:
    """The page of results."""
    lines = [
        "# Programs against the speed of light",
        "",
        f"Written by `make bench-chip` (llmchip {__version__}); do not edit. The rules are those of `docs/timing.md`: weights start in DRAM, the limit counts",
        "useful work only. BERT models take `input_ids` alone (no padding, so no mask) and include embeddings and pooler; gemm multiplies two int8",
        "inputs, linear is a Linear with the quantization of its float32 input. On the right, one optimisation switched off",
        "(`--option disable=NAME`): cycles relative to all on.",
        "",
        "| program | limit | by | cycles | reach | target | instructions | SRAM | lower bound | energy | "
        + " | ".join(f"without {n}" for n in OPTIMISATIONS)
        + " |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|---:|" + "---:|" * len(OPTIMISATIONS),
    ]
    return "\n".join([*lines, *(_line(name, row) for name, row in rows.items()), "", *_cost_model(rows)]) + "\n"


def _cost_model(rows: Mapping[str, Row]) -> Iterator[str]:
    """How well the scheduler's prediction, which chooses the tiling, knows the chip."""
    relative = [
        (a / row["limit_cycles"], b / row["limit_cycles"]) for row in rows.values() for a, b in row.get("promises", ())
    ]
    if len(relative) < 3:
        return
    errors = sorted(abs(a / b - 1) for a, b in relative)
    yield "## The cost model"
    yield ""
    yield f"Of all {len(relative)} tilings that the search tried for these programs: cycles predicted by the schedule against cycles of the timing mode, both"
    yield f"relative to the limit. Rank correlation (Spearman) {rank_correlation(relative):.3f}; error {errors[len(errors) // 2]:.1%} in the median,"
    yield f"{errors[-1]:.1%} at worst."


def _line(name: str, row: Row) -> str:
    if "failed" in row:
        return f"| {name} | {row['failed']} |"
    goal = f"{row['target']:.2f}" if row["target"] else "–"
    mark = "" if row["reach"] >= row["target"] else " **(missed)**"
    cells = [
        name,
        f"{row['limit_cycles']:,}",
        row["limit_resource"],
        f"{row['cycles']:,}",
        f"{row['reach']:.3f}{mark}",
        goal,
        f"{row['words']:,}",
        _kib(row["sram_bytes"]),
        _kib(row["sram_lower_bound"]),
        f"{row['total_joules'] * 1e3:.2f} mJ",
        *(_worth(row, row["without"].get(pass_name)) for pass_name in OPTIMISATIONS),
    ]
    return f"| {' | '.join(cells)} |"


def _worth(row: Row, other: Row | None) -> str:
    if other is None:
        return "–"
    if "failed" in other:
        return "does not fit"
    return f"×{other['cycles'] / row['cycles']:.2f} ({other['words']:,} instructions)"


def _kib(count: int) -> str:
    return f"{count / 1024:,.1f} KiB"


def store(rows: Mapping[str, Row]) -> None:
    write_atomic(RESULTS / "chip.json", [(json.dumps(rows, indent=1) + "\n").encode()])
    write_atomic(RESULTS / "chip.md", [table(rows).encode()])


def stored() -> dict[str, Row]:
    path = RESULTS / "chip.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="PATTERN", default="*", help="cases by name, * and ? match")
    parser.add_argument("--plain", action="store_true", help="do not switch optimisations off")
    args = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    chosen = tuple(case for case in CASES if fnmatch(case.name, args.only))
    for case, row in run(chosen, args.plain):
        found = stored() | {case.name: row}
        store({known.name: found[known.name] for known in CASES if known.name in found})
    print("\n" + (RESULTS / "chip.md").read_text(), end="")


if __name__ == "__main__":
    main()
