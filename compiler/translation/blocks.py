"""Arrays of symbols are worked through in blocks that stay in the processor's cache."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import prod

from numpy.lib.stride_tricks import as_strided

from compiler.translation.symbols import Symbols
from isa.views import Extents

ELEMENTS = 1 << 18
Box = tuple[slice, ...]


def boxes(shape: Sequence[int], whole: int = 0) -> Iterator[Box]:
    """Cut an iteration space into blocks of about ELEMENTS elements; the last `whole` dimensions are never cut.

    >>> [[(s.start, s.stop) for s in box] for box in boxes((3, 1 << 17), 1)]
    [[(0, 2)], [(2, 3)]]
    """
    axis, inner = len(shape), 1
    while axis > 0 and inner * shape[axis - 1] <= ELEMENTS:
        axis -= 1
        inner *= shape[axis]
    axis = min(axis, len(shape) - whole) - 1
    if axis < 0:
        yield ()
        return
    step = max(1, ELEMENTS // max(1, prod(shape[axis + 1 :])))
    for outer in product(*(range(n) for n in shape[:axis])):
        for low in range(0, shape[axis], step):
            yield (*(slice(i, i + 1) for i in outer), slice(low, min(low + step, shape[axis])))


def part(array: Symbols, box: Box) -> Symbols:
    """The block of an array of the same rank, whose dimensions of size 1 repeat."""
    if not box:
        return array
    return array[tuple(cut if n != 1 else slice(None) for cut, n in zip(box, array.shape, strict=False))]


def block_shape(shape: Extents, box: Box) -> Extents:
    """The shape of a block of an instruction's iteration space.

    >>> block_shape((4, 8, 9), (slice(1, 2), slice(0, 6)))
    (1, 6, 9)
    """
    planes, rows, cols = [cut.stop - cut.start for cut in box] + list(shape[len(box) :])
    return planes, rows, cols


def collapsed(array: Symbols) -> Symbols:
    """The array with every repeated dimension held once."""
    if 0 not in array.strides:
        return array
    return array[tuple(slice(0, 1) if step == 0 else slice(None) for step in array.strides)]


def repeated(array: Symbols, shape: Sequence[int]) -> Symbols:
    """The array broadcast to a shape, without numpy's mark against writing, of which PyTorch would warn; nobody writes
    to it."""
    array = aligned(array, len(shape))
    steps = tuple(0 if n == 1 else step for n, step in zip(array.shape, array.strides, strict=True))
    return as_strided(array, tuple(shape), steps)


def aligned(array: Symbols, rank: int) -> Symbols:
    """Right-aligned to `rank` dimensions."""
    return array.reshape((1,) * (rank - array.ndim) + array.shape) if array.ndim < rank else array


def blockwise(
    shape: Sequence[int],
    whole: int,
    outs: Sequence[Symbols],
    work: Callable[..., tuple[Symbols, ...]],
    *operands: Symbols,
) -> None:
    """Fill `outs` with what `work` makes of the blocks of all `operands`."""
    if not shape:
        shape, outs = (1,), [out.reshape(1) for out in outs]
    given = [collapsed(aligned(operand, len(shape))) for operand in operands]
    for box in boxes(shape, whole):
        for out, result in zip(outs, work(*(part(operand, box) for operand in given)), strict=True):
            part(out, box)[...] = result
