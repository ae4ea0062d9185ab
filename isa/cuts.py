"""Which loops a replay cuts short, and where: those in which all views are back after some turns, or move on steadily (`isa.steady`)."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from isa.spec import WORD_BYTES
from isa.steady import MAX_PERIOD, period_of, skipped

if TYPE_CHECKING:
    from isa.trace import Core, Loop

_UNSTEADY = frozenset({"salu", "sld", "vadd", "halt"})  # words after which no two turns need be alike


@dataclass(slots=True)
class Cut:
    """A loop of which turns are left out: after `first` turns `leave_out` of `count`, a multiple of `period`.

    `begin`, `earlier`, `before`, `at` are numbers of words: where it begins, and the last two periods before the cut (0: not yet there).
    """

    pc: int
    count: int
    period: int
    first: int
    leave_out: int
    begin: int
    earlier: int = 0
    before: int = 0
    at: int = 0

    def jump(self, turn: int, executed: int) -> int:
        """Called before each turn. Notes the last periods before the cut; at the cut, gives the turns to leave out."""
        if turn == self.first - 2 * self.period:
            self.earlier = executed
        elif turn == self.first - self.period:
            self.before = executed
        elif turn == self.first:
            self.at = executed
            return self.leave_out
        return 0


@dataclass
class Cuts:
    """Loops that are cut, and by their pc why others are not. Those in `whole` at the start are not tried; `all_whole`: none is."""

    found: list[Cut] = field(default_factory=list)
    whole: dict[int, str] = field(default_factory=dict)
    all_whole: bool = False


def cut_loop(core: "Core", cuts: Cuts, loop: "Loop") -> None:
    """Leave out turns of a loop if all its views are back after some period, or move on steadily."""
    pc = loop.start - WORD_BYTES
    if skipped(loop.count, 1) is None or pc in cuts.whole:
        return
    try:
        period = period_of(_steps(core, loop))
    except ValueError as problem:
        cuts.whole[pc] = str(problem)
        return
    found = skipped(loop.count, period) if period <= MAX_PERIOD else None
    if found is not None:
        loop.cut = Cut(pc, loop.count, period, *found, core.executed)
        cuts.found.append(loop.cut)
    elif period > MAX_PERIOD:
        cuts.whole[pc] = f"its views are only back after {period} turns"


def _steps(core: "Core", loop: "Loop") -> list[tuple[int, int]]:
    """(div, mod) of every view that moves with a loop. Raises ValueError if no two of its turns need be alike."""
    steps = [step for register in core.registers.values() for step in register.steps]
    made = set[int]()  # views that every turn sets, before it moves them
    pc = loop.start
    while pc < loop.end:
        word = core.fetch_at(pc)
        named = word.operands
        pc += WORD_BYTES
        if word.inst.mnemonic in _UNSTEADY:
            raise ValueError(f"its body has a '{word.inst.mnemonic}'")
        if word.inst.mnemonic == "vset":
            made.add(named["v"])
        elif word.inst.mnemonic == "vinc":
            if named["v"] not in made:
                raise ValueError(f"its body moves v{named['v']} again in every turn")
            steps.append((named["level"], named["inc"], named["div"], named["mod"]))
        elif "len" in named and (core.scalars[named["s"]] if named["dyn"] else named["count"]) <= 0:
            pc += WORD_BYTES * named["len"]  # a nested loop without turns
    return [(div, mod) for level, inc, div, mod in steps if level == loop.level and inc and div]
