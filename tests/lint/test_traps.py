"""What lint accepts never traps, and what traps on any of the rules that need no data is a finding: on random words of
the table."""

import os
from random import Random

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from naive_programs import COMPUTE, SLOTS, Builder, Program

from emulator.machine import Machine
from isa.architecture import Dtype, Region, Space
from isa.codec import Inst
from isa.errors import Trap
from isa.views import View
from lint.analyse import check

EXAMPLES = int(os.environ.get("LLMCHIP_EXAMPLES", "20"))
quick = settings(max_examples=3 * EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
DATA = ("outside a table", "division by zero")  # traps that depend on data


@st.composite
def careless(draw: st.DrawFn) -> Program:
    """A program with one word whose types, memories, addresses, strides and presence of operands are anything."""
    builder = Builder(draw, ordered=True)
    random: Random = builder.random
    row = draw(st.sampled_from(COMPUTE))
    operands = builder._operands(row)
    for number, field in enumerate(row.views, 1):
        if field.default is not None and random.random() < 0.5:
            continue
        dtype, space = (
            random.choice(random.choice([field.dtypes, tuple(Dtype)])),
            random.choice(random.choice([field.spaces, tuple(Space)])),
        )
        region = random.choice([Region.OUT, Region.SCRATCH, Region.CONST]) if space is Space.DRAM else Region.WEIGHTS
        cols = operands.get("cols", operands.get("k", 1))
        base = random.choice([0, 64, 640, random.randrange(SLOTS), SLOTS - 64])
        rs, ps = random.choice([0, 1, cols, cols + 1]), random.choice([0, 1, 3 * cols, 3 * cols + 7])
        builder._set(number, View(space, region, dtype, base, rs, ps, random.choice([0, 1, 1])))
        operands[field.name] = number
    builder.words.append(Inst.make(row.mnemonic, (0,) * 6, **operands))
    return builder.finish()


@quick
@given(careless())
def test_lint_and_the_emulator_agree_on_what_traps(program: Program) -> None:
    """Breaks when a rule is missing in one of the two, or they draw its line differently."""
    regions = {
        Region.CONST: np.frombuffer(program.const, np.uint8),
        Region.SCRATCH: np.zeros(SLOTS, np.uint8),
        Region.OUT: np.zeros(SLOTS, np.uint8),
    }
    image = program.image(SLOTS * 2, SLOTS)
    found = [finding for finding in check(image) if finding.kind not in ("buffer", "output")]
    try:
        Machine(SLOTS * 2, SLOTS, regions, {Region.CONST}).run(program.code)
        trapped = ""
    except Trap as trap:
        trapped = trap.what
    if trapped:
        assert found or any(text in trapped for text in DATA), trapped
    else:
        assert not [finding for finding in found if not _only_a_matter_of_taste(finding.message)]


def _only_a_matter_of_taste(message: str) -> bool:
    """Lint refuses two results of one word in the same place; the emulator writes them one after the other."""
    return "the same instruction also writes" in message
