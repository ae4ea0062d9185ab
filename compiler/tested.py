"""The versions of PyTorch and transformers that the tests have passed with. pyproject.toml asks for the lowest; what is
newer only warns.

`make test-newest` runs the tests on the newest ones inside these ranges. Imports neither of the two.
"""

import re
import warnings
from dataclasses import dataclass
from importlib import metadata


@dataclass(frozen=True)
class Range:
    """`low` is in it, `end` is the first that is not."""

    low: str
    end: str

    def holds(self, version: str) -> bool:
        return _numbers(self.low) <= _numbers(version) < _numbers(self.end)

    def __str__(self) -> str:
        return f">={self.low},<{self.end}"


TESTED = {"torch": Range("2.13", "2.15"), "transformers": Range("5.20", "5.25")}


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers of a release: what follows them (a build, a candidate) says nothing of the interface.

    >>> _numbers("2.13.0+cpu")
    (2, 13, 0)
    """
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found.group().split("."))) if found else ()


def untested() -> list[str]:
    """A sentence for each installed package whose version is outside its range."""
    found = []
    for name, tested in TESTED.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if not tested.holds(version):
            found.append(
                f"llmchip is tested with {name}{tested}, this is {version}: it may refuse more, and `verify` says whether the bits are right"
            )
    return found


def warn_untested() -> None:
    """One warning for each. Called once, when the compiler is first imported."""
    for sentence in untested():
        warnings.warn(sentence, RuntimeWarning, stacklevel=2)


if __name__ == "__main__":
    print(*(f"{name}{tested}" for name, tested in TESTED.items()))
