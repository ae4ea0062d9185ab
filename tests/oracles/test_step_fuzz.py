"""A short run of every fuzzer, and that the harness notices what it is there to notice."""

import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from choice import few

from fuzz.__main__ import NAMES
from fuzz.fuzzers import FUZZERS, make_program
from fuzz.harness import MEMORY, ROOT, Fuzzer, case_of, outcome, shrink
from fuzz.samples import sample
from isa.errors import ImageError
from isa.image.image import image_bytes, read_image
from runtime.debug.session import Session

CASES = int(os.environ.get("LLMCHIP_EXAMPLES", 25))
SECONDS = CASES / 25


@pytest.mark.parametrize("name", few(NAMES, *(name for name in NAMES if name != "decoders")))
def test_a_short_run_finds_nothing(name: str) -> None:
    """Breaks when damaged or random input ends in anything but a result or an Error."""
    fuzzer, seed = FUZZERS[name], random.SystemRandom().randrange(1 << 30)
    seen = {"accepted": 0, "refused": 0}
    deadline = time.monotonic() + SECONDS
    for number in range(CASES * 4):
        problem = outcome(fuzzer, case_of(fuzzer, seed, number))
        assert problem in (None, "refused"), f"{problem}: python -m fuzz {name} --seed {seed} --cases {number + 1}"
        seen["accepted" if problem is None else "refused"] += 1
        if time.monotonic() > deadline and seen["accepted"]:  # on a busy machine the first cases alone may take as long
            break
    assert seen["accepted"], "nothing gets past the first check, so nothing behind it is tested"


def test_cases_depend_on_the_seed_alone() -> None:
    for fuzzer in FUZZERS.values():
        assert case_of(fuzzer, 1, 5) == case_of(fuzzer, 1, 5)
        assert len({case_of(fuzzer, 1, number) for number in range(10)}) > 5


def test_random_programs_reach_every_engine() -> None:
    """Breaks when random programs trap at once, so that the emulator is hardly tested."""
    executed: set[str] = set()
    ended = 0
    for number in range(40):
        session = Session(read_image(make_program(random.Random(number))), {})
        session.step(400)
        executed |= {session.image.inst(index * 16).mnemonic for index in session.trail}
        ended += session.stepper.exit is not None
    assert {"ldw", "lda", "gather", "sto", "mm", "vop", "vred", "vaff", "vqd", "act", "loop", "salu"} <= executed
    assert ended >= 5


def test_findings_are_noticed_and_made_small() -> None:
    """Breaks when the harness takes a crash for a refusal; it must find it, shrink it, and say how to run it again."""

    def crash(data: bytes) -> None:
        if b"X" in data:
            raise KeyError("unclean")
        raise ImageError("clean")

    fuzzer = Fuzzer("crash", lambda rng: bytes(rng.randrange(60, 100) for _ in range(50)), crash)
    problem = "KeyError in test_step_fuzz.py:crash"
    assert outcome(fuzzer, b"a") == "refused"
    assert outcome(fuzzer, b"aXb") == problem
    assert shrink(fuzzer, b"abcXdef", problem) == b"X"


def test_a_hang_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzz.harness.CASE_SECONDS", 0.2)

    def spin(data: bytes) -> None:
        while True:
            pass

    assert (outcome(Fuzzer("spin", lambda rng: b"", spin), b"") or "").startswith("Hang in")


CHILD = """
import sys
from pathlib import Path
import numpy as np
from fuzz.harness import MEMORY, Fuzzer, run_child
def greedy(data):
    np.ones(MEMORY + (64 << 20), np.uint8)
report = run_child(Fuzzer("greedy", lambda rng: b"", greedy), 1, 5, Path(sys.argv[1]), 1)
assert report.findings[0].where.startswith("numpy._core._exceptions._ArrayMemoryError"), report
"""


def test_memory_beyond_the_bound_is_noticed(tmp_path: Path) -> None:
    """Breaks when the limit is not set: then the allocation simply succeeds."""
    subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], cwd=ROOT, check=True, timeout=60)
    assert MEMORY == 1 << 30


def test_the_command_prints_its_seed_and_a_line_for_each_fuzzer(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "fuzz",
        "chips",
        "commands",
        "--seconds",
        "20",
        "--cases",
        "20",
        "--seed",
        "9",
        "--found",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("seed 9: chips, commands, 20 s each, at most 1024 MiB more")
    assert re.search(r"^chips +20 cases: .* 0 findings", done.stdout, re.MULTILINE)


def test_a_tap_that_leaves_its_node_is_refused() -> None:
    """Found by the image fuzzer: strides beyond 64 bits got as far as numpy. So did scalar ranges that are empty."""
    from dataclasses import replace

    from msgspec.structs import replace as changed

    image = sample()
    tap = changed(image.debug.probes[0], ps=2**60)
    with pytest.raises(ImageError, match="stride or offset that no block has"):
        image_bytes(replace(image, debug=changed(image.debug, probes=(tap,))))
    entry = changed(image.entry(), scalars=(changed(image.entry().scalars[0], minimum=9),))
    with pytest.raises(ImageError, match="range 9 to 3"):
        image_bytes(replace(image, entries=(entry,)))
