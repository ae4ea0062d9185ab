"""Lengths in scalar registers: whatever is evicted, each has its value when it is used."""

import operator
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from compiler.codegen.scalar_registers import ScalarFile
from compiler.codegen.view_registers import ViewFile
from compiler.tile.ir import Buffer, Length
from isa.architecture import SCALARS, Region, Space
from isa.codec import Inst
from isa.replay import signed
from isa.spec import SALU

BUFFER = Buffer("params.positions", Space.DRAM, 160, Region.PARAMS, 0)
LENGTHS = st.builds(
    Length,
    st.just(BUFFER),
    st.integers(0, 20),
    st.just(520),
    st.integers(-40, 40),
    st.sampled_from([16, 64, 500, 1 << 30]),
)


@given(st.lists(st.lists(LENGTHS, min_size=1, max_size=3), max_size=30), st.integers(0, 500))
def test_registers_hold_what_they_say(uses: list[list[Length]], position: int) -> None:
    """Breaks when a register is given away while its length is still needed, or a bound is left out."""
    file, registers = ScalarFile(ViewFile()), [0] * SCALARS
    for lengths in uses:
        instructions, numbers = file.load(lengths)
        for inst in instructions:
            execute(inst, registers, position)
        assert [registers[number] for number in numbers] == [length.at(position + length.index) for length in lengths]


def execute(inst: Inst, registers: list[int], position: int) -> None:
    named = inst.named()
    if inst.mnemonic == "sld":
        registers[named["d"]] = position + named["off"]
    elif inst.mnemonic == "salu":
        choices: dict[str, Callable[[int, int], int]] = {"add": operator.add, "min": min, "max": max}
        work = choices[SALU[named["f"]]]
        registers[named["d"]] = work(registers[named["a"]], signed(named["imm"]))
