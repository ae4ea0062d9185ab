"""The stepping machine: the same bits as a launch, and exact moments backwards."""

import random
from typing import Any

import numpy as np
import pytest
from step_harness import ADD, COLS, STO, TURNS, X, looped

from emulator.memory import Memory
from isa.architecture import Region, Space
from isa.codec import Inst, encode
from isa.errors import Trap
from runtime.debug.history import History
from runtime.debug.stepper import Stepper
from runtime.device.executable import Executable

WANT = (X + 1) * 2


def state(stepper: Stepper) -> tuple[Any, ...]:
    """Everything that a program can see."""
    core = stepper.core
    stores = [(Space.SRAM, Region.WEIGHTS), (Space.ACC, Region.WEIGHTS), (Space.DRAM, Region.OUT)]
    memories = tuple(stepper.memory.data(*store).tobytes() for store in stores)
    shadows = tuple(bytes(store.shadow or b"") for store in (stepper.memory._sram, stepper.memory._dram[Region.OUT]))
    views = tuple(register and (register.view, tuple(register.steps)) for register in core.views)
    return (
        stepper.time,
        core.index,
        tuple(core.scalars),
        tuple(core.indices),
        tuple(core.loops),
        views,
        core.exit,
        memories,
        shadows,
    )


def test_stepping_gives_the_bits_of_a_launch() -> None:
    """Breaks when a step does not do what `Machine.run` does."""
    device = Executable(looped())
    stepper = Stepper(device, {"x": X})
    while stepper.exit is None:
        stepper.step()
    assert np.array_equal(device.tensor(device.image.entry().outputs[0]), WANT)
    assert np.array_equal(Executable(looped())({"x": X})["y"], WANT)
    assert stepper.time == 8 + TURNS * 4 + 1


@pytest.mark.parametrize(("interval", "budget"), [(1, 1 << 30), (3, 1 << 30), (64, 1 << 30), (2, 1)])
def test_every_moment_can_be_revisited(interval: int, budget: int) -> None:
    """Breaks when an old page, a shadow byte or a register is not put back; also with checkpoints merged for want of
    room."""
    stepper = Stepper(Executable(looped()), {"x": X})
    stepper.history = History(stepper.core, budget, interval)
    states = [state(stepper)]
    while stepper.exit is None:
        stepper.step()
        states.append(state(stepper))
    rng = random.Random(7)
    for time in [*range(len(states) - 1, -1, -1), *(rng.randrange(len(states)) for _ in range(40))]:
        stepper.seek(time)
        assert state(stepper) == states[time]


def test_merging_bounds_memory() -> None:
    """Breaks when old pages pile up beyond the budget: each interval would keep its own copy of the same pages."""
    stepper = Stepper(Executable(looped()), {"x": X})
    stepper.history = History(stepper.core, 40_000, 1)
    while stepper.exit is None:
        stepper.step()
    assert stepper.history.bytes <= 60_000
    assert stepper.history.interval > 1


def test_a_trap_leaves_everything_as_before_the_word() -> None:
    """Breaks when a word that traps half way leaves memory marked as written, or time counted."""
    code = bytearray(looped().code)
    code[STO : STO + 16] = encode(Inst.make("sto", d=3, a=2, rows=2, cols=COLS))  # the second row was never loaded
    stepper = Stepper(Executable(looped(code=bytes(code))), {"x": X})
    stepper.seek(11)
    before = state(stepper)
    with pytest.raises(Trap, match="never written"):
        stepper.step()
    assert state(stepper) == before


def test_an_illegal_word_and_a_missing_halt_trap() -> None:
    """Breaks when damaged code ends in a Python exception."""
    stepper = Stepper(Executable(looped(code=b"\xff" * 16)), {"x": X})
    with pytest.raises(Trap, match="unknown opcode"):
        stepper.step()
    stepper = Stepper(Executable(looped(code=encode(Inst.make("nop")))), {"x": X})
    stepper.step()
    with pytest.raises(Trap, match="a halt is missing"):
        stepper.step()


def test_effects_name_what_was_read_and_written() -> None:
    """Breaks when watches and replay would look at the wrong bytes."""
    stepper = Stepper(Executable(looped()), {"x": X})
    stepper.seek(9)
    effect = stepper.step()
    assert (effect.pc, effect.indices[1]) == (ADD, 0)
    assert [block.name for block in effect.reads] == ["a"]
    assert [(block.name, block.view.base) for block in effect.writes] == [("d", 64)]
    assert isinstance(stepper.memory, Memory)
