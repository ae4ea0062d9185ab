"""Which loops a replay shortens, and where: those in which all views are back after some iterations, or move on
steadily (`lint.induction`)."""

from dataclasses import dataclass, field

from isa.architecture import WORD_BYTES
from isa.replay import Core, Loop
from lint.induction import MAX_PERIOD, period_of, skipped


@dataclass(slots=True)
class SkippedLoop:
    """A loop that is shortened: after `first` iterations `leave_out` of `count` are skipped, a multiple of `period`.

    `begin`, `earlier`, `before`, `at` are numbers of instructions: where it begins, the last two periods before the
    skip, the skip (0: not yet there).
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

    def skip(self, iteration: int, executed: int) -> int:
        """Called before each iteration. Notes the last periods before the skip; then gives the iterations to leave
        out."""
        if iteration == self.first - 2 * self.period:
            self.earlier = executed
        elif iteration == self.first - self.period:
            self.before = executed
        elif iteration == self.first:
            self.at = executed
            return self.leave_out
        return 0


@dataclass
class LoopSkipper:
    """Shortens loops, and notes by pc why others are not. Those in `whole` at the start are not tried; `all_whole`:
    none is."""

    found: list[SkippedLoop] = field(default_factory=list)
    whole: dict[int, str] = field(default_factory=dict)
    all_whole: bool = False
    _running: dict[int, SkippedLoop] = field(default_factory=dict)  # by loop level

    def entered(self, core: Core, loop: Loop) -> None:
        """Shorten the loop if all its views are back after some period, or move on steadily."""
        self._running.pop(loop.level, None)
        pc = loop.start - WORD_BYTES
        if self.all_whole or skipped(loop.count, 1) is None or pc in self.whole:
            return
        try:
            period = period_of(_steps(core, loop))
        except ValueError as problem:
            self.whole[pc] = str(problem)
            return
        found = skipped(loop.count, period) if period <= MAX_PERIOD else None
        if found is not None:
            self._running[loop.level] = SkippedLoop(pc, loop.count, period, *found, core.executed)
            self.found.append(self._running[loop.level])
        elif period > MAX_PERIOD:
            self.whole[pc] = f"its views are only back after {period} iterations"

    def skip(self, loop: Loop, iteration: int, executed: int) -> int:
        """See `isa.replay.Skipper`."""
        running = self._running.get(loop.level)
        return running.skip(iteration, executed) if running is not None else 0


def _steps(core: Core, loop: Loop) -> list[tuple[int, int]]:
    """(div, mod) of every view that moves with a loop. Raises ValueError if no two of its iterations need be alike."""
    steps = [step for register in core.registers.values() for step in register.steps]
    made = set[int]()  # views that every iteration sets, before it moves them
    pc = loop.start
    while pc < loop.end:
        instruction = core.fetch_at(pc)
        named = instruction.operands
        pc += WORD_BYTES
        if instruction.inst.row.alters:
            raise ValueError(f"its body has a '{instruction.inst.mnemonic}'")
        if instruction.inst.mnemonic == "vset":
            made.add(named["v"])
        elif instruction.inst.mnemonic == "vinc":
            if named["v"] not in made:
                raise ValueError(f"its body moves v{named['v']} again in every iteration")
            steps.append((named["level"], named["inc"], named["div"], named["mod"]))
        elif "len" in named and (core.scalars[named["s"]] if named["dyn"] else named["count"]) <= 0:
            pc += WORD_BYTES * named["len"]  # a nested loop without iterations
    return [(div, mod) for level, inc, div, mod in steps if level == loop.level and inc and div]
