"""Which instructions a wrong value depends on: a backward walk over executed instructions, down to verified values and
the host's data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isa.architecture import GIVEN_REGIONS, Dtype, Space
from isa.codec import Inst
from runtime.debug.points import element_bits
from runtime.debug.stepper import Block, Stepper

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Executed:
    """An instruction that was executed: what `Effect` says, without the memory; `makers` are the control instructions
    that set its views."""

    time: int
    pc: int
    indices: tuple[int, ...]
    inst: Inst
    operands: Mapping[str, int]
    reads: tuple[Block, ...]
    writes: tuple[Block, ...]
    verified: frozenset[str]  # operands whose written values were compared and found right
    makers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LiveIn:
    """A verified block that the slice starts from, as it stands right after the instruction at `time`."""

    time: int
    block: Block


@dataclass(frozen=True, slots=True)
class BackwardSlice:
    """Unverified instructions in the order of execution, the wrong one last, and what goes into them."""

    instructions: tuple[Executed, ...]
    live: tuple[LiveIn, ...]
    host: tuple[Block, ...]  # blocks of the host's data that the instructions read


class _Needed:
    """Bytes whose origin is still looked for."""

    def __init__(self, stepper: Stepper) -> None:
        self._memory = stepper.memory
        self._masks: dict[str, Mask] = {}

    def add(self, block: Block) -> None:
        self._mask(block)[_bytes(block)] = True

    def clear(self, block: Block) -> None:
        self._mask(block)[_bytes(block)] = False

    def touches(self, block: Block) -> bool:
        mask = self._mask(block)
        low, high = block.view.span(block.extents)
        return bool(mask[low:high].any()) and bool(mask[_bytes(block)].any())

    def _mask(self, block: Block) -> Mask:
        store = self._memory.store_of(block.view)
        if store.name not in self._masks:
            self._masks[store.name] = np.zeros(store.size, np.bool_)
        return self._masks[store.name]


def _bytes(block: Block) -> NDArray[np.int64]:
    """The address of every byte of the block."""
    starts = element_bits(block.view, block.extents).reshape(-1) // 8
    size = 1 if block.view.dtype is Dtype.I4 else block.view.dtype.bits // 8
    return (starts[:, None] + np.arange(size)).reshape(-1)


def is_host(block: Block) -> bool:
    return block.view.space is Space.DRAM and block.view.region in GIVEN_REGIONS


def trace_back(stepper: Stepper, trail: Sequence[Executed], last: Executed, wrong: Block) -> BackwardSlice:
    """The slice of a block that `last` wrote. `trail` are the executed engine instructions in order."""
    needed = _Needed(stepper)
    instructions: list[Executed] = []
    live: list[LiveIn] = []
    host: list[Block] = []

    def take(instruction: Executed) -> None:
        instructions.append(instruction)
        for block in instruction.writes:
            needed.clear(block)
        for block in instruction.reads:
            if is_host(block):
                host.append(block)
            else:
                needed.add(block)

    take(last)
    before = next(number for number, instruction in enumerate(trail) if instruction is last)
    for instruction in reversed(trail[:before]):
        wanted = [block for block in instruction.writes if needed.touches(block)]
        if not wanted:
            continue
        if all(block.name in instruction.verified for block in wanted):
            for block in wanted:
                live.append(LiveIn(instruction.time, block))
                needed.clear(block)
        else:
            take(instruction)
    return BackwardSlice(tuple(reversed(instructions)), tuple(reversed(live)), tuple(host))
