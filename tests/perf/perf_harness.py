"""Launches by plan beside launches word by word."""

import sys
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "emulator"), str(TESTS / "naive")]

from naive_programs import SLOTS, Program  # noqa: E402

from emulator.machine import Machine  # noqa: E402
from isa.architecture import Region, Space  # noqa: E402

Memories = dict[tuple[Space, Region], bytes]
SPACES = (
    (Space.SRAM, Region.WEIGHTS),
    (Space.ACC, Region.WEIGHTS),
    (Space.DRAM, Region.SCRATCH),
    (Space.DRAM, Region.OUT),
)


def contents(machine: Machine) -> Memories:
    return {(space, region): machine.memory.data(space, region).tobytes() for space, region in SPACES}


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
