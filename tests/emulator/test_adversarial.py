"""Overlapped execution: the same bits for every seed unless the program has a race, and then other bits or a trap for
some seed."""

import dataclasses

import msgspec
import numpy as np
import pytest

from emulator.machine import Machine
from isa.architecture import NO_WAIT, WORD_BYTES, Region
from isa.asm.assemble import assemble
from isa.chip import Chip, Sram, load_chip
from isa.codec import Inst, encode
from isa.errors import Trap
from tools.mutation.races import races
from tools.mutation.subjects import subject

SEEDS = range(12)


def chips() -> list[Chip]:
    small = msgspec.structs.replace(load_chip("edge"), name="small", sram=Sram(bytes=1 << 16))
    return [load_chip("edge"), load_chip("server"), small]


@pytest.mark.parametrize("chip", chips(), ids=lambda chip: chip.name)
@pytest.mark.parametrize("name", ["mlp", "attention", "bert-1"])
def test_compiled_programs_give_the_same_bits_in_every_order(name: str, chip: Chip) -> None:
    """Breaks when the compiler leaves out a dependence, or overlapped execution takes a liberty that the counts
    forbid."""
    program = subject(name, chip, inputs=2)
    assert not races(program.image)
    assert program.sound(SEEDS)


def test_most_waits_of_a_compiled_program_show_when_they_are_dropped() -> None:
    """Breaks when the random orders are too tame. Not every race shows: one side may move data that happens to be
    equal."""
    program = subject("attention", inputs=2)
    words = [program.image.inst(pc) for pc in range(0, len(program.image.code), WORD_BYTES)]
    racing = shown = 0
    for index, inst in enumerate(words):
        if all(count == NO_WAIT for count in inst.deps):
            continue
        free = Inst(inst.mnemonic, inst.operands)
        code = b"".join(map(encode, (*words[:index], free, *words[index + 1 :])))
        if races(dataclasses.replace(program.image, code=code)):
            racing += 1
            shown += any(program.device.run(code, program.inputs[0], seed) != program.bits[0] for seed in range(24))
    assert racing > 10 and shown >= 0.9 * racing


TEXT = """
.region in bytes=64
.region out bytes=64
vset v=v1, space=dram, region=in, dtype=f32, base=0
vset v=v2, space=sram, dtype=f32, base=0
vset v=v3, space=dram, region=out, dtype=f32, base=0
vset v=v4, space=dram, region=in, dtype=f32, base=32
lda d=v2, a=v1, rows=1, cols=8
{}
halt
"""


# The vset comes after the dispatch of vop.
MOVED = """vop f=add, d=v2, a=v2, rows=1, cols=8 @ lda<=0
vset v=v2, space=sram, dtype=f32, base=64
lda d=v2, a=v1, rows=1, cols=8
sto d=v3, a=v2, rows=1, cols=8 @ lda<=0"""


def outcomes(body: str) -> set[bytes]:
    """What different seeds leave in OUT; a trap counts as an outcome."""
    found = set()
    for seed in range(24):
        regions = {Region.IN: np.arange(16, dtype=np.float32).view(np.uint8), Region.OUT: np.zeros(64, np.uint8)}
        machine = Machine(4096, 4096, regions, {Region.IN})
        try:
            machine.run(assemble(TEXT.format(body)).code, adversarial=seed)
        except Trap:
            found.add(b"trap")
        else:
            found.add(regions[Region.OUT].tobytes())
    return found


@pytest.mark.parametrize(
    ("body", "racy"),
    [
        ("vop f=add, d=v2, a=v2, rows=1, cols=8, imm=1.0 @ lda<=0\nsto d=v3, a=v2, rows=1, cols=8 @ vec<=0", False),
        ("vop f=add, d=v2, a=v2, rows=1, cols=8, imm=1.0\nsto d=v3, a=v2, rows=1, cols=8 @ vec<=0", True),
        ("vop f=add, d=v2, a=v2, rows=1, cols=8, imm=1.0 @ lda<=0\nsto d=v3, a=v2, rows=1, cols=8", True),
        ("fence mask=2\nvop f=add, d=v2, a=v2, rows=1, cols=8, imm=1.0\nfence\nsto d=v3, a=v2, rows=1, cols=8", False),
        ("fence mask=1\nvop f=add, d=v2, a=v2, rows=1, cols=8, imm=1.0\nfence\nsto d=v3, a=v2, rows=1, cols=8", True),
        # both loads may be under way
        ("lda d=v2, a=v4, rows=1, cols=8\nsto d=v3, a=v2, rows=1, cols=8 @ lda<=0", True),
        ("lda d=v2, a=v4, rows=1, cols=8 @ lda<=0\nsto d=v3, a=v2, rows=1, cols=8 @ lda<=0", False),
        # overwritten while it is being stored
        ("sto d=v3, a=v2, rows=1, cols=8 @ lda<=0\nlda d=v2, a=v4, rows=1, cols=8", True),
        ("sto d=v3, a=v2, rows=1, cols=8 @ lda<=0\nlda d=v2, a=v4, rows=1, cols=8 @ sto<=0", False),
        (MOVED, False),
    ],
)  # fmt: skip
def test_hand_written_races_show(body: str, racy: bool) -> None:
    """Breaks when an order that the chip may choose never comes up, or one that it may not choose does."""
    assert (len(outcomes(body)) > 1) == racy


def test_a_seed_is_reproducible() -> None:
    """Breaks when an order depends on anything but the seed: then no failure could be replayed."""
    racy = "vop f=add, d=v2, a=v2, rows=1, cols=8, imm=1.0\nsto d=v3, a=v2, rows=1, cols=8 @ vec<=0"
    assert outcomes(racy) == outcomes(racy)
