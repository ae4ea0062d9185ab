"""A debugging session: one launch, its breakpoints, and what may be asked about it. Knows no terminal and prints
nothing.

session = Session(image, inputs)
session.points.add("activation", session.stepper.memory, nodes=[session.nodes.number("activation")])
stop = session.run()         Stop(reason="breakpoint", ...)
session.collect(7).value     node 7 as far as it is written
"""

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from emulator.memory import Fault
from isa.architecture import WORD_BYTES, Engine
from isa.errors import InputError, Trap
from isa.image.image import Image
from isa.image.records import DebugNode, pick
from isa.views import Extents, View
from runtime.debug.history import BUDGET
from runtime.debug.nodes import Collector, Comparison, Nodes, Value
from runtime.debug.points import Points
from runtime.debug.stepper import Effect, Stepper
from runtime.device.arrays import Array
from runtime.device.executable import Executable

ENGINES = tuple(Engine)


class Reference(Protocol):
    """PyTorch's values, see runtime/debug/reference.py."""

    def compare(self, node: DebugNode, value: Value) -> Comparison: ...


@dataclass(frozen=True)
class Stop:
    """Why execution stopped: `reason` is one word for programs, `text` one line for people."""

    reason: str
    text: str = ""


class Session:
    """The model of the debugger; `stepper` is the machine, `points` where it stops."""

    def __init__(
        self,
        image: Image,
        inputs: Mapping[str, Array],
        reference: Callable[[Mapping[str, Array]], Reference] | None = None,
        entry: str | None = None,
        scalars: Mapping[str, int] | None = None,
        budget: int = BUDGET,
        max_instructions: int | None = None,
    ) -> None:
        self.image, self.inputs = image, inputs
        self.stepper = Stepper(Executable(image, max_instructions=max_instructions), inputs, entry, scalars, budget)
        self.nodes = Nodes(image.debug, image.words)
        self.points = Points()
        self.trap: Trap | None = None
        self.interrupted = False
        self._make_reference = reference
        self._reference: Reference | None = None
        self._arrived: dict[int, int] = {}  # node: when its first instruction was reached
        self._tapped: dict[int, int] = {}  # node: when its first element was written
        self.trail = array("I")  # instruction index of every executed instruction, by time

    # ---- moving

    def run(self) -> Stop:
        """Until a breakpoint, a watch, a `dbg` mark, a trap or the end."""
        return self._forward()

    def step(self, count: int = 1) -> Stop:
        target = self.stepper.time + count
        return self._forward(lambda effect: Stop("stepped") if self.stepper.time >= target else None)

    def next(self, count: int = 1) -> Stop:
        """To the first instruction of the next node, or of the next but `count` - 1."""
        left = count

        def arrived(_effect: Effect) -> Stop | None:
            nonlocal left
            node = self._arriving()
            if node is not None:
                left -= 1
            return Stop("node", f"node {self.nodes.debug.nodes[node].name}") if node is not None and not left else None

        return self._forward(arrived)

    def until(self, pc: int | None = None, node: int | None = None) -> Stop:
        """To an instruction, or to the first instruction of a node."""
        return self._forward(
            lambda _: (
                Stop("until") if self.stepper.pc == pc or (node is not None and self._arriving() == node) else None
            )
        )

    def finish(self, node: int) -> Stop:
        """Until every element of a node is written."""
        self._check_tapped(node)
        collector = self._collected(node)
        if collector.complete:
            return Stop("finished", f"node {collector.node.name} is complete already")

        def written(effect: Effect) -> Stop | None:
            collector.see(effect, self.stepper.memory)
            return Stop("finished", f"node {collector.node.name} is complete") if collector.complete else None

        return self._forward(written)

    def seek(self, time: int) -> None:
        """Jump to the moment after `time` instructions. Raises Trap when the program ends or traps before."""
        with self.stepper.running():
            if time < self.stepper.time:
                self.stepper.seek(time)
                self.trap = None
            while self.stepper.time < time and self.stepper.exit is None and not self.interrupted:
                self._one()
        self.points.refresh(self.stepper.memory)

    def back(self, count: int = 1) -> Stop:
        time, self.interrupted = self.stepper.time, False
        self.seek(max(0, time - count))
        return Stop("stepped") if time >= count else Stop("start", "at the start of the program")

    def reverse(self) -> Stop:
        """Back to the latest earlier moment at which a breakpoint or watch would have stopped."""
        limit, self.interrupted = self.stepper.time, False
        begin = self.stepper.history.floor(limit - 1) if limit else 0
        while limit and not self.interrupted:
            hit = self._last_hit(begin, limit)
            if hit is not None:
                self.seek(hit[0])
                return hit[1]
            if not begin:
                break
            limit, begin = begin + 1, self.stepper.history.floor(begin - 1)
        self.seek(0)
        return Stop("start", "at the start of the program")

    def _last_hit(self, begin: int, limit: int) -> tuple[int, Stop] | None:
        """The last moment with begin < moment < limit that stops, and 0 itself if `begin` is 0."""
        self.seek(begin)
        found = None
        with self.stepper.running():
            if begin == 0 and (stop := self._before()):
                found = 0, stop
            while self.stepper.time < limit - 1:
                effect = self._one()
                stop = self._after(effect) or self._before()
                if stop:
                    found = self.stepper.time, stop
        return found

    def _forward(self, extra: Callable[[Effect], Stop | None] = lambda _: None) -> Stop:
        """Execute at least one instruction, then stop where something asks for it."""
        if self.stepper.exit is not None:
            raise InputError(f"the program has ended with exit code {self.stepper.exit}", hint="go back, or 'restart'")
        self.interrupted, self.trap = False, None
        with self.stepper.running():
            while True:
                try:
                    effect = self._one()
                except Trap as trap:
                    self.trap = trap
                    return Stop("trap", f"trap: {trap.what}")
                hit = self._after(effect)
                if self.stepper.ended():
                    return hit or Stop("ended", f"the program has ended with exit code {self.stepper.exit}")
                stop = hit or self._before() or extra(effect)
                if stop:
                    return stop
                if self._was_interrupted():
                    return Stop("interrupted", "interrupted")

    def _was_interrupted(self) -> bool:
        return self.interrupted  # set by a signal handler, meanwhile

    def _one(self) -> Effect:
        """One instruction, noting what is first reached and written: facts about the launch that going back does not
        change."""
        stepper = self.stepper
        if stepper.time == len(self.trail):
            node = self.nodes.at(stepper.pc, stepper.indices)
            if node is not None:
                self._arrived.setdefault(node, stepper.time)
        effect = stepper.step()
        if effect.time == len(self.trail):
            self.trail.append(effect.pc // WORD_BYTES)
            for tap in self.nodes.probes.get(effect.pc, ()):
                if any(block.name == tap.operand for block in effect.writes):
                    self._tapped.setdefault(pick(tap.nodes, tap.level, effect.indices), effect.time)
        return effect

    def _arriving(self) -> int | None:
        """The node whose first instruction comes next: of a graph once in a launch, of a hand-written program (a line)
        in every iteration of a loop."""
        node = self.nodes.at(self.stepper.pc, self.stepper.indices) if self.stepper.exit is None else None
        if self.stepper.pc in self.nodes.lines:
            return node
        return node if node is not None and self._arrived.get(node, self.stepper.time) == self.stepper.time else None

    def _before(self) -> Stop | None:
        stepper = self.stepper
        if stepper.exit is not None:
            return None
        inst = stepper.next_inst()
        point = self.points.before(stepper.pc, inst.mnemonic if inst is not None else "", self._arriving())
        if point is not None:
            return Stop("breakpoint", f"breakpoint {point.number}: {point.text}")
        return Stop("dbg", "the instruction is marked dbg") if inst is not None and inst.dbg else None

    def _after(self, effect: Effect) -> Stop | None:
        if not effect.writes:
            return None
        hit = self.points.after(effect, self.stepper.memory)
        if hit is None:
            return None
        point, what = hit
        kind = "watch" if point.watch is not None else "breakpoint"
        return Stop(kind, f"{kind} {point.number}: {what} by the instruction at {effect.pc:#06x}")

    # ---- looking

    def load(self, view: View, extents: Extents) -> Array:
        """A block of memory. Raises InputError for bytes outside, or never written."""
        try:
            return self.stepper.memory.load(view, extents)
        except Fault as fault:
            raise InputError(str(fault)) from fault

    def extents_of(self, register: int) -> tuple[View, Extents] | None:
        """A view register with the extents that the next instruction, or else the last one, gives it."""
        call, inst = self.stepper.next_call(), self.stepper.next_inst()
        if call is not None and inst is not None:
            named = inst.named()
            for name, view in call.views.items():
                if named[name] == register:
                    return view, call.extents[name]
        last = self.stepper.last
        for block in (*last.writes, *last.reads) if last else ():
            if last is not None and last.inst.named()[block.name] == register:
                return block.view, block.extents
        return None

    def view(self, register: int) -> View:
        """A view register as it stands. Raises InputError when it was never set."""
        try:
            return self.stepper.core.view(register)
        except Fault as fault:
            raise InputError(str(fault)) from fault

    def collect(self, number: int) -> Collector:
        """A node's value as far as it is written. Raises InputError when there is none, with the reason."""
        self._check_tapped(number)
        if self._tapped.get(number, self.stepper.time) >= self.stepper.time:
            raise InputError(
                f"nothing of node {self.nodes.debug.nodes[number].name} is written yet",
                hint="'finish NODE' runs until it is",
            )
        return self._collected(number)

    def _check_tapped(self, number: int) -> None:
        if not any(number in tap.nodes for probes in self.nodes.probes.values() for tap in probes):
            raise InputError(f"{self.nodes.explain(number)}; it has no value in memory")

    def _collected(self, number: int) -> Collector:
        """By replay from before its first element to now."""
        now, trap = self.stepper.time, self.trap
        collector = Collector(self.nodes, number)
        first = self._tapped.get(number, now)
        if first < now:
            with self.stepper.running():
                self.stepper.seek(first)
                while self.stepper.time < now:
                    collector.see(self.stepper.step(), self.stepper.memory)
        self.trap = trap
        return collector

    def compare(self, number: int) -> Comparison:
        """A node beside PyTorch's value, bit for bit. The first call loads the model. Raises InputError when the
        session has no model."""
        collector = self.collect(number)
        if self._reference is None:
            if self._make_reference is None:
                raise InputError(
                    "there is no model to compare with", hint="start with 'llmcc debug FILE --model MODEL'"
                )
            self._reference = self._make_reference(self.inputs)
        value = collector.value
        assert value is not None
        return self._reference.compare(collector.node, value)

    def engine_counts(self) -> dict[Engine, tuple[int, int | None]]:
        """Of each engine, how many instructions it has executed, and the pc of the last."""
        counts: dict[Engine, tuple[int, int | None]] = dict.fromkeys(ENGINES, (0, None))
        kinds: dict[int, Engine] = {}
        for index in self.trail[: self.stepper.time]:
            if index not in kinds:
                kinds[index] = self.image.inst(index * WORD_BYTES).row.engine
            counts[kinds[index]] = counts[kinds[index]][0] + 1, index * WORD_BYTES
        return counts
