"""Stages: the tile passes, in groups that the search runs again and again, and what it chooses for them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields

from compiler.emit.tile_sizes import SearchPoint
from compiler.schedule.list_schedule import FILLS
from compiler.tile.manager import TilePass


@dataclass(frozen=True)
class Stages:
    """The passes, in the order of the fields.

    `kernels` run once. The search runs the others for every tiling that it tries: `tiling` for each point of the
    search space, `program` for those that may be fast enough, `order` for several shares of the memories, `addresses` for
    the best until one fits.
    """

    kernels: Sequence[TilePass]
    tiling: Sequence[TilePass]
    program: Sequence[TilePass]
    order: Sequence[TilePass]
    addresses: Sequence[TilePass]

    def __iter__(self) -> Iterator[TilePass]:
        return (step for stage in fields(self) for step in getattr(self, stage.name))


@dataclass(frozen=True)
class Choice:
    """What the search has chosen: a point of its space, whether the batch may be split, how full a schedule may make
    the memories, the cycles and ops above which no program is of interest, whether a plan of the memories that fits is made lower,
    and how many cycles bytes rest before they are used again."""

    point: SearchPoint = field(default_factory=SearchPoint)
    split: bool = True
    fill: float = FILLS[0]
    limit: float = math.inf
    most: float = math.inf
    lower: bool = True
    rest: int = 0
