"""Schedule: reorder a tile program so that the engines work at the same time.

List scheduling (Graham 1969): engines, bus and memories are simulated with the durations of the timing rules; among the
ops whose inputs exist, the one that can start first goes next (the earlier one on a tie). Loads therefore run ahead as
far as memory allows, which is what double buffering and weight prefetch are. An op that needs new memory waits until
enough has been left.

**State.** `oldest`: the first op in the old order that is not placed yet. `missing[i]`: how many ops that i must follow
are not placed yet. `ready`: the ops with none missing, among the `window` from `oldest` on. Times: when each engine and
the bus are free, when the inputs of each op exist. Per memory: the buffers taken, and when each will be free again.

**Dependences kept.** i before j in the old order, both touching one byte of one buffer, at least one of them writing
(`tile.conflicts.predecessors`; the bytes of a view count from its first to its last, gaps included). Of buffers that
nobody writes (regions that are given) there are none. Two buffers count as two memories: those that get an address are
kept apart by the plan while both live, those with a given address are taken to lie apart.

**Legal order.** A permutation of the ops between two borders of the loop in which every dependence keeps its direction.
An op is ready only when all that it must follow is placed, so each order made here is one. There always is a next op:
what `oldest` must follow is older, hence placed, and the window begins with it.

**Why the meaning stays.** An op reads and writes memory, and nothing else of the machine: view registers and dependence
counts come after the schedule, with codegen. So each read finds the last write before it in the old order, also in the
new one (the fundamental theorem of dependence: Allen & Kennedy 2001, theorem 2.2). Times decide which legal order comes
out, never whether it is legal.

**Loops.** What stands before, in and after the loop is reordered by itself; no op crosses a border. The iterations are
executed one after the other in program order, each is a legal order of the same ops, so that the program before and
after mean the same, whatever passes from one iteration to the next. Engines overlap iterations all the same, within
their dependence counts; the prediction does not count on that: it takes an iteration's length times their number.

**Shares of memory.** Ops may fill the share `fill` of a memory (FILLS). An op that is the first to touch a buffer goes
ahead of older ones only if the bytes alive (in units of ALIGN) stay within that share at each op that it skips, with
all that has run ahead already. So at no op of the new order more is alive than the share, or than the most in the old
order if that is more; what lives across a border counts throughout. The rest of a memory is for gaps.

**Not proved.** That addresses exist: bytes alive within a memory are only a lower bound of what a plan needs, so the
search goes on with smaller shares until one is placed (autotune.py). That the order is the fastest, or the prediction
exact. And nothing here is verified by comparing the two orders: behind the pass, compiler/tile/verify_state.py looks at
the new program as at any other, the translation check replays it on symbols, and lint/races.py proves counts and
addresses of the image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import ClassVar

from compiler.emit.tile_sizes import WINDOW
from compiler.plan.jit import Vector, frozen
from compiler.schedule.issue import Machine, Memories, Work, order
from compiler.tile.conflicts import predecessors
from compiler.tile.cost import cycles
from compiler.tile.decisions import Schedule
from compiler.tile.ir import Buffer, Op, Program
from compiler.tile.state import TileState, made
from isa.architecture import DMA_ENGINES, QUEUES, Engine, Space
from isa.chip import Chip
from isa.timing import drain_cycles

ALIGN = 64
FILLS = (
    0.98,
    0.95,
    0.92,
    0.86,
    0.8,
    0.7,
    0.6,
)  # shares of a memory that instructions may fill: the rest is for gaps in the plan
SPACES = (Space.SRAM, Space.ACC)  # memories 0 and 1

Cycles = Callable[[Op], int]


@dataclass(frozen=True)
class ScheduleOps:
    """Order the ops so that engines work at the same time, within the share `fill` of each memory."""

    name: ClassVar[str] = "schedule"
    fill: float = FILLS[0]
    in_turn: bool = False
    window: int = WINDOW

    def run(self, state: TileState) -> TileState:
        found = schedule(
            made(state.tiled).program,
            state.chip,
            lambda op: cycles(op, state.chip),
            self.fill,
            self.in_turn,
            self.window,
        )
        return replace(state, schedule=found)


def schedule(
    program: Program, chip: Chip, cycles: Cycles, fill: float = FILLS[0], in_turn: bool = False, window: int = WINDOW
) -> Schedule:
    """The same ops in an order that keeps the engines busy. Bits cannot change: every conflict keeps its order.

    What stands before, in and after the loop is scheduled by itself. Ops may fill the share `fill` of each memory.
    With `in_turn`, a load waits while an older one waits for memory, so that large blocks are not kept out by many
    small ones.
    """
    loop, count = program.loop, len(program.ops)
    borders = (0, count) if loop is None else (0, loop.first, loop.end, count)
    ops: list[Op] = []
    times: list[tuple[int, int]] = []
    total = end_of_part = 0
    for first, last in pairwise(borders):
        part = Program(program.ops[first:last])
        crossing = frozenset(  # alive beyond these ops, and so throughout
            buffer for buffer, (a, b) in program.live.items() if a < last and b >= first and (a < first or b >= last)
        )
        start, finish, result = (frozen([0] * len(part.ops)) for _ in range(3))
        memories = _memories(part, chip, fill, crossing)
        order(_work(part, cycles, memories), memories.state, _machine(chip), window, in_turn, start, finish, result)
        times += [(end_of_part + int(start[i]), end_of_part + int(finish[i])) for i in result]
        ops += [part.ops[i] for i in result]
        end = int(max(finish, default=0))
        total += end * (loop.count if loop is not None and first == loop.first else 1)
        end_of_part += end
    return Schedule(Program(tuple(ops), loop), tuple(times), total)


@dataclass(frozen=True)
class _Touched:
    """Which buffers of the two memories the ops touch, by number, and the memories before the first op."""

    by_op: Sequence[Sequence[int]]
    state: Memories


def _memories(part: Program, chip: Chip, fill: float, resident: frozenset[Buffer]) -> _Touched:
    """Both memories for the ops of `part`, of which they may fill the share `fill`; what is `resident` takes its bytes
    throughout."""
    limits = [int(chip.sram.bytes * fill), int(chip.acc.bytes * fill)]
    for buffer in resident:
        if buffer.space in SPACES:
            limits[SPACES.index(buffer.space)] -= _bytes(buffer)
    live = {b: ends for b, ends in part.live.items() if b.space in SPACES and b not in resident}
    number = {buffer.name: n for n, buffer in enumerate(live)}
    memory, sizes = [SPACES.index(b.space) for b in live], [_bytes(b) for b in live]
    by_op = [list({number.get(r.buffer.name, -1): 0 for r in op.views if r is not None}) for op in part.ops]
    readers: list[list[int]] = [[] for _ in live]
    change, size = [[0] * (len(part.ops) + 1) for _ in SPACES], [0] * (2 * len(part.ops))
    for (first, last), m, taken in zip(live.values(), memory, sizes, strict=True):
        change[m][first] += taken
        change[m][last + 1] -= taken
    for index, touched in enumerate(by_op):
        if -1 in touched:  # what has no place in these memories, or is resident
            touched.remove(-1)
        for b in touched:
            readers[b].append(index)
            size[2 * index + memory[b]] += sizes[b]
    counts = [memory.count(m) for m in range(len(SPACES))]
    none, begins = [0] * len(live), [0, counts[0]]
    return _Touched(
        by_op,
        Memories(
            limit=frozen(limits),
            alive=frozen([alive for of in change for alive in list(accumulate(of))[:-1]]),
            memory=frozen(memory),
            bytes=frozen(sizes),
            first=frozen([first for first, _ in live.values()]),
            **_flat("readers", readers),
            waiting=frozen([len(ops) for ops in readers]),
            last=frozen(none),
            new=frozen([1] * len(live)),
            size=frozen(size),
            taken=frozen([0, 0]),
            now=frozen([0, 0]),
            free_times=frozen(none),
            free_bytes=frozen(none),
            free_first=frozen(begins),
            free_end=frozen(begins),
        ),
    )


def _work(part: Program, cycles: Cycles, touched: _Touched) -> Work:
    number = {engine: n for n, engine in enumerate(QUEUES)}
    before = predecessors(part.ops)
    later: list[list[int]] = [[] for _ in part.ops]
    for index, earlier in enumerate(before):
        for other in earlier:
            later[other].append(index)
    return Work(
        engines=frozen([number[op.row.engine] for op in part.ops]),
        cycles=frozen([cycles(op) for op in part.ops]),
        missing=frozen([len(earlier) for earlier in before]),
        **_flat("later", later),
        **_flat("buffers", touched.by_op),
    )


def _machine(chip: Chip) -> Machine:
    """Engines that have nothing to do yet."""
    depth = [int(getattr(chip.queues, engine.value)) for engine in QUEUES]
    latency = {Engine.MXU: drain_cycles(chip.mxu), **dict.fromkeys(DMA_ENGINES, chip.dram.latency_cycles)}
    none = [0] * len(QUEUES)
    return Machine(
        dma=frozen([int(engine in DMA_ENGINES) for engine in QUEUES]),
        latency=frozen([latency.get(engine, 0) for engine in QUEUES]),
        depth=frozen(depth),
        queued=frozen([0] * sum(depth)),
        queued_first=frozen([0, *accumulate(depth)][:-1]),
        given=frozen(none),
        free=frozen(none),
        clock=frozen([0, 0]),
    )


def _flat(name: str, lists: Sequence[Sequence[int]]) -> dict[str, Vector]:
    """The fields `name` and `name`_first: all lists behind each other, and where each begins and the last ends."""
    flat = [item for items in lists for item in items]
    return {name: frozen(flat), f"{name}_first": frozen([0, *accumulate(map(len, lists))])}


def _bytes(buffer: Buffer) -> int:
    return -(-buffer.bytes // ALIGN) * ALIGN
