"""The independent checker of memory plans: nothing clever, no code shared with the solver. It knows the records of
`problem` and bytes, neither granules nor the solver's boxes, parts and units.

**What it proves.** The plan is valid, as compiler/plan/problem.py defines it: it places exactly the blocks of the
problem, each of them *alone* and *inside*, and every two *apart*.

**Why every two.** Blocks come in order of their start. Of a and a later b, a.lower <= b.lower; as no live range is
empty, they are alive together exactly if a.upper > b.lower. `alive` holds the earlier blocks of which that is true.
What leaves it ends before b starts, hence before all that come after b start, too. So a pair that is never compared is
never alive together. At worst this is quadratic.

**Not proved.** The lower bound: of the certificate only the form is checked (no height below the bound, `optimal`
exactly if they are equal). The bound itself rests on compiler/plan/bound.py and on the exact search, which tests/plan
compares with brute force on small problems. Nor that the height is the least that holds these offsets, nor that live
ranges and reuse groups are right.
"""

from compiler.plan.problem import Block, Plan, Problem
from isa.errors import CompileError


def check_plan(problem: Problem, plan: Plan) -> None:
    """Raise unless `plan` places exactly the blocks of `problem`, each legally and no two on top of each other."""
    names = {block.name for block in problem.blocks}
    if names != plan.offsets.keys():
        _fail(f"missing or unknown blocks: {', '.join(sorted(names ^ plan.offsets.keys()))}")
    for block in problem.blocks:
        _check_block(problem, plan, block)
    alive: list[Block] = []
    for block in sorted(problem.blocks, key=lambda b: b.lower):
        alive = [other for other in alive if other.upper > block.lower]
        for other in alive:
            _check_pair(block, plan.offsets[block.name], other, plan.offsets[other.name])
        alive.append(block)
    if plan.height < plan.lower_bound or plan.optimal != (plan.height == plan.lower_bound):
        _fail(f"height {plan.height}, lower bound {plan.lower_bound} and optimal={plan.optimal} contradict each other")


def _check_block(problem: Problem, plan: Plan, block: Block) -> None:
    offset = plan.offsets[block.name]
    if offset < 0 or offset % block.align:
        _fail(f"{block} at {offset} is not aligned to {block.align}")
    if block.fixed is not None and offset != block.fixed:
        _fail(f"{block} at {offset} was moved from its fixed address {block.fixed}")
    if offset + block.size > problem.capacity:
        _fail(f"{block} at {offset} ends past the capacity of {problem.capacity} B")
    if offset + block.size > plan.height:
        _fail(f"{block} at {offset} ends above the height {plan.height} of the plan")


def _check_pair(a: Block, at_a: int, b: Block, at_b: int) -> None:
    live_together = a.lower < b.upper and b.lower < a.upper
    share_bytes = at_a < at_b + b.size and at_b < at_a + a.size
    in_place = a.may_alias is not None and a.may_alias == b.may_alias and at_a == at_b
    if live_together and share_bytes and not in_place:
        _fail(f"{a} at {at_a} overlaps {b} at {at_b}")


def _fail(what: str) -> None:
    raise CompileError(what, "memory plan", "this is a bug of the memory planner, please report it")
