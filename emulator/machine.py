"""The functional machine: decodes a program once and executes its instructions in program order.

Engines run side by side on the chip, but a correct program's dependence counts make that invisible, so here they take
turns.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np

from emulator import control
from emulator.adversarial import Overlapped
from emulator.budget import Budget
from emulator.context import Core, Probe
from emulator.decoded import ENGINE_MODULES, Decoded, bind, decode_at, resolve
from emulator.formats import int_of_bits
from emulator.memory import Bank, Fault, Memory
from emulator.pieces import Bytes, Pieces
from emulator.replay.recording import Recording
from emulator.replay.replays import Replays
from emulator.threads import single_threaded_blas
from emulator.traps import trap_of
from isa.architecture import SCALARS, WORD_BYTES, Engine, Region
from isa.codec import IllegalInstruction

__all__ = ["ENGINE_MODULES", "Machine", "Probe"]
CACHED_PROGRAMS = 8
NOTHING: Mapping[str, int] = {}  # operands of an instruction that does nothing


class Machine:
    """One chip with its memories. `regions` are shared, not copied; those in `initialised` count as written. With
    `bank` another machine's SRAM and ACC are used, and the caller holds the bank's lock.

    The first launch of a program goes instruction by instruction; others, with whatever scalars, are expanded and
    compiled (emulator/replay/plans.py): the same bits, sooner; only what is left in SRAM and ACC may differ. With
    `interpret` every launch goes instruction by instruction; without `compiled`, launches with the same scalars are
    repeated without numba. `interpreted` counts the launches that went instruction by instruction.
    """

    def __init__(
        self,
        sram_bytes: int,
        acc_bytes: int,
        regions: Mapping[Region, Bytes | Pieces] | None = None,
        initialised: Collection[Region] = frozenset(),
        interpret: bool = False,
        compiled: bool = True,
        bank: Bank | None = None,
    ) -> None:
        bank = bank or Bank(sram_bytes, acc_bytes)
        self.memory = Memory(bank, regions or {}, initialised)
        self._replays = None if interpret else Replays(self.memory, bank.scratch, compiled)
        self._scratch = bank.scratch
        self.interpreted = 0
        self._programs: dict[bytes, list[Decoded | None]] = {}

    def run(
        self,
        code: bytes,
        pc: int = 0,
        scalars: Sequence[int] = (),
        probe: Probe | None = None,
        node_of: Callable[[int, Sequence[int]], str] | None = None,
        adversarial: int | None = None,
        budget: int | None = None,
    ) -> int:
        """Execute from byte address `pc` until `halt`; returns its exit code. Raises Trap, and OverBudget after
        `budget` instructions.

        `adversarial` is a seed: the engines then overlap in some order that the dependence counts allow
        (emulator/adversarial.py).
        """
        core = Core(
            self.memory, self._scratch, len(code) // WORD_BYTES, pc // WORD_BYTES, [int_of_bits(s) for s in scalars]
        )
        overlapped = None if adversarial is None else Overlapped(core, adversarial, probe)
        replays = self._replays if probe is None and adversarial is None else None
        key = code, pc, tuple(scalars)
        found = replays.find(key, budget) if replays else None
        if replays and found:
            self._replay(replays.execute(found, core), core, code, node_of)
            return found.exit
        if self._replays:
            self._replays.forget_shadows()
        self.interpreted += 1
        recording = replays.recording() if replays else None
        purse = None if budget is None else Budget.of(budget)
        instructions = self._decoded(code)
        self.memory.launch()
        here = core.index
        try:
            if pc % WORD_BYTES or len(code) % WORD_BYTES or len(scalars) > SCALARS:
                raise Fault(f"cannot start at {pc:#x} with {len(code)} bytes of code and {len(scalars)} scalars")
            with np.errstate(all="ignore"), single_threaded_blas():
                while core.exit is None:
                    here = core.index
                    instruction = instructions[here] if 0 <= here < len(instructions) else None
                    if instruction is None:
                        instruction = decode_at(code, here)
                        instructions[here] = instruction
                    core.index += 1
                    if overlapped is None:
                        _execute(core, instruction, probe, recording, purse)
                    else:
                        if purse is not None:
                            purse.spend(instruction.operands)
                        overlapped.dispatch(instruction, here)
                    while core.loops and core.index == core.loops[-1].end:
                        control.next_iteration(core)
        except (Fault, IllegalInstruction) as fault:
            at = here if overlapped is None or overlapped.at is None else overlapped.at
            raise trap_of(fault, code, at, node_of(at * WORD_BYTES, core.indices) if node_of else "") from fault
        if replays and replays.keep(key, recording, core.exit, instructions):
            self._programs.pop(code, None)  # its instructions are not needed again
        return core.exit

    def _replay(
        self,
        running: Iterator[int],
        core: Core,
        code: bytes,
        node_of: Callable[[int, Sequence[int]], str] | None,
    ) -> None:
        here, core.proven = core.index, True
        try:
            with np.errstate(all="ignore"), single_threaded_blas():
                for here in running:  # noqa: B007 - where it was when something trapped
                    pass
        except Fault as fault:
            raise trap_of(fault, code, here, node_of(here * WORD_BYTES, core.indices) if node_of else "") from fault

    def _decoded(self, code: bytes) -> list[Decoded | None]:
        """Instructions are decoded when first reached, so that an illegal instruction traps only if it is executed."""
        instructions = self._programs.get(code)
        if instructions is None:
            if len(self._programs) >= CACHED_PROGRAMS:
                self._programs.pop(next(iter(self._programs)))
            instructions = self._programs[code] = [None] * (len(code) // WORD_BYTES)
        return instructions


def _execute(
    core: Core, instruction: Decoded, probe: Probe | None, recording: Recording | None, purse: Budget | None
) -> None:
    at = core.index - 1
    call = resolve(core, instruction)
    if purse is not None:
        purse.spend(NOTHING if call is None else call.operands)
    if call is None:
        return
    bind(core, instruction, call)
    instruction.handler(core, call)
    if recording is not None:
        recording.add(core, at, instruction, call)
    if probe is not None and instruction.engine is not Engine.CTL:
        probe(
            (core.index - 1) * WORD_BYTES, tuple(core.indices), instruction.inst, call.operands, call.views, core.memory
        )
