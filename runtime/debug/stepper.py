"""A machine that executes one instruction at a time and can go back.

    stepper = Stepper(Executable(image), inputs)
    stepper.step()             one instruction; gives what it did
    stepper.seek(stepper.time - 1)   ... and back

It shares decoding, resolving and handlers with `emulator.machine`, so an instruction means the same here and there.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from emulator import control
from emulator.budget import Budget
from emulator.context import Call, Core, Probe
from emulator.decoded import Decoded, bind, decode_at, resolve
from emulator.memory import Fault, Scratch
from emulator.threads import single_threaded_blas
from emulator.traps import trap_of
from isa.architecture import WORD_BYTES, Engine
from isa.codec import IllegalInstruction, Inst
from isa.errors import Trap
from isa.fields import Access
from isa.views import Extents, View
from runtime.debug.history import BUDGET, History
from runtime.device.arrays import Array
from runtime.device.executable import Executable

NO_CALL = Call({}, {}, {}, {})


@dataclass(frozen=True, slots=True)
class Block:
    """An operand of an executed instruction: which bytes."""

    name: str
    view: View
    extents: Extents


@dataclass(frozen=True, slots=True)
class Effect:
    """One executed instruction. `time` counts the instructions executed before it; `call` has no blocks when the
    instruction did nothing."""

    time: int
    pc: int
    indices: tuple[int, ...]
    inst: Inst
    call: Call
    reads: tuple[Block, ...]
    writes: tuple[Block, ...]


class Edit(Protocol):
    """A change that the user makes between two instructions (runtime/debug/edits.py). Making it twice is making it
    once."""

    @property
    def number(self) -> int: ...

    @property
    def block(self) -> Block | None:
        """The memory that it writes."""
        ...

    def make(self, core: Core) -> None: ...


class Stepper:
    """One launch of an image, instruction by instruction, forwards and backwards.

    Edits are part of the launch: whoever goes back and comes again meets them again, at the moment they were made.
    """

    def __init__(
        self,
        device: Executable,
        inputs: Mapping[str, Array],
        entry: str | None = None,
        scalars: Mapping[str, int] | None = None,
        budget: int = BUDGET,
    ) -> None:
        self.device, self.image = device, device.image
        self.entry, self.memory = device.prepare(inputs, entry, scalars)
        self.code = bytes(self.image.code)
        self._instructions: dict[int, Decoded] = {}
        self.core = Core(self.memory, Scratch(), self.image.words, self.entry.pc // WORD_BYTES, [])
        self.memory.launch()
        self.time = 0
        self.last: Effect | None = None
        self.history = History(self.core, budget)
        self._purse = None if device.max_instructions is None else Budget.of(device.max_instructions)
        self._furthest = 0
        self.edits: list[tuple[int, Edit]] = []  # with the time of each, in order

    @property
    def pc(self) -> int:
        return self.core.index * WORD_BYTES

    @property
    def exit(self) -> int | None:
        return self.core.exit

    def ended(self) -> bool:
        return self.core.exit is not None

    @property
    def indices(self) -> tuple[int, ...]:
        return tuple(self.core.indices)

    def next_inst(self) -> Inst | None:
        """The instruction about to execute, or None at the end or at an illegal instruction."""
        if self.exit is not None:
            return None
        try:
            return self._instruction(self.core.index).inst
        except (Fault, IllegalInstruction):
            return None

    def next_call(self) -> Call | None:
        """The next instruction's operands as it will see them, or None if it is to do nothing or to trap."""
        try:
            return resolve(self.core, self._instruction(self.core.index)) if self.exit is None else None
        except (Fault, IllegalInstruction):
            return None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around many steps: numpy keeps quiet, BLAS keeps to one thread."""
        with np.errstate(all="ignore"), single_threaded_blas():
            yield

    def step(self) -> Effect:
        """Execute one instruction. Raises Trap, and then everything is as it was before the instruction."""
        assert self.core.exit is None, "the program has ended"
        self.history.advance(self.time)
        here, loops = self.core.index, self.indices
        try:
            instruction = self._instruction(here)
            self._pay(instruction)
            self.core.index += 1
            effect = self._execute(instruction, here, loops)
            while self.core.loops and self.core.index == self.core.loops[-1].end:
                control.next_iteration(self.core)
        except (Fault, IllegalInstruction) as fault:
            self._replay(self.time)
            raise self._trap(fault, here) from fault
        self.time += 1
        self.last = effect
        self._edit_again()
        return effect

    def edit(self, edit: Edit) -> None:
        """Change the machine now, and forget the edits of a future that is no more. Raises Fault, and then nothing has
        changed."""
        self._make(edit)
        self.edits = [known for known in self.edits if known[0] <= self.time]
        self.edits.append((self.time, edit))
        self._furthest = min(self._furthest, self.time)

    def unedit(self, edit: Edit) -> None:
        """Take an edit of this moment back."""
        now = self.time
        self.edits = [known for known in self.edits if known[0] <= now and known[1] is not edit]
        self._replay(max(now - 1, 0))  # a checkpoint of this very moment may hold what was edited
        self.seek(now)

    def _edit_again(self) -> None:
        for time, edit in self.edits:
            if time == self.time:
                self._make(edit)

    def _make(self, edit: Edit) -> None:
        block = edit.block
        if block is not None:
            self.memory.store_of(block.view).check(block.view, block.extents)
            self.history.keep(block.view, block.extents)
        edit.make(self.core)

    def _pay(self, instruction: Decoded) -> None:
        """Going where the launch has been before costs nothing."""
        if self._purse is not None and self.time >= self._furthest:
            self._purse.spend(instruction.operands)
            self._furthest = self.time + 1

    def seek(self, time: int) -> None:
        """Go to the moment after `time` instructions, wherever it lies."""
        assert time >= 0
        with self.running():
            if time < self.time:
                self._replay(time)
            while self.time < time:
                self.step()

    def _replay(self, time: int) -> None:
        self.time = self.history.rewind(time)
        self.last = None
        self._edit_again()  # a checkpoint may have been taken before the edits of its moment
        while self.time < time:
            self.step()

    def _instruction(self, index: int) -> Decoded:
        instruction = self._instructions.get(index)
        if instruction is None:
            instruction = self._instructions[index] = decode_at(self.code, index)
        return instruction

    def _execute(self, instruction: Decoded, here: int, indices: tuple[int, ...]) -> Effect:
        call = resolve(self.core, instruction)
        reads, writes = [], []
        if call is not None:
            for operand in instruction.views:
                name = operand.field.name
                block = Block(name, call.views[name], call.extents[name])
                if operand.access is not Access.W:
                    reads.append(block)
                if operand.access is not Access.R:
                    writes.append(block)
                    self.history.keep(block.view, block.extents)
            bind(self.core, instruction, call)
            instruction.handler(self.core, call)
        return Effect(
            self.time, here * WORD_BYTES, indices, instruction.inst, call or NO_CALL, tuple(reads), tuple(writes)
        )

    def _trap(self, fault: Exception, index: int) -> Trap:
        node = self.image.debug.node_at(index * WORD_BYTES, self.indices)
        return trap_of(fault, self.code, index, node.place if node else "")

    def tell(self, probe: Probe, effect: Effect) -> None:
        """Show an instruction to a probe made for `Machine.run`."""
        if effect.call is not NO_CALL and effect.inst.row.engine is not Engine.CTL:
            probe(effect.pc, effect.indices, effect.inst, effect.call.operands, effect.call.views, self.memory)
