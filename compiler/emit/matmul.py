"""Matmul with its epilogue: stage weight tiles, accumulate, then dequantize, bias, mask and residual on the way out.

for each tile of n:  ldw w;  mm acc = a · wᵀ;  vaff y = ((acc * row) * col) + bias (+ residual)

Where each row chooses its weights, a tile of them is a stretch of one row of a table, which comes by its number:

for each tile of n:  for each row:  gather w;  mm acc = a · wᵀ
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from compiler.emit.emitter import Emitter, Tile, columns, emits
from compiler.tile.ir import Ref
from compiler.tile.kernel_op import CHOSEN, KernelOp
from compiler.tile.kernels import MAXIMUM
from compiler.tile.layout import Layout, Range, coalesce
from isa.architecture import Dtype, Space
from isa.spec import ISA, MM_FORMAT, TAP, VOP

TURNS = 4  # accumulators in turn: with instructions of a tile of the array, long enough for one to leave it
ROUND = {Dtype.F32: 0, Dtype.BF16: 1, Dtype.F16: 2}

FLOATS = "matmul_float"  # of which weights may be codes: they become floats on chip, tile by tile
MM = ISA["mm"]
PLANES, ROWS = MM.field("b").largest, MM.field("m").largest  # of one instruction
GATHERED = ISA["gather"].field("cols").largest  # elements of a row of a table that one instruction fetches


@dataclass(frozen=True, slots=True)
class _Product:
    """A matmul with its operands: the left side on chip, the right one where it lies."""

    op: KernelOp
    a: Layout
    weights: Layout
    chosen: Layout | None = None  # which blocks of the weights each row takes

    @property
    def b(self) -> KernelOp:
        return self.op.operands[1]

    @property
    def sums(self) -> Dtype:
        """What the array sums up in."""
        return Dtype.F32 if self.op.kind == FLOATS else Dtype.I32

    @property
    def transposed(self) -> bool:
        return self.op.flag("transpose_b")

    def width(self, e: Emitter, n: int) -> int:
        """Columns of a tile of `n`."""
        width = min(e.tiling.n, n, MM.field("n").largest)
        if self.chosen is None:
            return width
        _, size, k = self.weights.shape
        return max(min(width, size, GATHERED // max(k, 1)), 1)


def _product(e: Emitter, op: KernelOp) -> _Product:
    left, right = op.tensor("a"), op.operands[1]
    a = e.operand(left, len(left.shape), grouped=False)
    if op.kind == CHOSEN:
        chosen = e.operand(op.tensor("chosen"), len(op.shape), grouped=False)
        return _Product(op, a, e.storage.resolve(right), chosen)
    batch = 0 if len(right.shape) == 2 else len(op.shape) - 2
    weights = e.batched(right, batch) if left.shape[-1] else a  # of products of nothing, none is read
    return _Product(op, a, weights)


@emits("matmul_i8", FLOATS, CHOSEN)
def matmul(e: Emitter, node: KernelOp) -> None:
    """A matmul whose sums are wanted as they are; others are emitted by their dequantize."""
    product_, sizes, out = _product(e, node), e.block_shape(node), e.result(node)
    for (low, high), acc in _tiles(e, product_, sizes, _first_column(e, out, node)):
        e.emit("vop", node, acc.shape, {"d": out.columns(low, high)}, {"a": acc}, {"f": VOP.index("mov")})
    e.finish(node)


@emits("dequantize")
def dequantize(e: Emitter, node: KernelOp) -> None:
    """Floats of sums that lie somewhere, or of a product whose tiles leave the array through here; with the addition
    of a residual where the step has one."""
    assert e.step is not None
    target, rank, residual, sums = e.step.last, len(node.shape), None, None
    if e.step.residual is not None:
        a, b = (e.step.residual.tensor(name) for name in ("self", "other"))
        residual = e.operand(b if a is node else a, rank)
    product_ = _product(e, e.step.product) if e.step.product is not None else None
    if product_ is None:
        sums = e.operand(node.tensor("c"), rank)
    row = e.operand(node.tensor("row"), rank - 1).unsqueeze()
    col, bias = (None if x is None else e.operand(x, rank) for x in map(node.optional, ("col", "bias")))
    sizes, out = e.block_shape(node), e.result(target)
    n = sizes[-1]
    if product_ is not None:
        tiles = _tiles(e, product_, sizes, _first_column(e, out, node))
    else:
        assert sums is not None
        tiles = iter([((0, n), sums)])
    top = None  # where the row maxima go, which need whole rows
    if e.hands(MAXIMUM) and (product_ is None or product_.width(e, n) == n):
        top = e.handed[target, MAXIMUM] = e.temp(sizes[:-1], Dtype.F32, target.name + ".max")
    for (low, high), acc in tiles:
        ins: dict[str, Layout | None] = {"a": acc, "rs": row}
        ins |= {name: _part(x, low, high) for name, x in (("cs", col), ("bi", bias), ("res", residual))}
        attrs = {"rnd": ROUND[node.dtype]}
        outs: dict[str, Tile | Layout] = {"d": out.columns(low, high)}
        if top is not None:
            outs["tap"], attrs["red"] = top.unsqueeze(), TAP.index("max")
        e.emit("vaff", target, acc.shape, outs, ins, attrs, row_op=top is not None)
    e.finish(target)


def _first_column(e: Emitter, out: Tile, node: KernelOp) -> int:
    """Of this group's columns, among those of the weights."""
    return out.logical.offset % node.shape[-1] if e.tiling.groups > 1 else 0


def _part(layout: Layout | None, low: int, high: int) -> Layout | None:
    return None if layout is None else columns(layout, low, high)


def _tiles(e: Emitter, product_: _Product, sizes: tuple[int, ...], start: int) -> Iterator[tuple[Range, Layout]]:
    """Emit the product tile by tile of its columns: each tile of the block, with its accumulator.

    Where the depth is cut, too, a few tiles take turns: a sum that goes on where the last instruction has just left it
    would wait for that instruction."""
    n = sizes[-1]
    step = product_.width(e, n)
    if product_.chosen is not None:
        yield from _chosen_tiles(e, product_, product_.chosen, sizes[0], step)
        return
    tiles = [(low, min(low + step, n)) for low in range(0, n, step)]
    turns = TURNS if e.tiling.k < product_.a.shape[-1] else 1
    for i in e.some(range(0, len(tiles), turns)):
        together = tiles[i : i + turns]
        shifted = [(start + low, start + high) for low, high in together]
        yield from zip(together, _accumulate(e, product_, sizes[:-1], shifted), strict=True)


def _accumulate(e: Emitter, product_: _Product, rows: tuple[int, ...], tiles: Sequence[Range]) -> list[Layout]:
    """Emit the instructions of some tiles of the product, each of columns low .. high; returns their accumulators."""
    node, a, weights, transposed = product_.op, product_.a, product_.weights, product_.transposed
    k = a.shape[-1]
    if k == 0:
        return [e.filled((*rows, high - low), product_.sums, 0, node) for low, high in tiles]
    a = e.with_columns(a if a.shape[:-1] == rows else a.broadcast((*rows, k)), node)
    step = min(e.tiling.k, k, MM.field("k").largest)
    sums = [e.temp((*rows, high - low), product_.sums, node.name + ".acc", Space.ACC) for low, high in tiles]
    for first in e.some(range(0, k, step)):
        last = min(first + step, k)
        for acc, n_range in zip(sums, tiles, strict=True):
            w_rows, w_cols = (n_range, (first, last)) if transposed else ((first, last), n_range)
            w = e.with_columns(
                e.stage(product_.b, _window(weights, w_rows, w_cols), many=len(weights.shape) == 2), node
            )
            if product_.sums is Dtype.F32 and not w.dtype.is_float:
                w = _as_floats(e, node, w)
            if len(w.shape) > 2 and w.shape[:-2] != rows[:-1]:
                w = w.broadcast((*rows[:-1], *w.shape[-2:]))
            for refs, (b, m) in _mm_blocks(columns(a, first, last), w, acc, transposed):
                attrs = {
                    "m": m,
                    "n": n_range[1] - n_range[0],
                    "k": last - first,
                    "b": b,
                    "wt": int(transposed),
                    "acc": int(first > 0),
                } | ({"fmt": MM_FORMAT.index("float")} if product_.sums is Dtype.F32 else {})
                e.emit_one("mm", node, dict(zip(("c", "a", "w"), refs, strict=True)), attrs)
    return sums


def _as_floats(e: Emitter, node: KernelOp, codes: Layout) -> Layout:
    """A tile of weights that are codes, as the array multiplies them with floats."""
    floats = e.temp(codes.shape, Dtype.F32, node.name + ".floats")
    e.emit("vop", node, codes.shape, {"d": floats}, {"a": codes}, {"f": VOP.index("mov")})
    return floats


def _chosen_tiles(
    e: Emitter, product_: _Product, chosen: Layout, rows: int, step: int
) -> Iterator[tuple[Range, Layout]]:
    """Emit a product whose rows choose their weights, tile by tile of its columns; a tile lies within a block."""
    node, table = product_.op, product_.weights
    blocks, size, k = table.shape
    if k == 0:
        n = node.shape[-1]
        yield (0, n), e.filled((rows, n), Dtype.I32, 0, node)
        return
    a = e.with_columns(product_.a, node)
    for number in range(chosen.shape[-1]):
        for low in range(0, size, step):
            high = min(low + step, size)
            acc = e.temp((rows, high - low), Dtype.I32, node.name + ".acc", Space.ACC)
            for row in range(rows):
                w = e.temp((high - low, k), Dtype.I8, node.name + ".in")
                views = {
                    "d": _at(w, 0, 0),
                    "a": Ref(table.buffer, table.offset + low * k, Dtype.I8, rs=size * k),
                    "idx": _at(chosen, row, number),
                }
                e.emit_one("gather", node, views, {"n": 1, "cols": (high - low) * k, "limit": blocks})
                sums = {"c": _at(acc, row, 0), "a": _at(a, row, 0), "w": replace(_at(w, 0, 0), rs=k)}
                e.emit_one("mm", node, sums, {"m": 1, "n": high - low, "k": k, "wt": 1})
            yield (number * size + low, number * size + high), acc


def _at(layout: Layout, row: int, column: int) -> Ref:
    """The row of a block from a column on."""
    element = layout.offset + row * layout.strides[0] + column * layout.strides[1]
    return Ref(layout.buffer, element * layout.dtype.bits // 8, layout.dtype)


def _window(layout: Layout, rows: tuple[int, int], cols: tuple[int, int]) -> Layout:
    offset = layout.offset + rows[0] * layout.strides[-2] + cols[0] * layout.strides[-1]
    return layout.seen(offset, (*layout.shape[:-2], rows[1] - rows[0], cols[1] - cols[0]), layout.strides)


def _mm_blocks(a: Layout, w: Layout, c: Layout, transposed: bool) -> list[tuple[tuple[Ref, Ref, Ref], tuple[int, int]]]:
    """(c, a, w) views and (planes, rows) of the instructions that multiply `a` by `w` into `c`."""
    assert all(x.strides[-1] == 1 or x.shape[-1] == 1 for x in (a, w)), (
        "rows of a product's operands are not contiguous"
    )
    batched = len(w.shape) > 2
    lead = range(len(a.shape) - 2)
    dims: list[tuple[int, ...]] = [
        (a.shape[i], c.strides[i], a.strides[i], w.strides[i] if batched else 0) for i in lead
    ]
    rows: tuple[int, ...] = (a.shape[-2], c.strides[-2], a.strides[-2], 0)
    if not batched:
        dims = coalesce([*dims, rows])
        rows = dims.pop() if dims else (1, 0, 0, 0)
    else:
        dims = coalesce(dims)
    planes = dims.pop() if dims else (1, 0, 0, 0)
    out = []
    for outer in product(*(range(d[0]) for d in dims)):
        for p0 in range(0, planes[0], PLANES):
            for r0 in range(0, rows[0], ROWS):
                starts = [
                    layout.offset
                    + sum(i * d[1 + j] for i, d in zip(outer, dims, strict=True))
                    + p0 * planes[1 + j]
                    + r0 * rows[1 + j]
                    for j, layout in enumerate((c, a, w))
                ]
                strides = (rows[1], rows[2], w.strides[-2])
                refs = tuple(
                    Ref(layout.buffer, start * layout.dtype.bits // 8, layout.dtype, rs=rs, ps=planes[1 + j])
                    for j, (layout, start, rs) in enumerate(zip((c, a, w), starts, strides, strict=True))
                )
                out.append((refs, (min(PLANES, planes[0] - p0), min(ROWS, rows[0] - r0))))
    return out  # type: ignore[return-value]
