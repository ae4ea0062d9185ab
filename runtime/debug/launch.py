"""One launch of an image that is stepped through: the machine, the graph's nodes, and what may be asked and changed.
Knows no breakpoints; `session.py` has them."""

from array import array
from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

from emulator.memory import Fault
from isa.architecture import WORD_BYTES, Engine
from isa.errors import InputError, Trap
from isa.image.image import Image
from isa.image.records import DebugNode, pick
from isa.views import Extents, View
from runtime.debug.history import BUDGET
from runtime.debug.missing import missing
from runtime.debug.nodes import Collector, Comparison, Nodes, Value
from runtime.debug.stepper import Block, Edit, Effect, Stepper
from runtime.device.arrays import Array
from runtime.device.executable import Executable

ENGINES = tuple(Engine)


class NotYet(InputError):
    """What is asked for has no value at this moment of the launch; at another it may."""


class Reference(Protocol):
    """PyTorch's values, see runtime/debug/reference.py."""

    def compare(self, node: DebugNode, value: Value) -> Comparison: ...


class Launch:
    """`stepper` is the machine, `nodes` the graph."""

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
        self._given: dict[str, Any] = {
            "entry": entry, "scalars": scalars, "budget": budget, "max_instructions": max_instructions,
        }  # fmt: skip
        self.stepper = Stepper(Executable(image, max_instructions=max_instructions), inputs, entry, scalars, budget)
        self.nodes = Nodes(image.debug, image.words)
        self.trap: Trap | None = None
        self._make_reference = reference
        self._reference: Reference | None = None
        self._arrived: dict[int, int] = {}  # node: when its first instruction was reached
        self._tapped: dict[int, int] = {}  # node: when its first element was written
        self.trail = array("I")  # instruction index of every executed instruction, by time

    def of(self, image: Image) -> Self:
        """The same launch of another image of the same model, at its start, without breakpoints and edits."""
        other = type(self)(image, self.inputs, self._make_reference, **self._given)
        other._reference = self._reference
        return other

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

    def edit(self, edit: Edit) -> None:
        """Change the machine now. What came after this moment is forgotten: it may become another. Raises InputError
        for memory that cannot be written."""
        try:
            self.stepper.edit(edit)
        except Fault as fault:
            raise InputError(str(fault)) from fault
        self._forget_future()

    def _forget_future(self) -> None:
        now, self.trap = self.stepper.time, None
        del self.trail[now:]
        self._arrived = {node: time for node, time in self._arrived.items() if time <= now}
        self._tapped = {node: time for node, time in self._tapped.items() if time < now}

    def load(self, view: View, extents: Extents) -> Array:
        """A block of memory. Raises NotYet for bytes that were never written, or are outside."""
        try:
            return self.stepper.memory.load(view, extents)
        except Fault as fault:
            raise NotYet(str(fault)) from fault

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
        """A view register as it stands. Raises NotYet when it was never set."""
        try:
            return self.stepper.core.view(register)
        except Fault as fault:
            raise NotYet(str(fault)) from fault

    def collect(self, number: int) -> Collector:
        """A node's value as far as it is written. Raises InputError when there is none, with the reason, NotYet when there
        is none yet."""
        self._check_tapped(number)
        if self._tapped.get(number, self.stepper.time) >= self.stepper.time:
            raise NotYet(
                f"nothing of node {self.nodes.debug.nodes[number].name} is written yet",
                hint="'finish NODE' runs until it is",
            )
        return self._collected(number)

    def locate(self, number: int, flat: int) -> Block:
        """Where an element of a node's value lies now. Raises InputError where it is not written, or no longer there."""
        value = self.collect(number).value
        collector = self._collected(number, flat)
        name = self.nodes.debug.nodes[number].name
        if value is None or collector.found is None:
            raise InputError(f"that element of {name} is not written yet", hint="'finish NODE' runs until it is")
        view = collector.found.view
        held = self.stepper.memory.load(view, (1, 1, 1)).reshape(()) if view.dtype is value.dtype else None
        if held is None or held.tobytes() != value.flat[flat].tobytes():
            raise InputError(
                f"that element of {name} was written to {view}, where something else is now",
                hint="go back to where the node is written: 'until NODE', then 'finish NODE'",
            )
        return collector.found

    def _check_tapped(self, number: int) -> None:
        if not any(number in tap.nodes for probes in self.nodes.probes.values() for tap in probes):
            what, hint = missing(self.image, self.nodes, number)
            raise InputError(what, hint=hint)

    def _collected(self, number: int, flat: int | None = None) -> Collector:
        """By replay from before its first element to now."""
        now, trap = self.stepper.time, self.trap
        collector = Collector(self.nodes, number, wanted=flat)
        first = self._tapped.get(number, now)
        if first < now:
            with self.stepper.running():
                self.stepper.seek(first)
                while self.stepper.time < now:
                    collector.see(self.stepper.step(), self.stepper.memory)
                    collector.see_edits(self.stepper)
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

    def latest_node(self) -> int | None:
        """The node that was reached last, None before the first."""
        before = {time: node for node, time in self._arrived.items() if time <= self.stepper.time}
        return before[max(before)] if before else None

    def engine_counts(self) -> dict[Engine, tuple[int, int | None]]:
        """Of each engine, how many instructions it has executed, and the pc of the last."""
        counts: dict[Engine, tuple[int, int | None]] = dict.fromkeys(ENGINES, (0, None))
        kinds: dict[int, Engine] = {}
        for index in self.trail[: self.stepper.time]:
            if index not in kinds:
                kinds[index] = self.image.inst(index * WORD_BYTES).row.engine
            counts[kinds[index]] = counts[kinds[index]][0] + 1, index * WORD_BYTES
        return counts
