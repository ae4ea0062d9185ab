"""Place: live ranges of all buffers in dispatch order, then an address for each (SRAM, ACC, and SCRATCH in DRAM)."""

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import ClassVar

from compiler.plan.bound import lower_bound
from compiler.plan.check import check_plan
from compiler.plan.jit import COMPILED
from compiler.plan.problem import Block, Plan, Problem
from compiler.plan.solve import plan
from compiler.tile.decisions import DRAM_LIMIT, Placement
from compiler.tile.ir import Buffer, Program
from compiler.tile.state import TileState, made
from isa.architecture import Engine, Region, Space
from isa.chip import Chip
from isa.errors import CompileError

Times = Sequence[tuple[int, int]]  # predicted start and finish of each op
Live = Mapping[Buffer, tuple[int, int]]  # first and last op


@dataclass(frozen=True)
class Place:
    """Give every buffer an address, and check the plan. To `lower` a plan that fits costs as much as to find it. Bytes
    of the scratchpad `rest` for so many cycles after the predicted end of their last use: the machine is not exactly on
    time. Accumulators do not: no load waits for one."""

    name: ClassVar[str] = "place"
    lower: bool = True
    rest: int = 0

    def run(self, state: TileState) -> TileState:
        times = None if state.schedule is None else state.schedule.times
        return replace(state, placement=place(made(state.program), state.chip, times, self.lower, self.rest))


def place(program: Program, chip: Chip, times: Times | None = None, lower: bool = True, rest: int = 0) -> Placement:
    """Plan each memory and check the plan. Raises CompileError when a memory is too small.

    `times` (of a schedule) are the predicted start and finish of each op, so that no instruction overwrites what is
    still being read, nor in the scratchpad what was read in the last `rest` cycles. With them, a plan that is not found
    quickly counts as none: other orders can replace this one."""
    tried: list[Live] = [program.live]
    for share in EARLY if program.loop is not None else ():
        kept = _kept_for_the_next(program, int(chip.sram.bytes * share))
        if kept not in tried:
            tried.append(kept)
            with suppress(CompileError):
                return _placed(program, chip, times, kept, lower, rest)
    return _placed(program, chip, times, program.live, lower, rest)


EARLY = (1 / 6, 1 / 16)  # of the scratchpad, for what an iteration loads first
ALONE = 0.75  # of all that it loads: the last loads take memory that was read, and so wait for its readers


def _kept_for_the_next(program: Program, room: int) -> Live:
    """Live ranges in which the first loads of a loop's body, up to `room` bytes, have their place to themselves through
    all of it: the next iteration's can begin while this one still works.

    Not all of them: a load may wait for all but the last few instructions of an engine, no more exactly (MAX_COUNT). If
    none waited for readers in the middle of the body, the first of the next iteration would wait for its end."""
    live, loop = dict(program.live), program.loop
    assert loop is not None
    body = [op for op in program.ops[loop.first : loop.end] if op.row.engine is Engine.LDW]
    loaded = [next(ref.buffer for name, ref, _, _ in op.accesses if name == "d") for op in body]
    room = min(room, int(sum(buffer.bytes for buffer in loaded) * ALONE))
    for buffer in loaded:
        if (room := room - buffer.bytes) < 0:
            break
        live[buffer] = (min(live[buffer][0], loop.first), max(live[buffer][1], loop.end - 1))
    return live


def _placed(program: Program, chip: Chip, times: Times | None, live: Live, lower: bool, rest: int) -> Placement:
    offsets = {b: b.fixed for b in program.buffers if b.fixed is not None}
    heights = {}
    memories = (
        ("sram", Space.SRAM, chip.sram.bytes),
        ("acc", Space.ACC, chip.acc.bytes),
        ("scratch", Space.DRAM, DRAM_LIMIT),
    )
    for name, space, capacity in memories:
        buffers = {b.name: b for b in live if b.space is space and b.fixed is None}
        assert space is not Space.DRAM or all(b.region is Region.SCRATCH for b in buffers.values())
        later = None if times is None else [(a, b + rest * (space is Space.SRAM)) for a, b in times]
        solution = _plan(buffers, live, capacity, program, later, lower)
        offsets |= {buffers[n]: offset for n, offset in solution.offsets.items()}
        heights[name] = (solution.height, solution.lower_bound)
    return Placement(offsets, live, heights)


NODES = 6000  # of the exact search, where heuristics find no plan
# boxes that it may look at where there is no other order to try: a node of it looks at all that are left
LAST_WORK = 40_000_000
# neighbours that climbing may look at where there are other orders to try: plans that exist are found with as many, and
# looking for those that do not exist was half of the search's time
CLIMB = 10_000_000
LOWER = 3_000_000  # neighbours that climbing may look at to lower a plan that fits
SLACKS = (96, 48, 24, 12, 6, 0)  # ops


def _plan(
    buffers: Mapping[str, Buffer],
    live: Mapping[Buffer, tuple[int, int]],
    capacity: int,
    program: Program,
    times: Times | None,
    lower: bool,
) -> Plan:
    """Plan a memory so that bytes rest before they are used again: an instruction that overwrites bytes just read has
    to wait for their reader.

    A schedule says how long that is. Without one, live ranges begin as many ops earlier as there is room for.
    Raises CompileError when the buffers do not fit even without rest.
    """
    if times is not None:
        ends = _rested(buffers.values(), program, times, live)
        return _solve([Block(b.name, live[b][0], ends[b], b.bytes) for b in buffers.values()], capacity, 0, lower)
    for slack in SLACKS:
        blocks = [Block(b.name, max(0, live[b][0] - slack), live[b][1] + 1, b.bytes) for b in buffers.values()]
        if slack and lower_bound(Problem(tuple(blocks), capacity)) > capacity * 0.97:
            continue
        try:
            return _solve(blocks, capacity, 0 if slack else LAST_WORK, lower)
        except CompileError:
            if not slack:
                raise
    raise AssertionError("the last slack is 0")


def _rested(buffers: Collection[Buffer], program: Program, times: Times, live: Live) -> dict[Buffer, int]:
    """For each buffer the index of the op from which on its bytes may be used again: all that take memory from there on
    start later.

    Starts need not rise with the order, so the last op that takes memory too early decides.
    """
    takers = sorted({live[b][0] for b in buffers})
    least = list(accumulate((times[i][0] for i in reversed(takers)), min))[
        ::-1
    ]  # the earliest start from each taker on
    left = dict.fromkeys(buffers, 0)  # when the last instruction has left it
    for op, (_, finish) in zip(program.ops, times, strict=True):
        for ref in op.views:
            if ref is not None and ref.buffer in left:
                left[ref.buffer] = max(left[ref.buffer], finish)
    return {b: max(live[b][1], takers[at - 1] if (at := bisect_left(least, left[b])) else 0) + 1 for b in buffers}


def _solve(blocks: Sequence[Block], capacity: int, work: int, lower: bool) -> Plan:
    """A plan that fits, found by so much work of search if need be, and with `lower` made lower if that is cheap."""
    problem = Problem(tuple(blocks), capacity)
    visits = CLIMB if COMPILED and not work else None
    solution = plan(problem, fit=True, nodes=min(NODES, work // (len(blocks) + 1)), visits=visits)
    if lower and not solution.optimal:
        with suppress(CompileError):  # the plan that fits stays if no other one is found
            solution = min(solution, plan(problem, nodes=0, visits=LOWER if COMPILED else 0), key=lambda p: p.height)
    check_plan(problem, solution)
    return solution
