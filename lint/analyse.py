"""One launch after the other: replay, check, and say what could not be proved.

The replay of a launch is shortened twice: iterations of long loops that are proved by induction are left out
(`lint.induction`), and after `limit_of` instructions it ends. What lies beyond is then not proved, which is a finding
of its own. All replays of all launches together take `LAUNCHES` times as many instructions at most. So the cost is
bounded, and nothing passes in silence.

Of an entry with scalar arguments the launches at both ends of their ranges are replayed, whose findings are the
plainest, and then all launches together (`lint.between`), or part by part where they do not dispatch the same instructions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from isa.image.image import Image
from isa.image.records import Entry
from isa.replay import Dispatch, ReplayError, TooLong, trace
from lint.between import Between
from lint.check import Buffers, Finding, Findings, check_plan, check_structure, sound_touches
from lint.dead_code import DeadCode
from lint.loop_skipping import LoopSkipper
from lint.piecewise import Box, Unsteerable, divided, is_point, shown_box
from lint.races import Proof, Touches, check_hazards, group
from lint.shadow_memory import TooLarge
from lint.steered_bounds import Trials, all_touches
from lint.steering import Steering

MAX_INSTRUCTIONS, PER_INSTRUCTION = (
    1 << 16,
    64,
)  # instructions replayed of a launch: so many, and so many for each instruction of the program
LAUNCHES = 4  # of this length, together
_PART = 64  # instructions that a part of a range costs beside its own
_TRIES = 3  # replays in which loops turn out to be no repetition, before all loops are replayed in full


def limit_of(image: Image) -> int:
    """The most instructions of one launch that are replayed."""
    return MAX_INSTRUCTIONS + PER_INSTRUCTION * image.words


def check(image: Image, entry: str | None = None, values: Mapping[str, int] | None = None) -> list[Finding]:
    """All errors for one entry or for every one; without `values`, for all scalar arguments in their ranges."""
    return analyse(image, entry, values, False)


def lint(image: Image, entry: str | None = None, values: Mapping[str, int] | None = None) -> list[Finding]:
    """Errors as of `check`, and warnings about what can never matter."""
    return analyse(image, entry, values, True)


@dataclass(frozen=True)
class Launch:
    """What the replay of a launch showed. `proof` is None if it could not be followed to its end."""

    found: dict[tuple[object, ...], Finding]
    instructions: Sequence[Dispatch] = ()
    touches: Touches | None = None
    proof: Proof | None = None
    left_out: int = 0  # instructions of the iterations that were left out, or more
    length: int = 0  # instructions replayed
    stopped: TooLong | None = None


@dataclass
class _Allowance:
    """Instructions that may still be replayed."""

    instructions: int


@dataclass
class _Prover:
    image: Image
    point: Entry
    given: Mapping[str, int] | None
    buffers: Buffers
    allowance: _Allowance
    box: Box | None = None  # launches that are looked at together
    trials: Trials = field(default_factory=Trials)
    whole: dict[int, str] = field(default_factory=dict)  # loops that are no repetition, by pc, with the reason
    local: dict[tuple[object, ...], Finding] = field(
        default_factory=dict
    )  # faults of single instructions, in whatever iterations were replayed

    def prove(self, shortcuts: bool) -> Launch:
        """With as many iterations left out as can be; without, if anything is found then, so that every finding is of
        an iteration that exists."""
        for _ in range(_TRIES if shortcuts else 0):
            launch = self._replay_once(LoopSkipper(whole=dict(self.whole)))
            if launch is not None:
                surer = launch.found and launch.stopped is None and 0 < launch.left_out < self.allowance.instructions
                exact = self._replay_once(LoopSkipper(all_whole=True)) if surer else None
                return exact if exact is not None and exact.stopped is None else self._with_unproved(launch)
        launch = self._replay_once(LoopSkipper(all_whole=True))
        assert launch is not None
        return self._with_unproved(launch)

    def _replay_once(self, skipper: LoopSkipper) -> Launch | None:
        """One replay; None if a loop that was shortened turned out to be no repetition, which is noted. Raises
        Unsteerable."""
        findings, instructions, stopped = Findings(self.image), list[Dispatch](), None
        steering = Steering(self.image, self.point, self.box) if self.box is not None else None
        limit = min(limit_of(self.image), self.allowance.instructions)
        try:
            for instruction in trace(
                self.image, self.point.name, self.given, control=True, skipper=skipper, limit=limit
            ):
                if steering is not None:
                    steering.observe(len(instructions), instruction)
                instructions.append(instruction)  # one by one: those before an error count
        except TooLong as error:
            stopped = error
        except ReplayError as error:
            findings.add("structure", error.pc, error.inst, error.what)
            return Launch(findings.found)
        finally:
            self.allowance.instructions -= len(instructions)
        between = None
        if steering is None or self.box is None:
            touches = group(sound_touches(self.image, instructions, self.buffers, findings))
        else:
            between = Between(self.image, self.box, self.trials)
            seen = self.image, instructions, steering, self.box, self.buffers, findings
            try:
                touches = group(all_touches(*seen, between.trials, between.unsure))
            except ReplayError as error:
                findings.add("structure", error.pc, error.inst, error.what)
                return Launch(findings.found)
        self.local |= findings.found
        try:
            proof = check_hazards(
                self.image,
                self.point,
                instructions,
                touches,
                findings,
                skipper.found,
                stopped is None,
                self.buffers.problem,
                between,
            )
        except TooLarge as error:
            findings.add("unproved", self.point.pc, None, f"what this launch does is not proved: {error}")
            return Launch(findings.found)
        self.whole |= skipper.whole | proof.unsteady
        if proof.unsteady:
            return None
        return Launch(
            findings.found,
            instructions,
            touches,
            proof if stopped is None else None,
            _left_out(skipper),
            len(instructions),
            stopped,
        )

    def _with_unproved(self, launch: Launch) -> Launch:
        """The launch with what could not be proved among its findings."""
        if launch.stopped is None:
            return launch
        findings = Findings(self.image)
        findings.merge({**launch.found, **self.local})
        if not launch.stopped.running:
            findings.add(
                "unproved",
                launch.stopped.pc,
                None,
                "nothing is proved of this launch: the replay of the others took too long",
            )
            return Launch(findings.found)
        pc, iteration, iterations = max(launch.stopped.running, key=lambda loop: loop[2] - loop[1])
        why = (
            f"is replayed iteration by iteration because {self.whole[pc]}"
            if pc in self.whole
            else "holds loops that are too long or too deep"
        )
        message = f"not proved beyond {launch.length} instructions of a launch: those end in iteration {iteration} of {iterations} of this loop, which {why}"
        findings.add("unproved", pc, self.image.inst(pc), message)
        return Launch(findings.found)


def _left_out(skipper: LoopSkipper) -> int:
    """Instructions that a full replay would have more; of nested loops fewer than that."""
    return sum(loop.leave_out // loop.period * (loop.at - loop.before) for loop in skipper.found if loop.at)


def _prove_range(
    image: Image, point: Entry, buffers: Buffers, allowance: _Allowance, shortcuts: bool, findings: Findings
) -> None:
    """All launches of an entry: together as far as they dispatch the same, else part by part."""
    trials = Trials()
    left: list[Box] = [{s.name: (s.minimum, s.maximum) for s in point.scalars}]
    while left and not findings.full:
        box = left.pop()
        last = {name: end for name, (_, end) in box.items()}
        if allowance.instructions <= 0 or trials.left <= 0:
            message = f"nothing is proved for {shown_box(box)}: the replay of the others took too long"
            findings.add("unproved", point.pc, None, message)
            return
        allowance.instructions -= _PART
        prover = _Prover(image, point, last, buffers, allowance, None if is_point(box) else box, trials)
        try:
            findings.merge(prover.prove(shortcuts).found)
        except Unsteerable as problem:
            left += reversed(divided(box, problem))


def analyse(
    image: Image, entry: str | None, values: Mapping[str, int] | None, dead_code: bool, shortcuts: bool = True
) -> list[Finding]:
    """See `lint`. Without `shortcuts` every iteration of every loop is replayed."""
    findings, useless, allowance = Findings(image), DeadCode(image), _Allowance(LAUNCHES * limit_of(image))
    check_structure(image, findings)
    check_plan(image, findings)
    for point in image.entries if entry is None else (image.entry(entry),):
        buffers = Buffers(image, point)
        ends = ({s.name: s.minimum for s in point.scalars}, {s.name: s.maximum for s in point.scalars})
        for given in (values,) if values is not None else ends[: 2 if point.scalars else 1]:
            launch = _Prover(image, point, given, buffers, allowance).prove(shortcuts)
            findings.merge(launch.found)
            if dead_code and launch.proof is not None and launch.touches is not None:
                useless.observe(point, launch.instructions, launch.touches, launch.proof)
        if values is None and point.scalars and not findings.full:
            _prove_range(image, point, buffers, allowance, shortcuts, findings)
    if dead_code and not findings.found and entry is None:
        useless.report(findings)
    return sorted(findings.found.values(), key=lambda f: f.pc)
