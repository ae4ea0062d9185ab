"""Six published problems (tests/data/minimalloc): within 1 MiB, which greedy placement misses by 14 to 37 percent."""

import time
from pathlib import Path
from random import Random

import pytest
from checkout import ROOT

from compiler.plan.check import check_plan
from compiler.plan.heuristics import best_placement
from compiler.plan.jit import COMPILED
from compiler.plan.parts import variants
from compiler.plan.problem import Block, Problem, read_csv, write_csv
from compiler.plan.solve import plan

DATA = ROOT / "tests/data/minimalloc"
LIVE = {"A": 1048576, "B": 1048576, "C": 1039360, "D": 986112, "E": 1048576, "F": 1048576}


def solve(case: str, seconds: float) -> None:
    problem = read_csv(DATA / f"{case}.1048576.csv")
    result = plan(problem, seconds=seconds, fit=True)
    check_plan(problem, result)
    assert result.height <= problem.capacity
    assert result.lower_bound == LIVE[case]


@pytest.mark.parametrize("case", ["C", "F"])
def test_quick_problem_fits(case: str) -> None:
    """Breaks if the search loses a pruning rule or an order: these take seconds, even without numba."""
    solve(case, 60)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["A", "B", "D", "E"])
def test_hard_problem_fits(case: str) -> None:
    """Breaks if a hard problem needs more than a minute (with numba; plain Python gets ten)."""
    solve(case, 60 if COMPILED else 600)


def test_csv_round_trip(tmp_path: Path) -> None:
    """Breaks if a problem written as CSV loses an alignment, a fixed address or a reuse group."""
    problem = Problem((Block("a", 0, 4, 100, 32, 64, "g"), Block("b", 1, 2, 3)), 4096)
    write_csv(problem, tmp_path / "x.4096.csv")
    assert read_csv(tmp_path / "x.4096.csv") == problem


def test_ten_thousand_blocks_are_placed_quickly() -> None:
    """Breaks if the heuristics become quadratic: about one second on an idle core, far more if so."""
    random = Random(0)
    rows = [
        (random.randrange(10_000), random.randint(1, 60), 64 * random.choice((1, 2, 8, 64, 300))) for _ in range(10_000)
    ]
    problem = Problem(tuple(Block(str(i), t, t + n, size) for i, (t, n, size) in enumerate(rows)), 1 << 40)
    started = time.process_time()
    placed = [best_placement(part, 0) for part in next(variants(problem))]
    assert sum(map(len, placed)) == len(problem.blocks)
    assert time.process_time() - started < 6
