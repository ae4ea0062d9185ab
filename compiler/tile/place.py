"""Place: live ranges of all buffers in dispatch order, then an address for each (SRAM, ACC, and SCRATCH in DRAM)."""

from collections.abc import Mapping
from dataclasses import dataclass

from compiler.plan.bound import lower_bound
from compiler.plan.check import check_plan
from compiler.plan.problem import Block, Plan, Problem
from compiler.plan.solve import plan
from compiler.tile.ir import Buffer, Program
from isa.chip import Chip
from isa.errors import CompileError
from isa.spec import Access, Region, Space

DRAM_LIMIT = 1 << 36  # what a view's base can address


@dataclass(frozen=True)
class Placement:
    """Byte offset and live range (first and last op index) of every buffer; the height and lower bound of each memory."""

    offsets: Mapping[Buffer, int]
    live: Mapping[Buffer, tuple[int, int]]
    heights: Mapping[str, tuple[int, int]]

    @property
    def scratch_bytes(self) -> int:
        return self.heights["scratch"][0]


def live_ranges(program: Program) -> dict[Buffer, tuple[int, int]]:
    """Index of the first and last op that touches each buffer.

    What a loop shares with the code around it, or takes from its own last iteration, lives through all of it.
    """
    ranges: dict[Buffer, tuple[int, int]] = {}
    through: set[Buffer] = set()
    for index, op in enumerate(program.ops):
        inside = program.in_loop(index)
        for _, ref, _, access in op.accesses():
            first, last = ranges.get(ref.buffer, (index, index))
            fresh = inside and (ref.buffer not in ranges or not program.in_loop(first))
            if fresh and (ref.buffer in ranges or access is not Access.W):
                through.add(ref.buffer)
            if not inside and program.in_loop(last):
                through.add(ref.buffer)
            ranges[ref.buffer] = (first, index)
    if program.loop is not None:
        for buffer in through:
            first, last = ranges[buffer]
            ranges[buffer] = (min(first, program.loop.first), max(last, program.loop.end - 1))
    return ranges


def place(program: Program, chip: Chip, exact: bool = True) -> Placement:
    """Plan each memory and check the plan. Raises CompileError when a memory is too small.

    Without `exact`, a plan that the heuristics do not find counts as none: for orders that others can replace.
    """
    live = live_ranges(program)
    offsets = {b: b.fixed for b in live if b.fixed is not None}
    heights = {}
    memories = (
        ("sram", Space.SRAM, chip.sram.bytes),
        ("acc", Space.ACC, chip.acc.bytes),
        ("scratch", Space.DRAM, DRAM_LIMIT),
    )
    for name, space, capacity in memories:
        buffers = {b.name: b for b in live if b.space is space and b.fixed is None}
        assert space is not Space.DRAM or all(b.region is Region.SCRATCH for b in buffers.values())
        solution = _plan_with_slack(buffers, live, capacity, exact)
        offsets |= {buffers[n]: offset for n, offset in solution.offsets.items()}
        heights[name] = (solution.height, solution.lower_bound)
    return Placement(offsets, live, heights)


SECONDS = 20.0  # for the exact search of a tight memory, where heuristics find no plan
SLACKS = (96, 48, 24, 12, 6, 0)  # ops


def _plan_with_slack(buffers: Mapping[str, Buffer], live: Mapping[Buffer, tuple[int, int]], capacity: int, exact: bool) -> Plan:
    """Plan a memory so that bytes rest as long as possible before they are used again.

    A word that overwrites bytes just read has to wait for their reader; live ranges that begin earlier than they must
    keep such bytes apart where there is room. Raises CompileError when the buffers do not fit even without slack.
    """
    for slack in SLACKS:
        blocks = tuple(Block(b.name, max(0, live[b][0] - slack), live[b][1] + 1, b.bytes) for b in buffers.values())
        problem = Problem(blocks, capacity)
        if slack and lower_bound(problem) > capacity * 0.97:
            continue
        try:
            solution = plan(problem, seconds=SECONDS if exact and not slack else 0.0, fit=True)  # by the clock only as a last resort
        except CompileError:
            if slack:
                continue
            raise
        check_plan(problem, solution)
        return solution
    raise AssertionError("the last slack is 0")
