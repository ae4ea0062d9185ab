"""Layouts: where the elements of an N-d tensor lie in a buffer, and how to cover them with instructions.

A `Layout` is a strided N-d tensor over a buffer. `pieces` cuts an iteration space that several
layouts share into the (planes, rows, cols) blocks that one instruction can address.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, product
from math import prod

from compiler.tile.ir import Buffer, Ref
from compiler.tile.lanes import cut_columns
from isa.architecture import Dtype
from isa.errors import UnsupportedError
from isa.spec import ISA

Range = tuple[int, int]
Limits = tuple[int, int, int]
MAX_STRIDE = ISA["vset"].field("rs").largest  # elements


def limits_of(mnemonic: str) -> Limits:
    """Planes, rows, columns that an instruction can hold."""
    largest = {f.name: f.largest for f in ISA[mnemonic].fields}
    return largest.get("planes", 1), largest["rows"], largest["cols"]


def fits_row(mnemonic: str, columns: int) -> bool:
    """Whether an instruction takes a row of so many columns whole."""
    return columns <= limits_of(mnemonic)[2]


WORD_LIMITS = limits_of("vop")
DMA_LIMITS = limits_of("lda")


@dataclass(frozen=True, slots=True)
class Layout:
    """Element (i0, i1, …) lies at `offset` + sum(i*stride) elements of the buffer. Stride 0 repeats."""

    buffer: Buffer
    dtype: Dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    def seen(self, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> "Layout":
        """Another view of the buffer. Layouts are made by the million while tilings are measured, and
        dataclasses.replace takes four times as long."""
        return Layout(self.buffer, self.dtype, shape, strides, offset)

    def permuted(self, order: Sequence[int]) -> "Layout":
        """The same elements with the dimensions in another order."""
        return self.seen(
            self.offset, tuple(self.shape[dim] for dim in order), tuple(self.strides[dim] for dim in order)
        )

    def narrow(self, ranges: Sequence[Range]) -> "Layout":
        """The part within `ranges` of the leading dimensions; dimensions of size 1 repeat and stay as they are."""
        offset, shape = self.offset, list(self.shape)
        for i, (low, high) in enumerate(ranges):
            if self.shape[i] != 1:
                offset += low * self.strides[i]
                shape[i] = high - low
        return self.seen(offset, tuple(shape), self.strides)

    @property
    def has_columns(self) -> bool:
        """Whether an instruction can address the last dimension as its columns: elements side by side, or one
        repeated."""
        return not self.shape or self.shape[-1] <= 1 or self.strides[-1] in (0, 1)

    def widen(self, ranges: Sequence[Range], shape: Sequence[int]) -> "Layout":
        """The layout of `shape` whose part within `ranges` this one is: where the elements outside of it would lie."""
        offset = self.offset - sum(
            low * s for (low, _), s, n in zip(ranges, self.strides, shape, strict=False) if n != 1
        )
        return self.seen(offset, tuple(shape), self.strides)

    def broadcast(self, shape: Sequence[int]) -> "Layout":
        """Right-aligned broadcast to `shape`."""
        lead = len(shape) - len(self.shape)
        strides = (0,) * lead + tuple(0 if n == 1 else s for n, s in zip(self.shape, self.strides, strict=True))
        return self.seen(self.offset, tuple(shape), strides)

    def unsqueeze(self) -> "Layout":
        """A trailing dimension of size 1."""
        return self.seen(self.offset, (*self.shape, 1), (*self.strides, 0))

    @property
    def is_dense(self) -> bool:
        """Whether the elements are those of the buffer from its beginning, in row-major order."""
        steps = zip(self.shape, self.strides, contiguous(self.shape), strict=True)
        return self.offset == 0 and all(n == 1 or a == b for n, a, b in steps)

    @property
    def elements(self) -> int:
        return prod(self.shape)


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def dense(buffer: Buffer, dtype: Dtype, shape: Sequence[int], order: Sequence[int] | None = None) -> Layout:
    """A layout without gaps, dimensions stored in `order` (outermost first; default: as they are)."""
    order = range(len(shape)) if order is None else order
    packed = contiguous([shape[i] for i in order])
    strides = [0] * len(shape)
    for position, i in enumerate(order):
        strides[i] = packed[position]
    return Layout(buffer, dtype, tuple(shape), tuple(strides))


def blocks(domain: Sequence[int], rows: int) -> Iterator[tuple[Range, ...]]:
    """Cut a domain into boxes of at most `rows` points: single steps of the outer dimensions, runs of one, all of
    the inner.

    >>> list(blocks((2, 3), 2))
    [((0, 1), (0, 2)), ((0, 1), (2, 3)), ((1, 2), (0, 2)), ((1, 2), (2, 3))]
    """
    axis, inner = len(domain), 1
    while axis > 0 and inner * domain[axis - 1] <= rows:
        axis -= 1
        inner *= domain[axis]
    if axis == 0:
        yield tuple((0, n) for n in domain)
        return
    axis -= 1
    size = max(1, rows // inner)
    even = -(-domain[axis] // -(-domain[axis] // size))  # blocks of nearly equal size
    whole = [(0, n) for n in domain[axis + 1 :]]
    for outer in product(*(range(n) for n in domain[:axis])):
        for low in range(0, domain[axis], even):
            yield (*((i, i + 1) for i in outer), (low, min(low + even, domain[axis])), *whole)


@dataclass(frozen=True, slots=True)
class Piece:
    """One block: extents, a Ref per layout, and (offset, ps, rs, cs) per logical stride set."""

    planes: int
    rows: int
    cols: int
    refs: tuple[Ref | None, ...]
    logical: tuple[tuple[int, int, int, int], ...]

    @property
    def extents(self) -> tuple[tuple[str, int], ...]:
        return (("planes", self.planes), ("rows", self.rows), ("cols", self.cols))


def pieces(
    shape: Sequence[int],
    layouts: Sequence[Layout | None],
    logical: Sequence[tuple[int, Sequence[int]]] = (),
    *,
    row_op: bool = False,
    planes: bool = True,
    down: bool = False,
    limits: Limits = WORD_LIMITS,
    lanes: int = 0,
) -> Iterator[Piece]:
    """Cover the iteration space `shape` with blocks; columns are cut for a vector engine of so many `lanes`.

    Every layout has `shape` (broadcast); `logical` gives (offset, strides) of the same elements in flattened tensors.
    With `row_op` the last dimension is the columns of every block; with `down` the last two are rows and columns,
    whole. `planes=False` is for instructions that have no planes.
    """
    walks = [(layout.offset, layout.strides) for layout in layouts if layout] + [(o, tuple(s)) for o, s in logical]
    unit = (1, *([0] * len(walks)))
    dims: list[tuple[int, ...]] = [(size, *(w[1][i] for w in walks)) for i, size in enumerate(shape)]
    physical = len(walks) - len(logical)
    if down:
        outer, block = coalesce(dims[:-2], limits[1]), dims[-2:]
    elif row_op:
        outer, block = coalesce(dims[:-1], limits[1]), dims[-1:]
    else:
        outer = coalesce(dims, limits[2])
        packed = bool(outer) and all(step in (0, 1) for step in outer[-1][1 : 1 + physical])
        block = [outer.pop()] if packed else [unit]
    while len(block) < 3:
        planes_done = len(block) == 2 and not planes
        fits = bool(outer) and not planes_done and max(outer[-1][1 : 1 + physical], default=0) <= MAX_STRIDE
        block.insert(0, outer.pop() if fits else unit)
    if row_op or down:
        _check_whole(block, limits, down)
    parts = [
        [(low, min(low + limit, dim[0])) for low in range(0, dim[0], limit)]
        for dim, limit in zip(block, limits, strict=True)
    ]
    if lanes and not (row_op or down) and len(parts[2]) == 1:
        ends = [0, *accumulate(cut_columns(block[0][0] * block[1][0], block[2][0], lanes))]
        parts[2] = list(pairwise(ends))
    for index in product(*(range(dim[0]) for dim in outer)):
        for ranges in product(*parts):
            yield _piece(
                layouts,
                walks,
                [*zip(index, outer, strict=True), *((r[0], d) for r, d in zip(ranges, block, strict=True))],
                block,
                ranges,
            )


def _check_whole(block: Sequence[tuple[int, ...]], limits: Limits, down: bool) -> None:
    """What one instruction must see as a whole is within its reach."""
    axis, what = (1, "column") if down else (2, "row")
    if block[axis][0] > limits[axis]:
        raise UnsupportedError(f"a {what} of {block[axis][0]} elements; one instruction reaches {limits[axis]}")


def _piece(
    layouts: Sequence[Layout | None],
    walks: Sequence[tuple[int, tuple[int, ...]]],
    position: Sequence[tuple[int, tuple[int, ...]]],
    block: Sequence[tuple[int, ...]],
    ranges: Sequence[Range],
) -> Piece:
    starts = [offset + sum(i * dim[1 + k] for i, dim in position) for k, (offset, _) in enumerate(walks)]
    strides = [(block[0][1 + k], block[1][1 + k], block[2][1 + k]) for k in range(len(walks))]
    refs: list[Ref | None] = []
    k = 0
    for layout in layouts:
        if layout is None:
            refs.append(None)
            continue
        (ps, rs, cs), cols = strides[k], ranges[2][1] - ranges[2][0]
        assert cs in (0, 1) or cols == 1, f"column stride {cs} cannot be addressed"
        refs.append(
            Ref(layout.buffer, starts[k] * layout.dtype.bits // 8, layout.dtype, rs=rs, ps=ps, cs=cs if cols > 1 else 1)
        )
        k += 1
    sizes = [high - low for low, high in ranges]
    return Piece(
        sizes[0], sizes[1], sizes[2], tuple(refs), tuple((starts[i], *strides[i]) for i in range(k, len(walks)))
    )


def coalesce(dims: Sequence[tuple[int, ...]], limit: int = 1 << 62) -> list[tuple[int, ...]]:
    """Drop dimensions of size 1 and join neighbours that every stride set walks as one, up to `limit` elements."""
    out: list[tuple[int, ...]] = []
    for dim in dims:
        if dim[0] == 1:
            continue
        if (
            out
            and out[-1][0] * dim[0] <= limit
            and all(a == b * dim[0] for a, b in zip(out[-1][1:], dim[1:], strict=True))
        ):
            out[-1] = (out[-1][0] * dim[0], *dim[1:])
        else:
            out.append(dim)
    return out
