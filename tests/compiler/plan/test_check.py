"""The checker finds every planted fault: it is what the planner's correctness rests on."""

from dataclasses import replace

import pytest

from compiler.plan.check import check_plan
from compiler.plan.problem import Block, Plan, Problem
from isa.errors import CompileError

PROBLEM = Problem(
    (
        Block("a", 0, 4, 128),
        Block("b", 2, 6, 64),
        Block("c", 4, 8, 128, fixed=128),
        Block("x", 8, 10, 64, may_alias="g"),
        Block("y", 9, 11, 128, may_alias="g"),
    ),
    512,
)
GOOD = Plan({"a": 128, "b": 0, "c": 128, "x": 0, "y": 0}, 256, 256, True)


def test_a_good_plan_passes() -> None:
    """Breaks if touching ranges ([0, 4) and [4, 8) at one place), neighbours or in-place reuse count as overlap."""
    check_plan(PROBLEM, GOOD)


@pytest.mark.parametrize(
    ("move", "message"),
    [
        ({"b": 192}, "overlaps"),
        ({"b": 96}, "not aligned"),
        ({"b": -64}, "not aligned"),
        ({"c": 192}, "moved from its fixed address"),
        ({"a": 448}, "past the capacity"),
        ({"a": 192}, "above the height"),
        ({"y": 64, "x": 128}, "overlaps"),
        ({"z": 0}, "missing or unknown blocks: z"),
    ],
)
def test_a_fault_is_found(move: dict[str, int], message: str) -> None:
    """Breaks if the checker misses an overlap, a misalignment, a moved, lost or high block, or a partial in-place
    overlap."""
    with pytest.raises(CompileError, match=message):
        check_plan(PROBLEM, replace(GOOD, offsets={**GOOD.offsets, **move}))


def test_a_missing_block_is_found() -> None:
    """Breaks if a block without an offset goes unnoticed."""
    with pytest.raises(CompileError, match="missing or unknown blocks: a"):
        check_plan(PROBLEM, replace(GOOD, offsets={k: v for k, v in GOOD.offsets.items() if k != "a"}))


@pytest.mark.parametrize(("bound", "optimal"), [(192, True), (256, False), (320, True)])
def test_a_dishonest_certificate_is_found(bound: int, optimal: bool) -> None:
    """Breaks if `optimal` may disagree with height and bound."""
    with pytest.raises(CompileError, match="contradict"):
        check_plan(PROBLEM, replace(GOOD, lower_bound=bound, optimal=optimal))
