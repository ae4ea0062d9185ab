"""The memory planner: `plan(problem)` gives offsets and a certificate, or an error that says what did not fit.

1. The lower bound (most bytes alive) refuses what cannot fit.
2. First fit in several orders, and climbing from the best of them, usually reaches it, which proves itself optimal.
3. Otherwise the exact search of `search` tries to reach it, then heights between it and the best known.

Parts that are separate in time are planned separately, none lower than the highest of them needs.

**State.** Per way to use reuse groups (`parts.variants`), and per part of it, a `_Draft`: the lowest placement so far,
and a height that no placement of this part goes below. Placements are replaced by lower ones, bounds rise; both are
true at any time, so that the work may end anywhere.

**Lower bound.** That of compiler/plan/bound.py. It rises where the exact search has tried every placement of a part
within h units, and there is none: then the part needs h + 1. A height of the problem is at least that of each part,
since its parts share memory, not time.

**Certificate.** `optimal` means height == lower_bound, nothing else; a plan that is not called optimal may well be.
What the search excludes is a bound only if its boxes are all that there is: with two members of one reuse group it
proves nothing about the problem, since they may share in ways that no choice of boxes has, and the bound stays that of
the sweep.

**Not proved.** That a plan is found where one exists: climbing and the search end after their seconds, nodes or visits,
and parts of more than `search.MAX_BOXES` boxes are not searched at all. That the plan is valid: check.py decides that,
and whoever plans calls it. The canonical form of placements that the search goes through is explained in
compiler/plan/descend.py; test problems are those of MiniMalloc (tests/data/minimalloc).
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from compiler.plan.bound import check_capacity, check_fixed, lower_bound, no_fit
from compiler.plan.heuristics import best_placement
from compiler.plan.parts import Part, variants
from compiler.plan.problem import Plan, Problem
from compiler.plan.search import search


@dataclass
class _Draft:
    """A placement of one part so far, and the height in bytes that no placement of it goes below (as far as proved)."""

    part: Part
    offsets: list[int]
    bound: int

    @property
    def height(self) -> int:
        return self.part.height(self.offsets)

    def named(self) -> Iterator[tuple[str, int]]:
        """Every block with its offset in bytes."""
        for at, names in zip(self.offsets, self.part.members, strict=True):
            for name in names:
                yield name, at * self.part.unit


def plan(
    problem: Problem, seconds: float = 10.0, fit: bool = False, nodes: int | None = None, visits: int | None = None
) -> Plan:
    """Place every block as low as possible within about `seconds`; with `fit` stop at the first plan within the
    capacity.

    With `nodes` each search ends after so many nodes instead, whatever the clock says, and with `visits` climbing after
    so many neighbours have been looked at. Raises CompileError if nothing within the
    capacity exists or was found. Which plan comes out depends on the clock only if the time runs out. If it does, a
    larger `seconds` may find a lower one.
    """
    deadline = time.monotonic() + (seconds if nodes is None else 1e9)
    bound = lower_bound(problem)
    check_capacity(problem, bound)
    check_fixed(problem)
    if not problem.blocks:
        return Plan({}, 0, 0, optimal=True)
    goal = problem.capacity if fit else bound
    choices = [_draft(parts, goal, visits) for parts in variants(problem)]
    choices.sort(key=_height)  # stable: with equal heights the one with most reuse first
    for turn, drafts in enumerate(choices):
        if min(map(_height, choices)) <= goal:
            break
        now = time.monotonic()
        _lower(drafts, goal, problem.capacity, now + (deadline - now) / (len(choices) - turn), nodes)
    best = min(choices, key=_height)
    groups = [block.may_alias for block in problem.blocks if block.may_alias is not None]
    if len(set(groups)) == len(groups):  # nobody may share, so that the boxes are all that there is
        bound = max(bound, *(draft.bound for draft in best))
    if _height(best) > problem.capacity:
        spent = f" in {seconds:g} s" if nodes is None else ""
        raise no_fit(problem, bound, "no plan exists" if bound > problem.capacity else f"none was found{spent}")
    offsets = {name: at for draft in best for name, at in draft.named()}
    return Plan(
        {block.name: offsets[block.name] for block in problem.blocks}, _height(best), bound, _height(best) == bound
    )


def _draft(parts: tuple[Part, ...], goal: int, visits: int | None) -> list[_Draft]:
    return [_Draft(part, best_placement(part, goal // part.unit, visits), 0) for part in parts]


def _height(drafts: list[_Draft]) -> int:
    return max(draft.height for draft in drafts)


def _lower(drafts: list[_Draft], goal: int, capacity: int, deadline: float, nodes: int | None) -> None:
    """Search for lower placements of the parts that stick out above `goal`, which rises to what is proved to be
    needed."""
    for draft in sorted(drafts, key=lambda d: len(d.part)):
        _lower_part(draft, goal, capacity, deadline, nodes)
        goal = max(goal, draft.bound)


def _lower_part(draft: _Draft, goal: int, capacity: int, deadline: float, nodes: int | None) -> None:
    """Try `goal` with half of the time, then halve the gap: up where time ran out, down where a placement was found."""
    unit = draft.part.unit
    low, high = goal // unit, draft.height // unit
    if high * unit > capacity >= goal:
        high = capacity // unit + 1  # what does not fit is no plan: look at nothing above the capacity
    aim = low
    while aim < high and time.monotonic() < deadline:
        remaining = deadline - time.monotonic()
        answer = search(draft.part, aim, time.monotonic() + remaining / (2 if high - aim > 1 else 1), nodes)
        if answer.offsets:
            draft.offsets = answer.offsets
            high = draft.height // unit
        elif answer.proved:
            draft.bound = (aim + 1) * unit
            low = aim + 1
        else:
            low = aim + 1
        aim = (low + high) // 2
