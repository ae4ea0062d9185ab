"""What the tile passes decide and hand on, one record each: tile sizes, memories, the program, its order, addresses."""

from collections.abc import Mapping
from dataclasses import dataclass

from compiler.tile.batch_tile import BatchTile
from compiler.tile.ir import Buffer, Program
from compiler.tile.kernel_graph import Tensor
from compiler.tile.kernel_op import KernelOp
from compiler.tile.kernels import Kernel
from compiler.tile.storage import Storage

DRAM_LIMIT = 1 << 36  # what a view's base can address


@dataclass(frozen=True, slots=True)
class TileSizes:
    """How a kernel is tiled: rows per block, columns and depth of a weight tile, whether weights stay for all blocks.

    `wide`: what only VEC and ACT touch, above all float32 rows, lies in ACC instead of SRAM.
    With `groups`, the dimension behind the row domain (output columns, heads) is cut into as many parts, too, as equal
    as can be. `lanes` are those of VEC, so that rows that leave some of them idle are cut (compiler/tile/lanes.py); 0: as
    they are.
    """

    rows: int
    n: int = 1 << 30
    k: int = 1 << 30
    keep: bool = True
    groups: int = 1
    wide: bool = False
    lanes: int = 0


@dataclass(frozen=True)
class Assignment:
    """Where all values lie, the batch tiles, and the tile sizes of every kernel."""

    storage: Storage
    batch_tiles: tuple[BatchTile, ...]
    tilings: tuple[TileSizes, ...]


@dataclass(frozen=True)
class Tiled:
    """The tile program with its interface: inputs, packed constants and outputs in DRAM, literal constants.

    `instances` names, for a node that the loop computes, the nodes of all iterations.
    """

    program: Program
    instances: Mapping[str, tuple[str, ...]]
    inputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    literals: Mapping[Buffer, bytes]
    ops: tuple[KernelOp, ...]
    kernels: tuple[Kernel, ...]
    materialized: frozenset[str]


@dataclass(frozen=True)
class Schedule:
    """A program in its new order, with the predicted start and finish of each op (the loop's in its first iteration).

    `cycles` is the predicted time of the whole program, every iteration of the loop included.
    """

    program: Program
    times: tuple[tuple[int, int], ...]
    cycles: int


@dataclass(frozen=True)
class Placement:
    """Byte offset and live range (first and last op index) of every buffer; the height and lower bound of each
    memory."""

    offsets: Mapping[Buffer, int]
    live: Mapping[Buffer, tuple[int, int]]
    heights: Mapping[str, tuple[int, int]]

    @property
    def scratch_bytes(self) -> int:
        return self.heights["scratch"][0]
