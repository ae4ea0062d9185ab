"""`python -m fuzz`: runs each fuzzer in a process of its own, watches it, and says what was found."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fuzz.harness import MEMORY, ROOT

STARTUP = 60  # seconds
STUCK = 600  # seconds without a new case, also on a busy machine: the child counts its own processor time
SECONDS = "LLMCHIP_FUZZ_SECONDS"
NAMES = (
    "images",
    "assembly",
    "programs",
    "chips",
    "commands",
    "graphs",
    "arrays",
    "configs",
    "exported",
    "gguf",
    "decoders",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], help="fuzzers (default: all)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=float(os.environ.get(SECONDS, 600)),
        help=f"of each fuzzer (default: {SECONDS}, or 600)",
    )
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the time")
    parser.add_argument("--cases", type=int, default=0, help="stop after this many cases of each fuzzer")
    parser.add_argument("--workers", type=int, default=int(os.environ.get("LLMCHIP_FUZZ_WORKERS", 2)))
    parser.add_argument("--found", type=Path, default=ROOT / "fuzz" / "found", help="where findings are saved")
    parser.add_argument("--case", type=Path, help="run one saved case of the named fuzzer, and show what happens")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child or given.case:
        return _child(given)
    names = given.names or NAMES
    print(
        f"seed {given.seed}: {', '.join(names)}, {given.seconds:g} s each, at most {MEMORY >> 20} MiB more than at the start",
        flush=True,
    )
    with ThreadPoolExecutor(given.workers) as pool:
        reports = list(pool.map(lambda name: _watch(name, given), names))
    return 1 if sum(len(report["findings"]) for report in reports) else 0


def _child(given: argparse.Namespace) -> int:
    from fuzz.fuzzers import FUZZERS
    from fuzz.harness import explain, print_report, run_child

    fuzzer = FUZZERS[given.names[0]]
    if given.case:
        fuzzer.prepare()
        print(fuzzer.show(given.case.read_bytes()), end="")
        print(explain(fuzzer, given.case.read_bytes()))
        return 0
    print_report(run_child(fuzzer, given.seed, given.seconds, given.found, given.cases))
    return 0


def _watch(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Run a child; when it dies or is stuck beyond the reach of its own alarm, the case at hand is the finding."""
    command = [
        sys.executable,
        "-m",
        "fuzz",
        name,
        "--child",
        "--seed",
        given.seed,
        "--seconds",
        given.seconds,
        "--cases",
        given.cases,
        "--found",
        given.found,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=out, stderr=err, env=environment)
        current, problem = given.found / f"{name}.current", ""
        deadline = time.monotonic() + given.seconds + STARTUP
        while child.poll() is None:
            time.sleep(0.2)
            if _age(current) > STUCK or time.monotonic() > deadline + STUCK:
                child.kill()
                problem = "stuck beyond the reach of a signal"
                child.wait()
        out.seek(0)
        err.seek(0)
        report: dict[str, Any]
        try:
            report = json.loads(out.read())
        except ValueError:
            saved = given.found / f"{name}-died.bin"
            if current.exists():
                current.replace(saved)
            kind = problem or f"the process died with exit code {child.returncode}"
            finding = {"kind": kind, "where": err.read()[-500:], "file": str(saved), "times": 1}
            report = {
                "fuzzer": name,
                "cases": 0,
                "accepted": 0,
                "refused": 0,
                "peak_mib": 0,
                "slowest": 0,
                "reasons": {},
                "findings": [finding],
            }
    _say(report)
    return report


def _age(current: Path) -> float:
    """Seconds since the child began its case."""
    try:
        return time.time() - current.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _say(report: dict[str, Any]) -> None:
    findings = report["findings"]
    print(
        f"{report['fuzzer']:<9} {report['cases']:>7} cases: {report['accepted']} accepted, {report['refused']} refused, "
        f"{len(findings)} findings, peak {report['peak_mib']} MiB, slowest case {report['slowest']} s",
        flush=True,
    )
    for reason, times in sorted(report["reasons"].items(), key=lambda item: -item[1]):
        print(f"  refused {times} times: {reason}", flush=True)
    for finding in findings:
        print(f"  {finding['kind']} ({finding['times']} times): {finding['where']}\n    {finding['file']}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
