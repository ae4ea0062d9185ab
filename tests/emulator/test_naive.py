"""Two interpreters of the same table that share no arithmetic, on random programs: every bit of memory must agree."""

import os

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memories import Memories, contents, differing
from naive import Naive
from naive_programs import SLOTS, Program, programs

from emulator.machine import Machine
from isa.architecture import Region
from lint.analyse import check
from tools.mutation.races import races

EXAMPLES = int(os.environ.get("LLMCHIP_EXAMPLES", "20"))
quick = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


def emulated(program: Program, seed: int | None = None) -> Memories:
    regions = {
        Region.CONST: np.frombuffer(program.const, np.uint8),
        Region.SCRATCH: np.zeros(SLOTS, np.uint8),
        Region.OUT: np.zeros(SLOTS, np.uint8),
    }
    machine = Machine(SLOTS * 2, SLOTS, regions, {Region.CONST})
    machine.run(program.code, adversarial=seed)
    return contents(machine)


def interpreted(program: Program) -> Memories:
    naive = Naive(
        SLOTS * 2,
        SLOTS,
        {Region.CONST: program.const, Region.SCRATCH: bytes(SLOTS), Region.OUT: bytes(SLOTS)},
        {Region.CONST},
    )
    naive.run(program.code)
    return {key: bytes(memory.data) for key, memory in naive.memories.items() if key[1] is not Region.CONST}


@quick
@given(programs())
def test_the_emulator_and_the_naive_interpreter_agree(program: Program) -> None:
    """Breaks when a word, a loop, a moving view or a dynamic extent means something else to one of the two."""
    assert not differing(program, emulated(program), interpreted(program))


@quick
@given(programs(), st.integers(0, 1000))
def test_ordered_programs_give_the_same_bits_in_every_order(program: Program, seed: int) -> None:
    """Breaks when overlapped execution reads, writes or snapshots at a time that the counts do not allow."""
    assert not differing(program, emulated(program), emulated(program, seed))
    assert not [finding for finding in check(program.image()) if finding.severity == "error"]


@quick
@given(programs(ordered=False, most=6), st.integers(0, 1000))
def test_lint_finds_exactly_the_races_that_brute_force_finds(program: Program, seed: int) -> None:
    """Breaks when the shadow memories miss a race or invent one; and a program without races must not depend on the
    order."""
    image = program.image()
    found = {(finding.other, finding.pc) for finding in check(image) if finding.kind == "race"}
    pairs = set(races(image))
    assert bool(found) == bool(pairs)
    assert found <= pairs
    if not pairs:
        assert not differing(program, emulated(program), emulated(program, seed))
