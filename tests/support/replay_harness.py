"""Launches by plan beside launches word by word."""

import numpy as np
from memories import Memories, contents
from naive_programs import SLOTS, Program

from emulator.machine import Machine
from isa.architecture import Dtype, Region, Space
from isa.codec import Inst, encode


def code(*words: Inst) -> bytes:
    return b"".join(map(encode, (*words, Inst.make("halt"))))


def view(
    number: int, space: Space, base: int = 0, region: Region = Region.WEIGHTS, dtype: Dtype = Dtype.F32, **more: int
) -> Inst:
    return Inst.make("vset", v=number, space=int(space), region=int(region), dtype=int(dtype), base=base, **more)


def machine_for(program: Program, interpret: bool = False, compiled: bool = True) -> Machine:
    const = np.frombuffer(program.const, np.uint8)
    assert not const.flags.writeable  # else no weights would be packed
    regions = {Region.CONST: const, Region.SCRATCH: np.zeros(SLOTS, np.uint8), Region.OUT: np.zeros(SLOTS, np.uint8)}
    return Machine(SLOTS * 2, SLOTS, regions, {Region.CONST}, interpret=interpret, compiled=compiled)


def launches(program: Program, count: int, interpret: bool = False, compiled: bool = True) -> list[Memories]:
    """All memories after each of `count` launches of one machine."""
    machine = machine_for(program, interpret, compiled)
    found = []
    for _ in range(count):
        machine.run(program.code)
        found.append(contents(machine))
    return found
