"""All memories after a run of a random program (`naive_programs`), and what of two of them differs."""

import numpy as np
from naive_programs import Buffer, Program

from emulator.machine import Machine
from isa.architecture import Dtype, Region, Space

Memories = dict[tuple[Space, Region], bytes]
SPACES = (
    (Space.SRAM, Region.WEIGHTS),
    (Space.ACC, Region.WEIGHTS),
    (Space.DRAM, Region.SCRATCH),
    (Space.DRAM, Region.OUT),
)
STORAGE = {Dtype.F32: np.float32, Dtype.F16: np.float16, Dtype.BF16: np.uint16}


def contents(machine: Machine) -> Memories:
    return {(space, region): machine.memory.data(space, region).tobytes() for space, region in SPACES}


def canonical(memory: Memories, buffer: Buffer) -> bytes:
    """The bytes of a buffer, every NaN with the same bits."""
    data = memory[buffer.space, buffer.region if buffer.space is Space.DRAM else Region.WEIGHTS][
        buffer.base : buffer.base + buffer.nbytes
    ]
    if not buffer.dtype.is_float:
        return data
    values = np.frombuffer(data, STORAGE[buffer.dtype]).copy()
    nan = (values & 0x7FFF) > 0x7F80 if buffer.dtype is Dtype.BF16 else np.isnan(values)
    values[nan] = 0x7FC0 if buffer.dtype is Dtype.BF16 else np.nan
    return values.tobytes()


def differing(program: Program, a: Memories, b: Memories) -> list[Buffer]:
    return [buffer for buffer in program.buffers if canonical(a, buffer) != canonical(b, buffer)]
