"""A random case."""

import random

from fuzz.graphs.case import Case
from fuzz.graphs.layers import attention, operation, repeat
from fuzz.graphs.maker import INTS, Maker
from fuzz.graphs.trust import Trust, trust_of

_COUNTS = {5: 30, 6: 24, 8: 18, 10: 11, 12: 7, 16: 4, 24: 3, 40: 2, 60: 1}  # steps, and how often: most faults need few
_SHARES = {"expanded": 0.1, "verify": 0.2, "lint": 0.4, "adversarial": 0.15, "jit": 0.025, "fallback": 0.025}


def make(rng: random.Random) -> Case:
    """5 to 60 steps, mostly few; layers that repeat in a third, attention in a third."""
    m = Maker(rng)
    for _ in range(rng.choice((1, 1, 2, 3))):
        m.input(m.main, m.new_shape())
    if rng.random() < 0.3:
        m.input(rng.choice(INTS), m.new_shape())  # there from the start, integers meet more operations
    (count,) = rng.choices(list(_COUNTS), list(_COUNTS.values()))
    repeats, attends = (rng.random() < 0.35 for _ in range(2))
    tries = 0
    while len(m.steps) < count and tries < 4 * count:
        tries += 1
        kind = rng.random()
        if attends and kind < 0.15:
            attention(m)
        elif repeats and kind < 0.35 and len(m.steps) > 1:
            repeat(m)
        else:
            operation(m)
    checks = tuple(name for name, share in _SHARES.items() if rng.random() < share)
    return m.case(_chip(rng), checks, _outputs(m))


def _outputs(m: Maker) -> list[str]:
    """One value that takes many steps; or the last, dead ends, some others, now and then one twice or an input; and one
    whose bits must be eager's."""
    steps = [step.name for step in m.steps]
    if not steps:
        return list(m.meta)[:1]
    if m.rng.random() < 0.1:
        return [max(steps[-8:], key=lambda name: len(m.case("edge", (), [name]).steps))]
    read = {name for step in m.steps for name in step.operands}
    ends = [name for name in steps if name not in read]  # most of them: what leads to no output is no part of the case
    chosen = [steps[-1], *ends[-12:], *m.rng.sample(steps, min(len(steps), m.rng.choice((0, 0, 1, 1, 2, 4))))]
    trusts = trust_of(m.case("edge", (), steps))
    exact = [name for name in steps if trusts.get(name, Trust.LOOSE) <= Trust.ZERO]
    if exact:
        chosen.append(exact[-1] if m.rng.random() < 0.7 else m.rng.choice(exact))
    if m.rng.random() < 0.3:
        chosen.append(m.rng.choice(chosen))
    if m.rng.random() < 0.1:
        chosen.append(next(leaf.name for leaf in m.leaves if leaf.name.startswith("x")))
    chosen = chosen if m.rng.random() < 0.1 else list(dict.fromkeys(chosen))
    m.rng.shuffle(chosen)
    return chosen


def _chip(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.45:
        return "edge"
    if kind < 0.55:
        return "server"
    sides = (8, 16, 32, 64, 128, 256)
    sram = rng.choice(
        (1 << 16, 1 << 17, 1 << 18, 1 << 19, 1 << 20, 1 << 21, 1 << 23, rng.randrange(1 << 16, 1 << 20, 64))
    )
    acc = rng.choice((1 << 14, 1 << 15, 1 << 16, 1 << 18, 1 << 20))
    return f"sram={sram} acc={acc} rows={rng.choice(sides)} cols={rng.choice(sides)} lanes={rng.choice((1, 8, 64, 128, 256))}"
