"""Who notices each fault: lint, verify, or nobody because it is provably harmless."""

from collections.abc import Sequence
from dataclasses import dataclass

from isa.image.image import Image
from lint.analyse import check
from tools.mutation.device import Device, Inputs, Outcome
from tools.mutation.faults import Mutant
from tools.mutation.races import races
from tools.mutation.values import fingerprint

SEEDS = tuple(range(6))


@dataclass(frozen=True)
class Verdict:
    """What became of one mutant.

    `race`: some pair of conflicting instructions is unordered (brute force) or an overlapped run went wrong although
    program order did not. `bounds`: the program traps on a memory access. `changes`: some run differs. `harmless`:
    proved to compute the same.
    """

    kind: str
    program: str
    what: str
    lint: tuple[str, ...]
    sequential: bool
    overlapped: bool
    race: bool
    bounds: bool
    harmless: bool

    @property
    def verify(self) -> bool:
        return self.sequential or self.overlapped

    @property
    def must_lint(self) -> bool:
        """Races and bounds faults that can change a result: the business of lint."""
        return (self.race or self.bounds) and (self.verify or not self.harmless)

    @property
    def survived(self) -> bool:
        return not self.lint and not self.verify and not self.harmless


class Subject:
    """A compiled program with what its unmutated bits are."""

    def __init__(self, name: str, image: Image, inputs: Sequence[Inputs]) -> None:
        self.name, self.image, self.inputs = name, image, inputs
        self.device = Device(image)
        self.bits = [self._require(self.device.run(image.code, given)) for given in inputs]
        self.fingerprint = fingerprint(image)

    @staticmethod
    def _require(outcome: Outcome) -> Outcome:
        if outcome.trap:
            raise RuntimeError(f"the unmutated program traps: {outcome.trap}")
        return outcome

    def judge(self, mutant: Mutant, seeds: Sequence[int] = SEEDS, thorough: bool = True) -> Verdict:
        """`thorough`: run it even if lint has found it, which the statistics need but the verdict does not."""
        found = tuple(sorted({finding.kind for finding in check(mutant.image)}))
        plain, trap, overlapped = False, "", False
        if thorough or not found:
            plain, trap = self._differs(mutant, None)
            overlapped = any(self._differs(mutant, seed)[0] for seed in seeds)
        racing = bool(races(mutant.image))
        same = (
            (thorough or not found)
            and not racing
            and not trap
            and self.fingerprint is not None
            and fingerprint(mutant.image) == self.fingerprint
        )
        bounds = any(text in trap for text in ("access to bytes", "never written", "not aligned", "overlaps itself"))
        return Verdict(
            mutant.kind,
            self.name,
            mutant.what,
            found,
            plain,
            overlapped,
            racing or (overlapped and not plain),
            bounds,
            same,
        )

    def sound(self, seeds: Sequence[int]) -> bool:
        """Whether overlapped runs of the unmutated program give its bits."""
        return all(
            self.device.run(self.image.code, given, seed) == bits
            for given, bits in zip(self.inputs, self.bits, strict=True)
            for seed in seeds
        )

    def _differs(self, mutant: Mutant, seed: int | None) -> tuple[bool, str]:
        for given, bits in zip(self.inputs, self.bits, strict=True):
            outcome = self.device.run(mutant.image.code, given, seed, mutant.moved)
            if outcome != bits:
                return True, outcome.trap
        return False, ""
