"""A debugging session: one launch, its breakpoints, and what may be asked about it. Knows no terminal and prints
nothing.

session = Session(image, inputs)
session.points.add("activation", session.stepper.memory, nodes=[session.nodes.number("activation")])
stop = session.run()         Stop(reason="breakpoint", ...)
session.collect(7).value     node 7 as far as it is written
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from isa.errors import InputError, Trap
from isa.image.image import Image
from runtime.debug.history import BUDGET
from runtime.debug.launch import Launch, NotYet, Reference
from runtime.debug.points import Condition, Points
from runtime.debug.stepper import Edit, Effect
from runtime.device.arrays import Array


@dataclass(frozen=True)
class Stop:
    """Why execution stopped: `reason` is one word for programs, `text` one line for people."""

    reason: str
    text: str = ""


class Session(Launch):
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
        super().__init__(image, inputs, reference, entry, scalars, budget, max_instructions)
        self.points = Points()
        self.interrupted = False
        self._failed = ""  # why the condition that was asked last has no value

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
        mnemonic = inst.mnemonic if inst is not None else ""
        self._failed = ""
        point = self.points.before(stepper.pc, mnemonic, self._arriving(), self._holds)
        if point is not None:
            return self._stop("breakpoint", f"breakpoint {point.number}: {point}")
        return Stop("dbg", "the instruction is marked dbg") if inst is not None and inst.dbg else None

    def _after(self, effect: Effect) -> Stop | None:
        if not effect.writes:
            return None
        self._failed = ""
        hit = self.points.after(effect, self.stepper.memory, self._holds)
        if hit is None:
            return None
        point, what = hit
        kind = "watch" if point.watch is not None else "breakpoint"
        return self._stop(kind, f"{kind} {point.number}: {what} by the instruction at {effect.pc:#06x}")

    def _holds(self, condition: Condition) -> bool:
        """Whether a point stops: its condition is true, or has no value, which is said then."""
        self._failed = ""
        try:
            return condition.holds(self)
        except NotYet as error:
            self._failed = error.what
            return True

    def _stop(self, reason: str, text: str) -> Stop:
        """At the point whose condition was asked last, if it has one."""
        return (
            Stop("condition", f"{text}; its condition cannot be told: {self._failed}")
            if self._failed
            else Stop(reason, text)
        )

    def unedit(self, time: int, edit: Edit) -> None:
        """Go back to the moment of an edit and take it back, with all that came after."""
        self.seek(time)
        self.stepper.unedit(edit)
        self._forget_future()

    def _forget_future(self) -> None:
        super()._forget_future()
        self.points.refresh(self.stepper.memory)
