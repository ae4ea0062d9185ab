"""What less memory, a smaller array or a slower bus costs: BERT-base with 128 tokens on variants of edge.
`make bench-memory` writes the table.

The limit is that of each variant (docs/timing.md): it counts what a memory too small for a product must read again.
Compile times are processor seconds relative to that of edge itself, measured in the same run.
"""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from benchmarks.bench_chip import RESULTS, Case, Row, image_of, lowered
from compiler.lower import Lowered
from compiler.options import Options
from compiler.pipeline import finish
from emulator.timing.simulate import simulate
from isa.chip import Chip, Mxu, Sram, load_chip
from isa.files import write_atomic
from runtime.profile.roofline import speed_of_light
from runtime.version import __version__

CASE = Case("bert-base", 128, 1, "edge")
MIB = 1 << 20
EDGE = load_chip("edge")
RUNS = 3  # of which the least time counts
SLACK = 0.02  # more of anything may be slower by this much


@dataclass(frozen=True)
class Variant:
    """One chip of a series in which something grows."""

    series: str
    name: str
    chip: Chip
    target: float = 0.0


def _with(**fields: object) -> Chip:
    return msgspec.structs.replace(EDGE, name="variant", **fields)


def variants() -> Iterator[Variant]:
    """Series, each from less to more."""
    targets = {4.0: 0.90, 2.0: 0.85, 1.0: 0.70}
    for size in (0.25, 0.5, 1.0, 1.5, 2.0, 4.0, 8.0):
        yield Variant("SRAM", f"{size:g} MiB", _with(sram=Sram(int(size * MIB))), targets.get(size, 0.0))
    for side in (32, 64, 128, 256):
        yield Variant(
            "array",
            f"{side}x{side}",
            _with(mxu=Mxu(rows=side, cols=side, weight_rows_per_cycle=EDGE.mxu.weight_rows_per_cycle)),
        )
    for share in (4, 2, 1):
        rate = EDGE.dram.bytes_per_second // share
        yield Variant(
            "bandwidth", f"{rate / 1e9:g} GB/s", _with(dram=msgspec.structs.replace(EDGE.dram, bytes_per_second=rate))
        )


def measure(graph: Lowered, variant: Variant) -> Row:
    """Cycles, the limit of this chip, and processor seconds from the frozen graph to instructions."""
    seconds = math.inf
    for _ in range(RUNS):
        start = time.process_time()
        compiled = finish(graph, Options(), variant.chip)
        seconds = min(seconds, time.process_time() - start)
    timeline, bound = simulate(image_of(compiled)), speed_of_light(graph.main.graph, variant.chip)
    row = {
        "series": variant.series,
        "name": variant.name,
        "target": variant.target,
        "limit": bound.cycles,
        "by": bound.resource,
        "cycles": timeline.cycles,
        "reach": round(bound.cycles / timeline.cycles, 4),
        "words": len(compiled.code.instructions),
        "dram_bytes": int(timeline.bytes.sum()),
        "seconds": seconds,
    }
    print(
        f"{variant.series} {variant.name}: {row['cycles']:,} cycles, reach {row['reach']:.3f} ({seconds:.1f} s)",
        flush=True,
    )
    return row


def table(rows: list[Row]) -> str:
    """The page of results."""
    whole = next(
        row["seconds"] for row in rows if (row["series"], row["name"]) == ("SRAM", f"{EDGE.sram.bytes / MIB:g} MiB")
    )
    lines = [
        "# Small chips against the speed of light",
        "",
        f"Written by `make bench-memory` (llmchip {__version__}); do not edit. {CASE.name}; each series changes one thing of edge.",
        "",
        "| series | chip | limit | by | cycles | reach | target | DRAM traffic | instructions | compile time |",
        "|---|---|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        goal = f"{row['target']:.2f}" if row["target"] else "–"
        mark = "" if row["reach"] >= row["target"] else " **(missed)**"
        cells = [
            row["series"],
            row["name"],
            f"{row['limit']:,}",
            row["by"],
            f"{row['cycles']:,}",
            f"{row['reach']:.3f}{mark}",
            goal,
            f"{row['dram_bytes'] / MIB:,.1f} MiB",
            f"{row['words']:,}",
            f"×{row['seconds'] / whole:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    slower = [
        f"{b['series']} {b['name']} after {a['name']}: {b['cycles'] / a['cycles'] - 1:.1%}"
        for a, b in _steps(rows)
        if b["cycles"] > a["cycles"]
    ]
    missed = any(b["cycles"] > a["cycles"] * (1 + SLACK) for a, b in _steps(rows))
    lines += [
        "",
        f"Where more is slower (at most {SLACK:.0%} are allowed): {'; '.join(slower) or 'nowhere'}.{' **(missed)**' if missed else ''}",
        "",
    ]
    return "\n".join(lines)


def _steps(rows: list[Row]) -> Iterator[tuple[Row, Row]]:
    """Neighbours of one series."""
    return ((a, b) for a, b in pairwise(rows) if a["series"] == b["series"])


def main() -> None:
    graph = lowered(CASE)
    finish(graph, Options(), EDGE)  # what Python and PyTorch do once is nobody's compile time
    rows = [measure(graph, variant) for variant in variants()]
    RESULTS.mkdir(exist_ok=True)
    write_atomic(RESULTS / "memory.json", [(json.dumps(rows, indent=1) + "\n").encode()])
    write_atomic(RESULTS / "memory.md", [table(rows).encode()])
    print("\n" + table(rows), end="")


if __name__ == "__main__":
    main()
