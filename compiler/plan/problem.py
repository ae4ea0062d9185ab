"""The records of memory planning, and the CSV form in which problems are stored and exchanged.

    block x [0, 4) 2048 B, block y [2, 6) 1024 B   ->   Plan({x: 0, y: 2048}, height=3072, ...)

**Problem.** A capacity in bytes, and blocks. A block b has a live range [lower, upper) in instructions, which is not
empty, a size, an alignment, and perhaps a fixed offset and a reuse group (`may_alias`). Two blocks are *alive together*
if some instruction is in both live ranges. Known as dynamic storage allocation; NP-complete in the strong sense (Garey
& Johnson 1979, problem SR2).

**Plan.** An offset o(b) for every block, and a height. It is *valid* if

    alone    o(b) >= 0, b.align divides o(b), o(b) = b.fixed if that is given
    inside   o(b) + b.size is at most the height, and at most the capacity
    apart    a and b that are alive together share no byte of [o(a), o(a) + a.size) and [o(b), o(b) + b.size), unless
             they are in one reuse group and o(a) = o(b)

The exception is how an elementwise operation overwrites its input. Whoever forms a group vouches that this is safe. The
compiler forms none today (compiler/schedule/addresses.py); they come from CSV files and tests.

**Granule.** The greatest common divisor of the capacity, all alignments and all fixed offsets. Every offset is a
multiple of it, so that nothing else fits into the rest of the last granule of a block: sizes are rounded up to granules
and no plan is lost. The height is the end of the highest granule in use.

**Not said here.** Whether live ranges are those of the program, and whether engines that overlap in time keep to them.
The first is compared again in compiler/tile/verify_state.py. The second is the work of dependence counts
(compiler/codegen/wait_counts.py), and lint/races.py proves it of the image.
"""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from isa.errors import CompileError


@dataclass(frozen=True, slots=True)
class Block:
    """`size` bytes that live during the instructions [lower, upper)."""

    name: str
    lower: int
    upper: int
    size: int
    align: int = 64
    fixed: int | None = None
    may_alias: str | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.lower < self.upper and self.size > 0 and self.align > 0):
            raise CompileError(
                f"{self} needs a live range that is not empty, a positive size and alignment", "memory plan"
            )
        if self.fixed is not None and (self.fixed < 0 or self.fixed % self.align):
            raise CompileError(
                f"{self} is fixed at {self.fixed}, which is not a multiple of {self.align}", "memory plan"
            )

    def __str__(self) -> str:
        return f"{self.name} [{self.lower}, {self.upper}) {self.size} B"


@dataclass(frozen=True, slots=True)
class Problem:
    """Blocks to place in `capacity` bytes, whose names differ.

    Every offset and the capacity are multiples of the `granule`, so rounding sizes up to it loses no plan.
    """

    blocks: tuple[Block, ...]
    capacity: int
    granule: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.capacity <= 0:
            raise CompileError(f"a capacity of {self.capacity} bytes holds nothing", "memory plan")
        if len({block.name for block in self.blocks}) != len(self.blocks):
            raise CompileError("two blocks have the same name", "memory plan")
        granule = math.gcd(self.capacity, *(math.gcd(block.align, block.fixed or 0) for block in self.blocks))
        object.__setattr__(self, "granule", granule)

    def space(self, block: Block) -> int:
        """The bytes that `block` takes, in whole granules."""
        return -(-block.size // self.granule) * self.granule


@dataclass(frozen=True, slots=True)
class Plan:
    """Where every block goes. `height` is the end of the highest granule in use; no plan is lower than `lower_bound`.

    `optimal` says that no plan is lower than this one: `height == lower_bound`.
    """

    offsets: Mapping[str, int]
    height: int
    lower_bound: int
    optimal: bool

    def __str__(self) -> str:
        proof = "optimal" if self.optimal else f"at most {self.height - self.lower_bound} B above the optimum"
        return f"plan of {len(self.offsets)} blocks in {self.height} B ({proof})"


def read_csv(path: Path, capacity: int | None = None) -> Problem:
    """A problem in MiniMalloc's format; without `capacity` it is the number in the name, as in `A.1048576.csv`.

    The columns align, fixed and may_alias are optional.
    """
    if capacity is None:
        capacity = int(path.name.split(".")[-2])
    with path.open(newline="") as file:
        return Problem(tuple(_block(row) for row in csv.DictReader(file)), capacity)


def write_csv(problem: Problem, path: Path) -> None:
    """Write `problem` so that `read_csv` gives it back and MiniMalloc can read it (it ignores our extra columns)."""
    with path.open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(("id", "lower", "upper", "size", "align", "fixed", "may_alias"))
        for b in problem.blocks:
            out.writerow(
                (b.name, b.lower, b.upper, b.size, b.align, "" if b.fixed is None else b.fixed, b.may_alias or "")
            )


def _block(row: Mapping[str, str]) -> Block:
    fixed = row.get("fixed")
    return Block(
        row["id"],
        int(row["lower"]),
        int(row["upper"]),
        int(row["size"]),
        int(row.get("align") or 64),
        int(fixed) if fixed else None,
        row.get("may_alias") or None,
    )
