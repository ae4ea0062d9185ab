"""Races between engines, and memory never written: a happens-before race detector over the replay of a program, exact
to the byte.

**Program.** A launch dispatches instructions i1, i2, … in program order. An instruction of engine q waits in q's queue;
`issued[q]` counts those dispatched so far. Instruction number n of queue q is written (q, n), n from 1. A compute
engine runs one instruction after the other; the instructions of a DMA queue start and complete in their order, and may
overlap.

**Happens-before.** The *vector clock* C(i) of an instruction says, for each queue q, how many of q's first instructions
are certainly complete when i starts:

    count  q<=n on i      C(i)[q] >= issued[q] - n                       a count waits until at most n instructions of q
                                                                         are outstanding
    fence, halt, sld      the dispatcher itself waits; its clock D is below that of every later instruction
    queue order           C(i) >= C(h) for h just before i in its queue; and C(i)[q] >= number of h if q computes
    transitivity          C(i)[q] >= n  implies  C(i) >= C((q, n))       what a complete instruction had waited for is
                                                                         complete, too

`HappensBefore.dispatch` computes the least clocks that satisfy these rules. Clocks only grow along a queue, so one look
at each of the few queues closes the transitivity.

**State.** Of each byte in use a shadow (lint/shadow_memory.py) holds whether it is defined, and per queue the number of
the last instruction that wrote and that read it. **Invariant:** after i the shadows are those of all instructions up to
i, in program order.

**What must hold** when i touches a byte: of every queue q, the last instruction that wrote it (and, if i writes, that
read it) has a number <= C(i)[q]. Earlier instructions of q come for free: they complete in order. If it holds for all
instructions, any two accesses of a byte of which one writes are ordered by happens-before; every execution that the
hardware rules allow then gives each read the same bytes as program order does. If it fails, the rules allow an
execution in which both are in flight: that is a finding, never a false one, since clocks are what the rules force and
no more.

**Scalars.** Where scalars of a launch steer what operands touch, all of the above is shown for every value of their
range, not for samples of it: `lint.between` says how. What is dispatched, and so C(i), is the same for all values of a
box of them; a box in which a loop count differs is divided. Accesses on which no scalar acts meet as above, once for all
launches. Of the others it is shown that those which nothing orders share no byte, and that what is read was written:
their addresses are functions of the scalars, affine in pieces, and comparisons of these hold in a piece if they hold at
its corners. Where that does not decide, the piece is halved, down to single launches. A finding names a launch in which
it shows.

**Not proved here:** that the chip keeps these rules; anything about data (which rows a gather fetches counts as all
rows); iterations that are left out are proved by induction (lint/induction.py), and what the replay does not reach, or
launches for which the question stays open, are said to be unproved (lint/analyse.py).
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import pairwise

from isa.architecture import DMA_ENGINES, NO_WAIT, QUEUES, WORD_BYTES, Engine, Space
from isa.fields import Access
from isa.image.image import Image
from isa.image.records import Entry
from isa.replay import Dispatch
from isa.views import View
from lint.between import Answer, Between
from lint.check import Findings, Touch
from lint.induction import Snapshot, is_steady
from lint.loop_skipping import SkippedLoop
from lint.shadow_memory import Budget, Memory, Shadow, blocks, memory_of, ready, runs, shadow_of
from lint.sweeps import OperandSweep, conflict, conflict_with_prefix, cost, is_lazy, leave_behind, sweeps_of

Misplaced = Callable[[View, int, int, int], str]  # view, first byte, end, instruction
_ALWAYS = Answer("uninitialized")  # in every launch
_DMA = tuple(engine in DMA_ENGINES for engine in QUEUES)


@dataclass(frozen=True, slots=True)
class Touches:
    """The operands of a replay by instruction, and per memory: the granule of its addresses, its last byte in use, and
    whether anything writes it."""

    by_instruction: Mapping[int, Sequence[Touch]]
    grains: Mapping[Memory, int]
    ends: Mapping[Memory, int]
    written: Set[Memory]


@dataclass
class Proof:
    """What the replay shows: the order of its instructions, and which loops turned out to be no repetition (by pc, with
    the reason)."""

    order: "HappensBefore"
    unsteady: dict[int, str] = field(default_factory=dict)
    clock: list[Sequence[int]] = field(default_factory=list)  # of each instruction
    sweeps: dict[int, list[OperandSweep]] = field(
        default_factory=dict
    )  # of the iterations left out, by the instruction before which they would stand


def group(touches: Iterable[tuple[int, Touch]]) -> Touches:
    by_instruction: dict[int, list[Touch]] = defaultdict(list)
    grains: dict[Memory, int] = defaultdict(int)
    ends: dict[Memory, int] = defaultdict(int)
    written: set[Memory] = set()
    for index, touch in touches:
        by_instruction[index].append(touch)
        memory = memory_of(touch.view)
        grains[memory] = math.gcd(
            grains[memory], *(size for run in runs(touch) for size in (run[0], run[2], run[4], run[5]))
        )
        ends[memory] = max(ends[memory], touch.view.span(touch.extents)[1])
        if touch.access is not Access.R:
            written.add(memory)
    return Touches(by_instruction, grains, ends, written)


def check_hazards(
    image: Image,
    entry: Entry,
    instructions: Sequence[Dispatch],
    touches: Touches,
    findings: Findings,
    skipped: Sequence[SkippedLoop] = (),
    complete: bool = True,
    misplaced: Misplaced | None = None,
    between: Between | None = None,
) -> Proof:
    """Add a finding for each race, read of memory never written, and (of a `complete` replay) output that is not
    written.

    `skipped` are loops of which `instructions` leaves out iterations. Nothing is proved if one turns out not to be
    steady. Raises TooLarge. `misplaced` says why bytes of a view may not be touched. `between`: where operands may be
    steered, what is known of all launches.
    """
    watch = _Watch(skipped, misplaced, between)
    budget, written = Budget(), touches.written
    shadows = {
        memory: shadow_of(image, memory, grain, touches.ends[memory], budget)
        for memory, grain in touches.grains.items() if memory in written or not _is_constant(image, memory)
    }  # fmt: skip
    proof = Proof(HappensBefore())
    for index, instruction in enumerate(instructions):
        if index in watch.marks:
            watch.look(index, instructions, touches, shadows, proof)
        clock = proof.order.dispatch(instruction)
        watch.numbers[index] = proof.order.engine, clock
        proof.clock.append(clock)
        mine = [
            (touch, shadow)
            for touch in touches.by_instruction.get(index, ())
            if (shadow := shadows.get(memory_of(touch.view))) is not None
        ]
        for touch, shadow in mine:
            if not findings.full:
                _check_touch(touch, shadow, proof.order, clock, findings, between)
        for touch, shadow in mine:
            _record(touch, shadow, proof.order)
            if between is not None:
                between.record(touch, proof.order.engine, proof.order.number)
    if complete:
        _check_outputs(entry, instructions, shadows, findings, between)
    return proof


class _Watch:
    """Sees to the loops that are shortened: where iterations are left out, that what was seen so far is enough."""

    def __init__(
        self, skipped: Sequence[SkippedLoop], misplaced: Misplaced | None, between: Between | None = None
    ) -> None:
        self.misplaced, self.between = misplaced, between
        done = [loop for loop in skipped if loop.at]
        self.marks = {number for loop in done for number in (loop.begin, loop.before, loop.at)}
        self.ending: dict[int, list[SkippedLoop]] = defaultdict(list)
        for loop in done:
            self.ending[loop.at].append(loop)
        self.seen: dict[int, Snapshot] = {}
        self.cells = 0  # looked at so far
        self.numbers: dict[int, tuple[int, Sequence[int]]] = {}

    def look(
        self,
        index: int,
        instructions: Sequence[Dispatch],
        touches: Touches,
        shadows: Mapping[Memory, Shadow],
        proof: Proof,
    ) -> None:
        """Remember a moment, and judge the loops of which iterations are left out here."""
        order = proof.order
        self.seen[index] = Snapshot(list(order.issued), list(order.dispatched))
        for loop in self.ending.get(index, ()):
            sweeps, start, before = (
                sweeps_of(loop, instructions, touches.by_instruction, self.numbers, proof.sweeps),
                self.seen[loop.begin],
                self.seen[loop.before],
            )
            problem = "its iterations differ" if sweeps is None else "what its instructions wait for does not repeat"
            if sweeps is not None and is_steady(start.issued, before, self.seen[index], order.clocks):
                self.cells += cost(sweeps, shadows)
                problem = conflict(sweeps) or self._stray(sweeps) or conflict_with_prefix(sweeps, shadows, self.cells)
            if sweeps is None or problem:
                proof.unsteady[loop.pc] = problem
                return
            issued = [b + b - a for a, b in zip(before.issued, order.issued, strict=True)]
            leave_behind(sweeps, shadows, issued)
            if self.between is not None:
                self.between.leave_out(sweeps, issued)
            proof.sweeps.setdefault(index, []).extend(sweeps)

    def _stray(self, sweeps: Sequence[OperandSweep]) -> str:
        """An operand that does not stay inside one buffer in the iterations left out."""
        for sweep in sweeps:
            instruction = sweep.touch.instruction
            if (
                sweep.stride_per_period
                and self.misplaced
                and self.misplaced(sweep.touch.view, *sweep.left_out(), instruction.pc // WORD_BYTES)
            ):
                return (
                    f"operand {sweep.touch.field.name} at pc {instruction.pc:#06x} leaves its buffer in some iteration"
                )
        return ""


def _is_constant(image: Image, memory: Memory) -> bool:
    """Whether all of a memory is defined before the launch, so that reading it needs no shadow."""
    return memory[0] is Space.DRAM and ready(image, memory) == image.size(memory[1])


class HappensBefore:
    """Which instructions are certainly complete when an instruction starts."""

    def __init__(self, without: Set[int] = frozenset()) -> None:
        self.without = without  # fences, by pc, that are taken out
        self.issued = [0] * len(QUEUES)
        self.pcs: list[list[int]] = [[] for _ in QUEUES]
        self.clocks: list[list[list[int]]] = [[] for _ in QUEUES]  # per engine and instruction: its clock vector
        self.dispatched = [0] * len(QUEUES)  # known to be complete by the dispatcher itself
        self.engine, self.number = -1, 0
        self.implied: dict[tuple[int, int], bool] = {}  # (pc, queue): whether the other waits always imply this one

    def dispatch(self, instruction: Dispatch) -> list[int]:
        """The clock vector of the next instruction. Its own number is then `number` on queue `engine` (-1: the
        dispatcher)."""
        self.engine = QUEUES.index(instruction.engine) if instruction.engine is not Engine.CTL else -1
        clock = list(self.dispatched)
        if instruction.pc in self.without:
            return clock
        waits = [count if count != NO_WAIT else None for count in instruction.inst.deps]
        mask = instruction.inst.row.drained(instruction.operands)
        least: list[int] = []  # instructions per queue that its wait leaves complete
        for queue, count in enumerate(waits):
            if mask >> queue & 1:
                count = 0
            least.append(self.issued[queue] - count if count is not None else 0)
        if self.engine >= 0 and self.issued[self.engine]:
            clock = _merge(clock, self.clocks[self.engine][-1])  # queues are in order: it started before this one
            if not _DMA[self.engine]:
                clock[self.engine] = self.issued[self.engine]
        self._note_implied(instruction.pc, waits, least, clock, mask)
        clock = self._joined(clock, enumerate(least))
        if self.engine < 0:
            self.dispatched = clock
        else:
            self.issued[self.engine] += 1
            self.number = self.issued[self.engine]
            self.pcs[self.engine].append(instruction.pc)
            self.clocks[self.engine].append(clock)
        return clock

    def _joined(self, clock: list[int], least: Iterable[tuple[int, int]]) -> list[int]:
        """Known after waiting until `least` instructions of the queues are complete: these, and what they knew."""
        for queue, count in least:
            if count > clock[queue]:
                clock = _merge(clock, self.clocks[queue][count - 1])
                clock[queue] = max(clock[queue], count)
        for queue, count in enumerate(tuple(clock)):
            if count:
                clock = _merge(clock, self.clocks[queue][count - 1])
        return clock

    def _note_implied(
        self, pc: int, waits: Sequence[int | None], least: Sequence[int], clock: list[int], mask: int
    ) -> None:
        """Remember which counts of the instruction the others imply; in a loop only if they do so every time."""
        for queue, count in enumerate(waits):
            if count is not None and self.implied.get((pc, queue), True):
                without = self._joined(list(clock), ((other, n) for other, n in enumerate(least) if other != queue))
                self.implied[pc, queue] = bool(mask >> queue & 1) or without[queue] >= least[queue]


def needless_fences(instructions: Sequence[Dispatch], proof: Proof, most: int) -> set[int]:
    """Fences, by pc, that may all be taken out, and every instruction still knows the same of the others. At most so
    many are looked at.

    A fence right before a loop is not questioned: it makes the first iteration like the others, so that counts inside
    need only hold between iterations.
    """
    found: set[int] = set()
    fences = [
        instruction.pc
        for instruction, after in pairwise(instructions)
        if instruction.inst.mnemonic == "fence" and after.inst.mnemonic != "loop"
    ]
    for pc in list(dict.fromkeys(fences))[:most]:
        order = HappensBefore({*found, pc})
        if all(
            order.dispatch(instruction) == clock or not instruction.inst.row.views
            for instruction, clock in zip(instructions, proof.clock, strict=True)
        ):
            found.add(pc)
    return found


def _merge(a: list[int], b: list[int]) -> list[int]:
    return [x if x > y else y for x, y in zip(a, b, strict=True)]


def _record(touch: Touch, shadow: Shadow, order: HappensBefore) -> None:
    may = "may " if touch.steered is not None else ""
    for block in blocks(touch):
        if touch.access is not Access.R and not may:
            shadow.part(shadow.defined, block)[...] = True
        if order.engine < 0:
            continue  # the dispatcher has read its scalar before anything later is dispatched
        for what, concerned in (("writes", touch.access is not Access.R), ("reads", touch.access is not Access.W)):
            if concerned:
                shadow.part(shadow.array(may + what, order.engine), block)[...] = order.number


def _check_touch(
    touch: Touch, shadow: Shadow, order: HappensBefore, clock: list[int], findings: Findings, between: Between | None
) -> None:
    for block in blocks(touch):
        if touch.access is not Access.W and not is_lazy(touch):
            cells = shadow.part(shadow.defined, block)
            if not cells.all():
                _report_unwritten(touch, findings, between.is_written(touch) if between is not None else _ALWAYS)
        # an instruction's own number is not recorded yet; of its own engine everything before counts like any other
        # engine's instructions
        for queue in range(len(QUEUES)):
            done, issued = clock[queue], order.issued[queue] - (queue == order.engine)
            if done >= issued:
                continue
            doubtful = False
            for what in ("writes",) if touch.access is Access.R else ("writes", "reads"):
                latest = shadow.latest(what, queue, block)
                if latest > done and touch.steered is None:
                    other = order.pcs[queue][min(latest, issued) - 1]  # iterations left out may stand for later ones
                    _report_race(touch, findings, queue, other, what, Answer("race"))
                doubtful |= max(latest if touch.steered else 0, shadow.latest(f"may {what}", queue, block)) > done
            for number, what, answer in between.meeting(touch, queue, done) if between is not None and doubtful else ():
                _report_race(touch, findings, queue, order.pcs[queue][min(number, issued) - 1], what, answer)


def _report_unwritten(touch: Touch, findings: Findings, answer: Answer) -> None:
    instruction, name = touch.instruction, touch.field.name
    if answer.kind:
        message = f"operand {name} = {_place(touch)} reads bytes that were never written{_indices(instruction)}"
        where = instruction.pc, instruction.inst, message + answer.launch, None, name, instruction.indices
        findings.add(answer.kind, *where)


def _report_race(touch: Touch, findings: Findings, queue: int, other: int, what: str, answer: Answer) -> None:
    instruction, name = touch.instruction, touch.field.name
    doing = "writes" if touch.access is Access.W else "reads"
    message = (
        f"{doing} {name} = {_place(touch)}{_indices(instruction)} while {QUEUES[queue].value} instruction at pc "
        f"{other:#06x}, which {what} it, may be running{answer.launch}"
    )
    findings.add(answer.kind, instruction.pc, instruction.inst, message, other, name, instruction.indices)


def _place(touch: Touch) -> View:
    """For messages: of a steered operand where it begins without its scalars."""
    return touch.view if touch.steered is None else touch.steered.dispatch.views.get(touch.field.name, touch.view)


def _check_outputs(
    entry: Entry,
    instructions: Sequence[Dispatch],
    shadows: dict[Memory, Shadow],
    findings: Findings,
    between: Between | None,
) -> None:
    for tensor in entry.outputs:
        shadow = shadows.get((Space.DRAM, tensor.region))
        first, end = tensor.offset, tensor.offset + tensor.nbytes
        if first < end and (
            shadow is None
            or end > shadow.cells * shadow.grain
            or not shadow.defined[first // shadow.grain : -(-end // shadow.grain)].all()
        ):
            last = instructions[-1]
            answer = between.is_output_written(tensor) if between is not None else _ALWAYS
            message = f"output {tensor.name} is not completely written at the end{answer.launch}"
            if answer.kind:
                kind = "unproved" if answer.kind == "unproved" else "output"
                findings.add(kind, last.pc, last.inst, message, None, tensor.name)


def _indices(instruction: Dispatch) -> str:
    return f" (loop indices {', '.join(map(str, instruction.indices))})" if any(instruction.indices) else ""
