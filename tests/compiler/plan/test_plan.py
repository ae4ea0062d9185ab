"""The memory planner against its independent checker, against brute force, and on random problems."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.plan.bound import lower_bound
from compiler.plan.check import check_plan
from compiler.plan.problem import Block, Problem
from compiler.plan.solve import plan
from isa.errors import CompileError

MANY = 1 << 40
ANY_SIZE = st.integers(1, 400)


def problems(
    most: int = 12,
    sizes: st.SearchStrategy[int] = ANY_SIZE,
    align: tuple[int, ...] = (64,),
    groups: tuple[str | None, ...] = (None,),
) -> st.SearchStrategy[Problem]:
    block = st.tuples(st.integers(0, 12), st.integers(1, 6), sizes, st.sampled_from(align), st.sampled_from(groups))
    return st.lists(block, max_size=most).map(
        lambda rows: Problem(
            tuple(Block(f"b{i}", t, t + n, size, a, None, g) for i, (t, n, size, a, g) in enumerate(rows)), MANY
        )
    )


def most_alive(problem: Problem) -> int:
    """The lower bound again, instruction by instruction, in the dullest way."""
    best = 0
    for t in range(20):
        alive = [b for b in problem.blocks if b.lower <= t < b.upper]
        groups = {b.may_alias for b in alive if b.may_alias}
        best = max(
            best,
            sum(problem.space(b) for b in alive if not b.may_alias)
            + sum(max(problem.space(b) for b in alive if b.may_alias == g) for g in groups),
        )
    return best


def lowest(problem: Problem) -> int:
    """The optimum by trying every combination of offsets below the sum of all sizes."""
    step = problem.granule
    top = sum(problem.space(b) + b.align - step for b in problem.blocks) + max(
        (b.fixed or 0 for b in problem.blocks), default=0
    )
    best = top
    choices = [[b.fixed] if b.fixed is not None else range(0, top, b.align) for b in problem.blocks]
    for offsets in product(*choices):
        height = max(o + problem.space(b) for o, b in zip(offsets, problem.blocks, strict=True))
        pairs = list(zip(offsets, problem.blocks, strict=True))
        clash = any(
            a.lower < b.upper
            and b.lower < a.upper
            and x < y + b.size
            and y < x + a.size
            and not (x == y and a.may_alias and a.may_alias == b.may_alias)
            for i, (x, a) in enumerate(pairs)
            for y, b in pairs[:i]
        )
        if height < best and not clash:
            best = height
    return best


@settings(deadline=None)
@given(problems(most=25, align=(1, 16, 64, 96, 256)))
def test_plans_are_legal_and_not_below_the_bound(problem: Problem) -> None:
    """Breaks if first fit, the search or the unit scaling overlaps or misaligns blocks."""
    result = plan(problem, seconds=0.2)
    check_plan(problem, result)
    assert result.height >= result.lower_bound >= most_alive(problem)


@settings(deadline=None)
@given(problems(most=25, groups=(None, None, "a", "b")))
def test_bound_counts_a_reuse_group_once(problem: Problem) -> None:
    """Breaks if the sweep forgets to take dead members of a group out, or adds members that may share."""
    assert lower_bound(problem) == most_alive(problem)
    check_plan(problem, plan(problem, seconds=0.2))


@settings(deadline=None, max_examples=40)
@given(problems(most=4, sizes=st.sampled_from((64, 128, 192)), align=(64, 64, 128), groups=(None, None, "a")))
def test_brute_force_agrees(problem: Problem) -> None:
    """Breaks if a pruning rule of the search cuts off the optimum or a certificate is not honest."""
    if problem.blocks:
        result, best = plan(problem, seconds=1), lowest(problem)
        check_plan(problem, result)
        assert result.lower_bound <= best <= result.height
        if not any(b.may_alias for b in problem.blocks):
            assert result.optimal
            assert result.height == best


@settings(deadline=None, max_examples=40)
@given(problems(most=3, sizes=st.sampled_from((64, 128))), st.lists(st.integers(0, 4), min_size=2, max_size=2))
def test_brute_force_agrees_with_fixed_blocks(free: Problem, slots: list[int]) -> None:
    """Breaks if a fixed block is moved, built over, or makes the search lose the optimum below it."""
    pinned = (Block("p", 2, 5, 64, fixed=64 * slots[0]), Block("q", 5, 9, 128, fixed=64 * slots[1]))
    problem = Problem((*free.blocks, *pinned), MANY)
    result = plan(problem, seconds=1)
    check_plan(problem, result)
    assert result.optimal
    assert result.height == lowest(problem)


def test_nothing_is_called_optimal_that_sharing_could_better() -> None:
    """Breaks if a search without the sharing of c and a counts as a proof: 128 bytes are enough, c at 0 and d at 64."""
    a, b = Block("a", 0, 10, 64, fixed=0, may_alias="g"), Block("b", 1, 3, 64, fixed=64, may_alias="g")
    problem = Problem((a, b, Block("c", 5, 8, 64, may_alias="g"), Block("d", 5, 8, 64)), MANY)
    result = plan(problem, seconds=1)
    check_plan(problem, result)
    assert result.height == 128 or not result.optimal


def test_search_beats_first_fit_and_proves_it() -> None:
    """Breaks if the exact search is not reached: seeds where every first fit and repair misses the optimum are found on
    the way."""
    from random import Random

    from compiler.plan.heuristics import best_placement
    from compiler.plan.parts import variants

    improved = 0
    for seed in range(40):
        random = Random(seed)
        starts = [random.randrange(14) for _ in range(22)]
        problem = Problem(
            tuple(Block(f"b{i}", t, t + random.randint(1, 8), 64 * random.randint(1, 9)) for i, t in enumerate(starts)),
            MANY,
        )
        first = max(part.height(best_placement(part, 0)) for part in next(variants(problem)))
        result = plan(problem, seconds=3)
        check_plan(problem, result)
        improved += result.height < first
        assert result.height <= first
    assert improved


def test_in_place_reuse_takes_no_second_buffer() -> None:
    """Breaks if an elementwise result cannot overwrite its input although they live together for one instruction."""
    problem = Problem(
        (Block("x", 0, 3, 1024, may_alias="g"), Block("y", 2, 5, 1024, may_alias="g"), Block("z", 0, 5, 64)), 2048
    )
    result = plan(problem)
    check_plan(problem, result)
    assert result.offsets["x"] == result.offsets["y"]
    assert result.height == 1088
    assert result.optimal


def test_unaligned_sizes_fill_a_small_capacity() -> None:
    """Breaks if rounding sizes to the alignment refuses a block that ends exactly at the capacity."""
    problem = Problem((Block("a", 0, 2, 64), Block("b", 1, 3, 36)), 100)
    result = plan(problem)
    check_plan(problem, result)
    assert result.height == 100


def test_nothing_to_place() -> None:
    """Breaks if an empty program is an error."""
    assert plan(Problem((), 64)).optimal


def test_error_says_what_does_not_fit() -> None:
    """Breaks if the message loses the fullest instruction, its blocks by size, the capacity or the bound."""
    blocks = (Block("weights", 0, 9, 4096), Block("act", 3, 6, 2048), Block("late", 6, 9, 64))
    with pytest.raises(CompileError) as error:
        plan(Problem(blocks, 4096))
    for part in ("4096 B", "bound is 6144 B", "instruction 3", "weights 4096 B, act 2048 B"):
        assert part in str(error.value)


def test_fixed_blocks_that_overlap_are_refused() -> None:
    """Breaks if two fixed addresses that contradict each other yield a plan."""
    blocks = (Block("p", 0, 3, 128, fixed=0), Block("q", 2, 5, 64, fixed=64))
    with pytest.raises(CompileError, match="fixed blocks overlap"):
        plan(Problem(blocks, 4096))


def test_error_when_fragmentation_alone_does_not_fit() -> None:
    """Breaks if a proof that no placement exists (although every instant fits) is not reported as such."""
    blocks = (Block("p", 0, 2, 64, fixed=64), Block("q", 0, 2, 128))
    with pytest.raises(CompileError, match="no plan exists; the lower bound is 256 B"):
        plan(Problem(blocks, 192))


@pytest.mark.parametrize(
    "block",
    [("x", 3, 3, 64), ("x", 0, 1, 0), ("x", -1, 1, 64), ("x", 0, 1, 64, 0), ("x", 0, 1, 64, 64, 32)],
)
def test_impossible_blocks_are_refused(block: tuple[str, int, int, int]) -> None:
    """Breaks if an empty live range, no size, no alignment or a misaligned fixed address gets through."""
    with pytest.raises(CompileError):
        Block(*block)
