"""Launches by their expanded program: translated once (`recipes`), expanded for the scalars of a launch (`expand`), and
executed as tables of steps and by handlers. The expansion of the latest scalars is kept.

    first launch     interpreted and checked
    others           [table of 2000 steps] gather …, for any scalars; interpreted where `expand` refuses
"""

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from emulator import threads
from emulator.context import Call, Core
from emulator.decoded import Decoded, bind
from emulator.formats import int_of_bits
from emulator.memory import Fault, Memory, Scratch
from emulator.pieces import Piece
from emulator.replay import copied, executor, expand
from emulator.replay import layout as col
from emulator.replay.executor import Steps, Workspace
from emulator.replay.panels import Panels
from emulator.replay.recipes import Table, Translated, translate
from emulator.replay.recording import Key, aliased
from emulator.replay.rows import WIDTH
from isa.architecture import GIVEN_REGIONS, KEPT_REGIONS, SCALARS, WORD_BYTES, Dtype, Region, Space
from isa.views import View, extents_of

LONGEST: Final = 1 << 18  # steps; a longer launch is interpreted every time
KEPT: Final = 1 << 28  # bytes of expanded programs; the least recently launched ones go
RETRY: Final = 32  # launches


class Grown:
    """Temporary memory per thread, for the largest step so far."""

    def __init__(self) -> None:
        self._needs = np.zeros(4, np.int64)
        self.spaces: list[Workspace] = []

    def for_steps(self, info: Table) -> None:
        needs = info[[col.LONGEST_ROW, col.MOST_ROWS, col.LEFT_BYTES, col.PACKED_BYTES]]
        if not self.spaces or (needs > self._needs).any():
            self._needs = np.maximum(needs, self._needs)
            self.spaces = [executor.workspace(*map(int, self._needs)) for _ in range(threads.WORKERS)]


@dataclass(slots=True)
class Pace:
    """Threads meet at every step, which pays on processors that are free and costs dearly on busy ones. So both ways are
    timed, and the quicker one is taken; now and then the other gets another chance. The bits are the same."""

    launches: int = 0
    seconds: list[float] = field(default_factory=lambda: [0.0, 0.0])  # with all threads, with one

    def run(self, steps: Steps, spaces: list[Workspace]) -> None:
        single = int(self.seconds[1] < self.seconds[0]) if self.launches > 1 else self.launches
        if self.launches % RETRY == RETRY - 1:
            single = 1 - single
        start = time.perf_counter()
        executor.run(steps, spaces[:1] if single else spaces)
        spent = time.perf_counter() - start
        self.seconds[single] = (self.seconds[single] + spent) / 2 if self.launches > 1 else spent
        self.launches += 1


@dataclass(slots=True)
class Compiled:
    """Consecutive steps."""

    steps: Steps
    pace: Pace
    grown: Grown
    at: int = 0  # they cannot trap

    def __call__(self, core: Core) -> None:
        self.pace.run(self.steps, self.grown.spaces)


@dataclass(slots=True)
class Handled:
    """An instruction that its handler executes, with blocks that are bound once, or for each launch where they are
    copies.

    Which rows a gather takes is known only now, so they are checked now, where the memory does not start out
    written.
    """

    at: int
    indices: list[int]
    instruction: Decoded
    call: Call
    again: bool

    def looks(self, memory: Memory) -> bool:
        """Whether it asks which rows were written."""
        lazy = (operand.field.name for operand in self.instruction.views if operand.lazy)
        return any(memory.store_of(self.call.views[name]).shadow is not None for name in lazy)

    def __call__(self, core: Core) -> None:
        core.indices[:] = self.indices
        if self.again:
            self.call.blocks.clear()
            bind(core, self.instruction, self.call)
        core.proven = not any(operand.lazy for operand in self.instruction.views)
        self.instruction.handler(core, self.call)
        core.proven = True


@dataclass(slots=True)
class Plan:
    """A program from one entry on, and what it came to for the latest scalars; these are None if that is unknown."""

    program: Translated
    start: int
    steps: Steps
    origins: Table
    handled: Table
    writes: Table
    loads: Table
    scalars: tuple[int, ...] | None = None
    info: Table = field(default_factory=lambda: np.zeros(col.INFO_WIDTH, np.int64))
    runs: list[tuple[Compiled | Handled, int]] = field(default_factory=list)  # and what must count as written by then
    ordered: bool = False  # a handler looks at what counts as written
    paces: list[Pace] = field(default_factory=list)
    bound: dict[bytes, Handled] = field(default_factory=dict)

    @property
    def exit(self) -> int:
        return int(self.info[col.EXIT])

    @property
    def nbytes(self) -> int:
        program = self.program
        return sum(
            table.nbytes
            for table in (
                self.steps,
                self.handled,
                self.writes,
                self.loads,
                program.code,
                program.recipes,
                program.templates,
            )
        )


class Plans:
    """All of one machine."""

    def __init__(self, memory: Memory, scratch: Scratch) -> None:
        self._memory, self._scratch, self._grown = memory, scratch, Grown()
        self._plans: OrderedDict[tuple[bytes, int], Plan] = OrderedDict()
        self._latest: Plan | None = None  # whose writes the shadows of DRAM have
        self._pieces: list[Piece] = []
        self._places, self._stores = np.zeros((0, col.PIECE_WIDTH), np.int64), np.zeros((0, 0), np.int64)
        self._tabulate()
        self._live = np.zeros((copied.LIVE, copied.COPY_WIDTH), np.int64)
        self._panels = Panels()

    def find(self, key: Key, known: Sequence[Decoded | None], budget: int | None) -> Plan | None:
        """The launch in expanded form; None if it has to be interpreted."""
        code, pc, scalars = key
        plan = self._plans.get((code, pc))
        if plan is None:
            plan = self._plans[code, pc] = _fresh(translate(code, known), pc // WORD_BYTES)
        self._plans.move_to_end((code, pc))
        most = expand.ENDLESS if budget is None else min(budget, expand.ENDLESS)
        kept = plan.scalars == scalars and int(plan.info[col.SPENT]) <= most
        if not (kept and expand.same(plan.loads, int(plan.info[col.LOAD_COUNT]))):
            self._latest = None if self._latest is plan else self._latest
            plan.scalars = None
            if pc % WORD_BYTES or len(code) % WORD_BYTES or len(scalars) > SCALARS:
                return None
            if not self._expand(plan, scalars, most) or not self._bind(plan):
                return None
            plan.scalars = scalars
            self._forget_oldest()
        return plan

    def forget_shadows(self) -> None:
        """Something else is going to run."""
        self._latest = None

    def execute(self, plan: Plan, core: Core) -> Iterator[int]:
        """Run everything; gives the instruction that is about to execute wherever one could trap."""
        writes = plan.writes[: int(plan.info[col.WRITE_COUNT])]
        done = len(writes)
        if self._latest is not plan or plan.ordered:
            self._memory.forget_dram()
            done, self._latest = 0, None
            for number, store in enumerate(self._memory.stores):
                store.grew(int(writes[writes[:, col.WRITE_STORE] == number, col.WRITE_HIGH].max(initial=0)))
        for run, written in plan.runs:
            if written > done:
                expand.mark(writes[done:written], self._stores)
                done = written
            yield run.at
            run(core)
        expand.mark(writes[done:], self._stores)
        self._latest = plan

    def _expand(self, plan: Plan, scalars: Sequence[int], most: int) -> bool:
        program = plan.program
        while True:
            now = np.zeros(SCALARS, np.int64)
            now[: len(scalars)] = [int_of_bits(value) for value in scalars]
            status = expand.expand(
                program.code, program.recipes, program.templates, self._stores, self._places, self._panels.table,
                now, plan.start, most, expand.UNREAD,
                plan.steps, plan.origins, plan.handled, plan.writes, plan.loads, self._panels.missing, self._live, plan.info,
            )  # fmt: skip
            if status == col.FULL and len(plan.steps) < LONGEST:
                plan.steps, plan.handled, plan.writes, plan.loads = (
                    np.empty((2 * len(table), table.shape[1]), np.int64)
                    for table in (plan.steps, plan.handled, plan.writes, plan.loads)
                )
                plan.origins = np.full(len(plan.steps), -1, np.int64)
            elif status == col.JOIN:
                store, low, high = map(int, plan.info[[col.WHERE_STORE, col.WHERE_LOW, col.WHERE_HIGH]])
                self._memory.stores[store].at(low, high)
                self._tabulate()
            elif status != col.DONE:
                return False
            elif not (missing := int(plan.info[col.MISSING_COUNT])) or not self._panels.add(missing, self._pieces):
                self._grown.for_steps(plan.info)
                return True

    def _bind(self, plan: Plan) -> bool:
        """Tables and handlers, in order; false if a handler cannot be given its memory."""
        core = Core(self._memory, self._scratch, len(plan.program.code), plan.start, [])
        core.proven = True
        runs: list[tuple[Compiled | Handled, int]] = []
        bound: dict[bytes, Handled] = {}
        done = tables = 0
        for row in plan.handled[: int(plan.info[col.HANDLED_COUNT])]:
            tables += self._table(plan, runs, tables, done, int(row[col.ROW]))
            done = int(row[col.ROW])
            key = row[col.AT :].tobytes()
            try:
                found = plan.bound.get(key) or _handler(core, plan.program, row)
            except Fault:
                return False
            runs.append((found, int(row[col.WRITTEN])))
            bound[key] = found
        self._table(plan, runs, tables, done, int(plan.info[col.STEP_COUNT]))
        plan.runs, plan.bound = runs, bound
        plan.ordered = any(handled.looks(self._memory) for handled in bound.values())
        return True

    def _table(self, plan: Plan, runs: list[tuple[Compiled | Handled, int]], number: int, first: int, last: int) -> int:
        if first == last:
            return 0
        if number == len(plan.paces):
            plan.paces.append(Pace())
        runs.append((Compiled(plan.steps[first:last], plan.paces[number], self._grown), 0))
        return 1

    def _tabulate(self) -> None:
        """The memories as a table. Pieces that were joined come last."""
        self._pieces = []
        rows, joined = [], []
        places: list[tuple[int, int, int]] = []
        for store in self._memory.stores:
            pieces, row = store.pieces, [0] * col.STORE_WIDTH
            row[col.SIZE], row[col.JOINED] = store.size, -1
            if pieces is None:
                row[col.ADDRESS] = store.data.ctypes.data
                row[col.SHADOW] = 0 if store.written is None else store.written.ctypes.data
            else:
                row[col.FIRST_PIECE], row[col.PIECE_COUNT] = len(places), len(pieces.all)
                self._pieces += pieces.all
                places += [
                    (offset, piece.data.size, piece.data.ctypes.data)
                    for offset, piece in zip(pieces.offsets, pieces.all, strict=True)
                ]
            joined.append(pieces.joined if pieces is not None else None)
            rows.append(row)
        for row, piece in zip(rows, joined, strict=True):
            if piece is not None:
                row[col.JOINED] = len(places)
                self._pieces.append(piece)
                places.append((0, piece.data.size, piece.data.ctypes.data))
        for region in (*GIVEN_REGIONS, *KEPT_REGIONS):
            rows[col.DRAM_STORES + region][col.LOADS] = 1
        self._stores = np.array(rows, np.int64)
        self._places = np.array(places, np.int64).reshape(len(places), col.PIECE_WIDTH)

    def _forget_oldest(self) -> None:
        while len(self._plans) > 1 and sum(plan.nbytes for plan in self._plans.values()) > KEPT:
            self._plans.popitem(last=False)


def _fresh(program: Translated, start: int) -> Plan:
    size = len(program.engine) + 64
    return Plan(
        program,
        start,
        np.empty((size, WIDTH), np.int64),
        np.full(size, -1, np.int64),
        np.empty((size, col.HANDLED_WIDTH), np.int64),
        np.empty((size, col.WRITE_WIDTH), np.int64),
        np.empty((64, 2), np.int64),
    )


def _handler(core: Core, program: Translated, row: Table) -> Handled:
    """Raises Fault for memory that an instruction may not use."""
    at = int(row[col.AT])
    instruction = program.engine[int(program.code[at, 1])]
    operands = dict(instruction.operands)
    if instruction.dynamic:
        operands[instruction.dynamic] = int(row[col.VALUE])
    call = Call(operands, {}, {}, {})
    for number, operand in enumerate(instruction.views):
        name, first = operand.field.name, col.VIEWS_AT + number * col.VALUES
        space, region, dtype, *numbers = map(int, row[first : first + col.VALUES])
        call.views[name] = View(Space(space), Region(region), Dtype(dtype), *numbers)
        call.extents[name] = operand.extents or extents_of(operand.field, operands)
    bind(core, instruction, call)
    indices = [int(index) for index in row[col.INDICES : col.VIEWS_AT]]
    return Handled(at, indices, instruction, call, not aliased(core.memory, call))
