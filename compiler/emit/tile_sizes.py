"""Tile sizes: the ways to tile a kernel that are worth a look.

    usual      everything is loaded once, best first
    kept       fewer rows at a time, weights stay in the scratchpad
    streamed   many rows, and weights pass through the scratchpad once for each block of rows
    smallest   parts of a tile of the array: what is left when nothing else fits

A tiling belongs to a *family*: the same rows, ever smaller tiles of weights, so that less and less of the scratchpad is
needed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

from compiler.emit.kernel import head_groups, is_column_separable
from compiler.ops.record import Role
from compiler.tile.decisions import TileSizes
from compiler.tile.kernels import Kernel
from isa.chip import Chip
from isa.timing import ceil_div

HEAD_ROWS = 512  # rows per block of a projection that is tiled by heads
MIN_ROWS = 32  # rows per block at least, so that instructions stay long against their fixed costs
WINDOW = 160  # ops beyond the oldest waiting one that a schedule looks at
WINDOWS = 8  # times the rows in blocks of which windows see more than the block: what two blocks see is loaded twice
_IDLE = (128, 64, 32)  # columns of an array that has more
MIN_WIDTH = 32  # elements: of narrower rows, a block has more
ENOUGH_SRAM = 8 << 20  # bytes: an eighth of it is as much as one instruction should load, however much room there is

# of attention over a cache: old keys per tile, and new tokens per block
KEYS_AND_TOKENS = ((1 << 13, 256), (1 << 12, 128), (1 << 11, 64), (1 << 10, 32), (1 << 9, 16), (256, 8), (64, 1))

Family = Sequence[TileSizes]


@dataclass(frozen=True)
class SearchPoint:
    """What the search over tilings varies.

    `points` (head, query) pairs per block of attention, `rows` per block of other kernels (more where they are narrower
    than `width` elements and nothing is multiplied, or than `narrow` ones: each instruction has its fixed cost), the share of the scratchpad
    that one instruction loads (a `slice` of weights: small enough to start early and to find room, large enough to keep
    counts short), into how many `parts` the tokens of one sequence are cut behind attention, how far parts overlap in
    the order of the kernels (`overlap`), the `share` of the memories to plan with, whether loads get memory in the order of the kernels (`in_turn`), and how
    many ops beyond the oldest that waits a schedule looks at (`window`).

    Of that share, values between kernels get the part `resident`, and a kernel fills the part `room` of what they
    leave, so that loads of the next one find some. `sram` is the part of the scratchpad with which tilings are made, as
    for a chip that has no more; a schedule may fill all of it. With `wide`, ACC is the first choice for what may lie
    there instead of the second. With `columns`, a kernel that can goes through groups of columns, one after the other,
    before blocks of rows are thought of; without, it does so where its weights do not fit. With `cut`, rows that
    leave lanes of VEC idle are cut. `smallest` tiles take as little memory as can be.
    """

    points: int = 512
    rows: int = MIN_ROWS
    width: int = MIN_WIDTH
    narrow: int = 1
    slice: float = 1 / 8
    parts: int = 1
    overlap: float = 0.0
    in_turn: bool = False
    window: int = WINDOW
    share: float = 1.0
    sram: float = 1.0
    resident: float = 0.5
    room: float = 1.0
    wide: bool = False
    columns: bool = True
    cut: bool = False
    smallest: bool = False

    def slice_bytes(self, chip: Chip) -> int:
        """Bytes of a slice. A scratchpad beyond `ENOUGH_SRAM` makes none larger, so that it makes no program slower."""
        return int(min(chip.sram.bytes * self.sram, ENOUGH_SRAM) * self.slice)


def block_rows(chip: Chip) -> int:
    """Rows per block: as many as hide the load of the next weights, so that a full array is never slowed down by small
    blocks."""
    return max(MIN_ROWS, ceil_div(chip.mxu.rows, chip.mxu.weight_rows_per_cycle))


def preferred_tilings(kernel: Kernel, chip: Chip, tuning: SearchPoint, total: int) -> Iterator[Family]:
    """Ways to tile a kernel in which everything is loaded once, best first."""
    shapes = _Shapes.of(kernel, chip, tuning.slice_bytes(chip))
    groups = head_groups(kernel, chip)
    if groups > 1:
        yield [TileSizes(min(HEAD_ROWS, total), groups=groups)]
    blocks: list[Family] = [shapes.kept(min(_most_rows(kernel, shapes, tuning), total))]
    if not is_column_separable(kernel) or total <= block_rows(chip):
        yield from blocks
        return
    groups = ceil_div(shapes.n, slice_width(shapes.k, shapes.n, chip, tuning.slice_bytes(chip)))
    columns: list[Family] = [
        [TileSizes(min(r, total), groups=groups, keep=keep)] for keep in (True, False) for r in (1024, 512, 256, 128)
    ]
    yield from columns + blocks if tuning.columns else blocks + columns


def kept_tilings(kernel: Kernel, chip: Chip, tuning: SearchPoint, total: int) -> Iterator[Family]:
    """Fewer and fewer rows at a time, with weights that stay."""
    shapes = _Shapes.of(kernel, chip, tuning.slice_bytes(chip))
    rows = _most_rows(kernel, shapes, tuning)
    return map(shapes.kept, _halves(min(max(tuning.points, rows) if shapes.batched or not shapes.k else rows, total)))


def streamed_tilings(kernel: Kernel, chip: Chip, tuning: SearchPoint, total: int) -> Iterator[Family]:
    """All rows, then fewer and fewer, with weights that are loaded for each block of them."""
    shapes = _Shapes.of(kernel, chip, tuning.slice_bytes(chip))
    return (
        family
        for rows in _halves(total)
        if shapes.k
        for family in shapes.streamed(rows, chip, tuning.slice_bytes(chip))
    )


def smallest_tilings(kernel: Kernel, chip: Chip, tuning: SearchPoint, total: int) -> Iterator[Family]:
    """Fewer and fewer rows, with parts of one tile of the array; at last a row with 16 by 16 weights, or with as little
    at a time as can be."""
    shapes = _Shapes.of(kernel, chip, tuning.slice_bytes(chip))
    for rows in _halves(total):
        tiles = dict.fromkeys(
            (min(chip.mxu.cols, shapes.n, size), min(chip.mxu.rows, shapes.k, size)) for size in (64, 16) if shapes.k
        )
        yield [TileSizes(rows, n, k, keep=False) for n, k in tiles] or shapes.kept(rows)


def both(tiling: TileSizes, tuning: SearchPoint) -> tuple[TileSizes, TileSizes]:
    """A tiling with what may lie in ACC there, and in the scratchpad; what the tuning prefers is first."""
    return replace(tiling, wide=tuning.wide), replace(tiling, wide=not tuning.wide)


def slice_width(k: int, n: int, chip: Chip, size: int) -> int:
    """Columns of weights that one instruction loads: about `size` bytes, whole columns of the array, slices of nearly
    equal size."""
    slices = max(ceil_div(k * n, max(size, 1)), 1)
    return ceil_div(ceil_div(n, slices), chip.mxu.cols) * chip.mxu.cols


def _most_rows(kernel: Kernel, shapes: "_Shapes", tuning: SearchPoint) -> int:
    """Rows per block where there is room: more of them, if they are so narrow that instructions would be short."""
    if shapes.batched:
        return tuning.points
    width = max((prod(n.shape[len(kernel.domain) :]) for n in kernel.nodes), default=1)
    rows = tuning.rows * ceil_div(tuning.narrow if shapes.k else tuning.width, max(width, 1))
    return rows * WINDOWS if any(n.role is Role.WINDOW for n in kernel.nodes) else rows


def _halves(most: int) -> Iterator[int]:
    """The whole, its half, and so on down to 1."""
    parts = 1
    while (rows := ceil_div(most, parts)) > 1:
        yield rows
        parts *= 2
    yield 1


@dataclass(frozen=True)
class _Shapes:
    """The widest and deepest matmul of a kernel, 0 if it has none, and the widths that tiles of its weights may
    have; or the tiles of old keys and the blocks of new tokens in attention over a cache (`pairs`)."""

    n: int
    k: int
    batched: bool
    widths: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...] = ()

    @staticmethod
    def of(kernel: Kernel, chip: Chip, size: int) -> "_Shapes":
        matmuls = [n for n in kernel.nodes if n.role is Role.MATMUL]
        if not matmuls:
            roles = {
                n.role for n in kernel.nodes
            }  # columns of a map are reduced, and elements joined, independently of each other
            if Role.ATTENTION in roles:
                return _Shapes(0, 0, False, (), KEYS_AND_TOKENS)
            narrow = (
                (1024, 256, 64, 16) if Role.DOWN in roles else (1 << 14, 1 << 12, 1 << 10) if Role.CAT in roles else ()
            )
            return _Shapes(0, 0, False, (1 << 30, *narrow))
        n, k = max(m.shape[-1] for m in matmuls), max(m.operands[0].shape[-1] for m in matmuls)
        widest = min(slice_width(k, n, chip, size), n)
        batched = any(len(m.operands[1].shape) > 2 for m in matmuls)
        return _Shapes(n, k, batched, (widest, *(w for w in (1024, 256, 64, 16) if w < widest)))

    def kept(self, rows: int) -> Family:
        if self.pairs:
            return [TileSizes(rows, keys, tokens) for keys, tokens in self.pairs]
        return [TileSizes(rows, width) for width in self.widths]

    def streamed(self, rows: int, chip: Chip, size: int) -> Iterator[Family]:
        """Tiles of weights from `size` bytes down to one tile of the array: those of the whole depth, those of parts of
        it, and those of the whole depth that leave columns of the array idle: of such, no sums of parts wait in ACC."""
        least = chip.mxu.rows * chip.mxu.cols
        sizes = [max(size >> i, least) for i in range(max(size // least, 1).bit_length())]
        tiles = dict.fromkeys(_tile(self.n, self.k, chip, bound) for bound in sizes)
        deep = [(n, k) for n, k in tiles if k == self.k]
        parts = [(n, k) for n, k in tiles if k != self.k]
        narrow = [(width, self.k) for width in _IDLE if self.k * width <= size and width < min(chip.mxu.cols, self.n)]
        for family in (deep, parts, narrow):
            if family:
                yield [TileSizes(rows, n, k, keep=False) for n, k in family]


def _tile(n: int, k: int, chip: Chip, size: int) -> tuple[int, int]:
    """Columns and depth of a tile of weights of about `size` bytes: all of the depth if one column of array tiles
    allows it."""
    rows, cols = chip.mxu.rows, chip.mxu.cols
    if k * min(cols, n) <= size:
        slices = ceil_div(n, max(size // max(k, 1) // cols, 1) * cols)
        return min(ceil_div(ceil_div(n, slices), cols) * cols, n), k
    slices = ceil_div(k, max(size // cols // rows, 1) * rows)
    return min(cols, n), min(ceil_div(ceil_div(k, slices), rows) * rows, k)
