"""What limits a program. Needs no torch, as looking at an image needs none."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """Least cycles of each resource: mxu, vec, act, dram."""

    by_resource: Mapping[str, int]

    @property
    def cycles(self) -> int:
        return max(self.by_resource.values())

    @property
    def resource(self) -> str:
        """The one that limits."""
        return max(self.by_resource, key=lambda name: self.by_resource[name])
