"""`make support-ops`: PyTorch's own operator and module tests through torch.compile(backend="llmchip"), fallback on,
against eager PyTorch.

Every sample must come back as eager PyTorch gives it (`tools.support.oracle` says in what). Findings go into a file
line by line, so that the table can be run in slices; a pair of operator and type that is run again replaces its line.

    python -m tools.support_ops                     every operator and module, all samples (hours)
    python -m tools.support_ops --samples 6         at most six samples of each, spread over all of them
    python -m tools.support_ops --only '^op nn' --types float32 --json found.jsonl
    python -m tools.support_ops --resume --json benchmarks/results/support-ops-all.jsonl
                                                    go on with the run over all samples that is kept there
    python -m tools.support_ops --only '^$' --json found.jsonl --table benchmarks/results/support-ops.md
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

from tools.support.cases import KINDS, cases, names
from tools.support.lines import Row, keep, latest

TYPES = ("float32", "bfloat16", "float16", "int64", "int32", "bool")
SECONDS = 3600  # that all samples of one operator and type may take
RENEW = 40  # names after which a child is replaced, for its memory
END = "."  # a child's last line about a name
TOGETHER = 16  # samples that are compiled as one function
FINDINGS = ("raise", "wrong", "far", "fault")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.support_ops", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--samples", type=int, default=0, help="at most so many of each operator and type (default: all)"
    )
    parser.add_argument("--only", default="", help="names that match this regular expression")
    parser.add_argument("--types", default=",".join(TYPES))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where a line for each operator and type is added")
    parser.add_argument("--resume", action="store_true", help="only names of which --json has nothing yet")
    parser.add_argument("--table", type=Path, help="where a table of all lines in --json is written")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        return _child(given.types.split(","), given.samples)
    known = {row["name"] for row in _latest(given.json, [])} if given.resume else set()
    found = [name for name in names() if re.search(given.only, name) and name not in known]
    print(
        f"{len(found)} operators and modules, {given.samples or 'all'} samples of each type, {given.workers} workers",
        flush=True,
    )
    queue = iter(found)
    with ThreadPoolExecutor(given.workers) as pool:
        rows = [row for part in pool.map(lambda n: _watch(queue, given), range(given.workers)) for row in part]
    if given.table:
        given.table.write_text(_table(_latest(given.json, rows)), encoding="utf-8")
    count = _counted(rows)
    print(
        f"{count['pairs']} pairs of operator and type, {count['samples']} samples: {count['raise pairs']} pairs raise, {count['wrong pairs']} are wrong "
        f"({count['raise']} and {count['wrong']} samples); far from eager where products or functions take part: {count['far pairs']}"
    )
    return min(count["raise pairs"] + count["wrong pairs"], 1)


def _watch(queue: Iterator[str], given: argparse.Namespace) -> list[Row]:
    """Children one after the other: what kills or hangs one costs no other name."""
    rows: list[Row] = []
    while group := list(itertools.islice(queue, RENEW)):
        while group:
            rows += _children(group, given)
    return rows


def _children(group: list[str], given: argparse.Namespace) -> Iterator[Row]:
    """What one child finds of these names; takes away those that it answered, and the one that killed it."""
    command = [
        sys.executable,
        "-m",
        "tools.support_ops",
        "--child",
        "--types",
        given.types,
        "--samples",
        str(given.samples),
    ]
    environment = {**os.environ, "LLMCHIP_CACHE": "off", "OMP_NUM_THREADS": "1"}
    environment.pop("LLMCHIP_STRICT", None)
    with tempfile.TemporaryFile("w+") as err, subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, text=True, env=environment
    ) as child:  # fmt: skip
        assert child.stdin and child.stdout
        try:
            child.stdin.write("\n".join(group))
            child.stdin.close()
        except BrokenPipeError:
            pass
        while True:
            watch = threading.Timer(SECONDS, child.kill)
            watch.start()
            line = child.stdout.readline()
            watch.cancel()
            if not line:
                break
            if line.strip() == END:
                group.pop(0)
            elif line.startswith("{"):
                yield _kept(json.loads(line), given.json)
        if group:
            code = child.wait()
            err.seek(0)
            why = f"the process ended with {code} (-9: not done in {SECONDS} s): {err.read()[-300:]}"
            yield _kept(_died(group.pop(0), why), given.json)


def _died(name: str, why: str) -> Row:
    """The row of a name whose child ended without one."""
    return {"name": name, "type": "", "samples": 0, **{kind: [] for kind in FINDINGS}, "raise": [why]}


def _kept(row: Row, path: Path | None) -> Row:
    keep(row, path)
    for kind in FINDINGS:
        if row[kind]:
            print(
                f"{kind:5} {row['name']} {row['type']} ({len(row[kind])} of {row['samples']}): {row[kind][0][:250]}",
                flush=True,
            )
    return row


def _latest(path: Path | None, rows: Sequence[Row]) -> list[Row]:
    """The last line of each pair in the file."""
    return latest(path, lambda row: (row["name"], row["type"]), rows)


def _counted(rows: Sequence[Row]) -> Counter[str]:
    count: Counter[str] = Counter()
    for row in rows:
        count.update({"pairs": 1, "samples": row["samples"]})
        for kind in FINDINGS:
            count.update({kind: len(row[kind]), f"{kind} pairs": bool(row[kind])})
        if not row["raise"] and not row["wrong"]:
            count["back pairs" if row["back"] else "chip pairs"] += 1
    return count


def _table(rows: Sequence[Row]) -> str:
    lines = [
        "Written by `python -m tools.support_ops`: samples of PyTorch's own operator and module tests through torch.compile, fallback on, against eager.",
        "A pair is an operator or module and a type; it *falls back* if any of its samples runs in PyTorch, in part or as a whole.",
        "",
        "| | type | pairs | samples | pass without falling back | fall back | raise | wrong |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, what in KINDS.items():
        for dtype in (*TYPES, ""):
            count = _counted([row for row in rows if row["name"].startswith(f"{kind} ") and row["type"] == dtype])
            if count["pairs"]:
                figures = [
                    count[key] for key in ("pairs", "samples", "chip pairs", "back pairs", "raise pairs", "wrong pairs")
                ]
                lines.append(f"| {what} | {dtype or 'the process died'} | {' | '.join(map(str, figures))} |")
    return "\n".join([*lines, ""])


# ---- in the child


def _child(types: Sequence[str], most: int) -> int:
    from torch._dynamo import guards

    from tools.support.oracle import count_calls

    # It flushes the processor's caches to measure itself.
    patch.object(guards, "profile_guard_manager", lambda *_: 0.0).start()
    count_calls()
    for line in sys.stdin:
        for text in types:
            if row := _run(line.strip(), text, most):
                print(json.dumps(row), flush=True)
        print(END, flush=True)
    return 0


def _run(name: str, text: str, most: int) -> Row | None:
    import torch

    from tools.support.oracle import judge

    start = time.process_time()
    torch.manual_seed(0)
    try:
        found = list(cases(name, getattr(torch, text)))
    except Exception as error:
        print(f"no samples of {name} {text}: {error}", file=sys.stderr)
        return None
    if most and len(found) > most:
        found = [found[round(i * (len(found) - 1) / (most - 1)) if most > 1 else len(found) // 2] for i in range(most)]
    row: Row = {"name": name, "type": text, "samples": 0, "chip": 0, "back": 0, **{kind: [] for kind in FINDINGS}}
    together = 1 if any(case.gradients for case in found) else TOGETHER
    for number, verdict in enumerate(judge(found, together)):
        if verdict is None:
            continue
        row["samples"] += 1
        row["chip"] += verdict.chip
        row["back"] += verdict.back
        if verdict.outcome in FINDINGS:
            row[verdict.outcome].append(f"sample {number}: {verdict.why}")
    row["seconds"] = round(time.process_time() - start, 1)
    return row if row["samples"] else None


if __name__ == "__main__":
    sys.exit(main())
