"""What a fuzzer is, and the loop that runs one in a process of its own, under limits.

A fuzzer makes a case (bytes) from a random generator and runs it. Case `i` of seed `s` is always the same bytes. The
child process may take `MEMORY` bytes of address space more than it starts with, and a case `CASE_SECONDS` of its time.
What gets through other than `isa.errors.Error` is a finding: it is made smaller, and saved with its traceback.
"""

import hashlib
import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

from isa.errors import Error

MEMORY = 1 << 30
CASE_SECONDS = 20
SHRINK_SECONDS = 10
REFUSED = "refused"
ROOT = Path(__file__).resolve().parents[1]


class Broken(Exception):
    """A promise that does not hold. The text says which, alike for all cases of one kind."""


def leave_out(data: bytes, fails: Callable[[bytes], bool], seconds: float) -> bytes:
    """Leave out pieces, from large to small, while it fails."""
    deadline, size = time.monotonic() + seconds, max(len(data) // 2, 1)
    while time.monotonic() < deadline:
        start, found = 0, False
        while start < len(data) and time.monotonic() < deadline:
            smaller = data[:start] + data[start + size :]
            if fails(smaller):
                data, found = smaller, True
            else:
                start += size
        if size == 1 and not found:
            break
        size = max(size // 2, 1)
    return data


def _nothing(*_: object) -> str:
    return ""


@dataclass(frozen=True)
class Fuzzer:
    """`run` returns for a case that was accepted, raises Error for one that was refused; anything else is a finding.

    `smaller(case, fails, seconds)` makes a finding small, `show` is how a person reads it, `prepare` is run once,
    before memory is limited. `reason` gives the kind of a refusal, where these are counted.
    """

    name: str
    make: Callable[[random.Random], bytes]
    run: Callable[[bytes], None]
    smaller: Callable[[bytes, Callable[[bytes], bool], float], bytes] = leave_out
    show: Callable[[bytes], str] = _nothing
    prepare: Callable[[], object] = _nothing
    reason: Callable[[Error], str] = _nothing
    case_seconds: float = 0.0  # 0: CASE_SECONDS
    shrink_seconds: float = 0.0  # 0: SHRINK_SECONDS


@dataclass
class Finding:
    kind: str
    where: str
    case: str
    file: str = ""
    times: int = 1


@dataclass
class Report:
    fuzzer: str
    seed: int
    cases: int = 0
    accepted: int = 0
    refused: int = 0
    peak_mib: int = 0
    slowest: float = 0.0  # seconds of this process
    slowest_case: str = ""
    reasons: dict[str, int] = field(default_factory=dict)  # of refusals
    findings: list[Finding] = field(default_factory=list)


class Hang(BaseException):
    """A case took too long. Not an Exception, so that nothing swallows it."""


def case_of(fuzzer: Fuzzer, seed: int, number: int) -> bytes:
    return fuzzer.make(random.Random(f"{seed}/{fuzzer.name}/{number}"))


def run_child(fuzzer: Fuzzer, seed: int, seconds: float, folder: Path, cases: int = 0) -> Report:
    """Run cases until the time (or number of cases) is over. Called in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    current = folder / f"{fuzzer.name}.current"
    fuzzer.prepare()
    report, start = Report(fuzzer.name, seed), time.monotonic()
    _limit_memory()
    while time.monotonic() - start < seconds and (not cases or report.cases < cases):
        data = case_of(fuzzer, seed, report.cases)
        current.write_bytes(data)
        before = time.process_time()
        problem = outcome(fuzzer, data, report.reasons)
        _note_time(report, time.process_time() - before)
        report.cases += 1
        if problem is None or problem == REFUSED:
            report.accepted += problem is None
            report.refused += problem is not None
        else:
            _record(report, fuzzer, data, problem, folder, current)
    current.unlink(missing_ok=True)
    report.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return report


def _note_time(report: Report, seconds: float) -> None:
    if seconds > report.slowest:
        report.slowest, report.slowest_case = round(seconds, 2), f"{report.seed}/{report.cases}"


def outcome(fuzzer: Fuzzer, data: bytes, reasons: dict[str, int] | None = None) -> str | None:
    """None: accepted. REFUSED: by an Error, whose reason is counted. Otherwise kind and place of what went wrong."""
    try:
        with _time_limit(fuzzer):
            fuzzer.run(data)
    except Error as error:
        if reasons is not None and (reason := fuzzer.reason(error)):
            reasons[reason] = reasons.get(reason, 0) + 1
        return REFUSED
    except Broken as broken:
        return str(broken)
    except (Exception, Hang) as problem:
        frames = traceback.extract_tb(problem.__traceback__)
        last = next((f for f in reversed(frames) if is_ours(f.filename)), frames[-1])
        return f"{type(problem).__name__} in {Path(last.filename).name}:{last.name}"
    return None


def is_ours(filename: str) -> bool:
    """Not numpy, not the fuzzer: the place that should have raised an Error."""
    path = Path(filename)
    return path.is_relative_to(ROOT) and not {"fuzz", "site-packages"} & set(path.relative_to(ROOT).parts)


def explain(fuzzer: Fuzzer, data: bytes) -> str:
    """The traceback of a case."""
    try:
        with _time_limit(fuzzer):
            fuzzer.run(data)
    except Error as error:
        return f"refused: {error}"
    except (Exception, Hang):
        return traceback.format_exc()
    return "accepted"


def _record(report: Report, fuzzer: Fuzzer, data: bytes, problem: str, folder: Path, current: Path) -> None:
    known = next((f for f in report.findings if f.kind == problem), None)
    if known is not None:
        known.times += 1
        return
    small = shrink(fuzzer, data, problem, current.write_bytes)
    stem = f"{fuzzer.name}-{hashlib.sha256(problem.encode()).hexdigest()[:8]}"
    (folder / f"{stem}.bin").write_bytes(small)
    explained = explain(fuzzer, small)
    (folder / f"{stem}.txt").write_text(
        f"seed {report.seed}, case {report.cases}: {problem}\n{explained}\n{fuzzer.show(small)}"
    )
    report.findings.append(
        Finding(
            problem,
            explained.strip().splitlines()[-1][:300],
            f"{report.seed}/{report.cases}",
            str(folder / f"{stem}.bin"),
        )
    )


def shrink(fuzzer: Fuzzer, data: bytes, problem: str, tell: Callable[[bytes], object] = lambda _: None) -> bytes:
    """A smaller case in which the same thing goes wrong. `tell` hears of every case that is tried."""

    def fails(smaller: bytes) -> bool:
        tell(smaller)
        return outcome(fuzzer, smaller) == problem

    return fuzzer.smaller(data, fails, fuzzer.shrink_seconds or SHRINK_SECONDS)


@contextmanager
def _time_limit(fuzzer: Fuzzer) -> Iterator[None]:
    seconds = fuzzer.case_seconds or CASE_SECONDS

    def expired(_signal: int, _frame: FrameType | None) -> None:
        raise Hang(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGPROF, expired)
    signal.setitimer(signal.ITIMER_PROF, seconds)  # time of this process: another's work is no hang
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def print_report(report: Report) -> None:
    json.dump(asdict(report), sys.stdout)
