"""What no plan can beat: the bytes that live at the same time, found by one sweep over the live ranges.

**Why it is a bound.** At an instruction t every two blocks alive share no byte unless they are in one reuse group, and
no granule either (compiler/plan/problem.py). The members of a group that are alive at t cover together at least what
the largest of them takes. So at t the granules in use are at least the sum of the sizes, in granules, of the blocks
without a group and of the largest member alive of each group; and a memory with so many granules in use is at least so
high. The sum grows only where a block starts: it is enough to look there. A fixed block ends where it ends, which is a
bound as well.

**Not always reached:** a plan may need gaps between blocks. Then the exact search can raise the bound
(compiler/plan/solve.py).
"""

from collections import defaultdict
from heapq import heappop, heappush

from compiler.plan.problem import Block, Problem
from isa.errors import CompileError


def lower_bound(problem: Problem) -> int:
    """The most bytes alive at once, or the end of the highest fixed block."""
    ends = (block.fixed + problem.space(block) for block in problem.blocks if block.fixed is not None)
    return max(_peak(problem)[0], max(ends, default=0))


def check_capacity(problem: Problem, bound: int) -> None:
    """Raise `no_fit` if the lower bound alone says that nothing fits."""
    if bound > problem.capacity:
        raise no_fit(problem, bound, "no plan exists")


def check_fixed(problem: Problem) -> None:
    """Raises CompileError if two fixed blocks already lie on top of each other; one sweep over their live ranges."""
    alive: list[Block] = []
    for b in sorted((block for block in problem.blocks if block.fixed is not None), key=_lower):
        alive = [a for a in alive if a.upper > b.lower]
        for a in alive:
            low, high = max(a.fixed or 0, b.fixed or 0), min((a.fixed or 0) + a.size, (b.fixed or 0) + b.size)
            if low < high and not (a.may_alias and a.may_alias == b.may_alias and a.fixed == b.fixed):
                raise CompileError(f"fixed blocks overlap: {a} at {a.fixed} and {b} at {b.fixed}", "memory plan")
        alive.append(b)


def no_fit(problem: Problem, bound: int, why: str) -> CompileError:
    """The error that says what did not fit: where memory is fullest, and which blocks fill it."""
    live, time = _peak(problem)
    blocks = sorted((b for b in problem.blocks if b.lower <= time < b.upper), key=lambda b: (-b.size, b.name))
    shown = ", ".join(f"{b.name} {b.size} B" for b in blocks[:8]) + (
        f" and {len(blocks) - 8} more" if len(blocks) > 8 else ""
    )
    return CompileError(
        f"{len(problem.blocks)} blocks do not fit in {problem.capacity} B: {why}; the lower bound is {bound} B, "
        f"most are alive at instruction {time}: {live} B in {len(blocks)} blocks ({shown})",
        "memory plan",
        "use smaller tiles or a chip with more memory",
    )


def _peak(problem: Problem) -> tuple[int, int]:
    """(bytes, instruction) where most is alive; of a reuse group only the largest member alive counts."""
    groups: dict[str, list[tuple[int, int]]] = defaultdict(list)  # of a group: heap of (-space, upper)
    leaving: list[tuple[int, str, int]] = []  # heap of (upper, group, space)
    live = best = time = 0
    for block in sorted(problem.blocks, key=_lower):
        while leaving and leaving[0][0] <= block.lower:
            _, group, space = heappop(leaving)
            live -= space if not group else _drop_dead(groups[group], block.lower)
        space, group = problem.space(block), block.may_alias or ""
        heappush(leaving, (block.upper, group, space))
        if group:
            live -= _drop_dead(groups[group], block.lower)
            before = _largest(groups[group])
            heappush(groups[group], (-space, block.upper))
            live += _largest(groups[group]) - before
        else:
            live += space
        if live > best:
            best, time = live, block.lower
    return best, time


def _drop_dead(members: list[tuple[int, int]], now: int) -> int:
    """Forget dead members at the top of a group's heap; by how much its largest member shrinks."""
    before = _largest(members)
    while members and members[0][1] <= now:
        heappop(members)
    return before - _largest(members)


def _largest(members: list[tuple[int, int]]) -> int:
    return -members[0][0] if members else 0


def _lower(block: Block) -> int:
    return block.lower
