"""A memory of what was emitted of late: tilings that the search tries, chips that a sweep tries, have much in common."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from compiler.tile.ir import Op


class HasOps(Protocol):
    @property
    def ops(self) -> Sequence[Op]: ...


T = TypeVar("T", bound=HasOps)


@dataclass
class Recent(Generic[T]):
    """What was made of late, by all that it depends on: as much as has `most` ops together."""

    most: int
    made: "OrderedDict[object, T]" = field(default_factory=OrderedDict)
    count: int = 0  # ops in all of it

    def get(self, key: object, make: Callable[[], T]) -> T:
        """What was made for `key`; made now if it is not there, or not any more."""
        if (found := self.made.get(key)) is not None:
            self.made.move_to_end(key)
            return found
        found = self.made[key] = make()
        self.count += len(found.ops)
        while self.count > self.most and len(self.made) > 1:
            _, oldest = self.made.popitem(last=False)
            self.count -= len(oldest.ops)
        return found
