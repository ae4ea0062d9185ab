"""Matmul with its epilogue: stage weight tiles, accumulate, then dequantize, bias, mask and residual on the way out.

for each tile of n:  ldw w;  mm acc = a · wᵀ;  vaff y = ((acc * row) * col) + bias (+ residual)
"""

from collections.abc import Iterator, Sequence
from itertools import product

from torch import fx

from compiler.emit.emitter import Emitter, Tile, columns, emits
from compiler.tile.ir import Ref
from compiler.tile.layout import Layout, Range, coalesce, limits_of
from compiler.tile.nodes import dtype, op_name, shape
from isa.architecture import Dtype, Space
from isa.spec import ISA, TAP, VOP

TURNS = 4  # accumulators in turn: with words of a tile of the array, long enough for one to leave it
_ROUND = {Dtype.F32: 0, Dtype.BF16: 1, Dtype.F16: 2}

MM = ISA["mm"]
PLANES, ROWS = MM.field("b").largest, MM.field("m").largest  # of one word


@emits("matmul_i8")
def matmul(e: Emitter, node: fx.Node) -> None:
    """A matmul is emitted by its dequantize, tile by tile; one whose sums are wanted as they are, here."""
    if all(
        user.op == "call_function" and op_name(user) == "dequantize" and user in e.kernel.members for user in node.users
    ):
        e.skipped.add(node)
    else:
        _integers(e, node)


def _integers(e: Emitter, node: fx.Node) -> None:
    """Emit a matmul that gives its int32 sums."""
    a_node, b_node, transposed = node.args[0], node.args[1], bool(node.args[2])
    assert isinstance(a_node, fx.Node) and isinstance(b_node, fx.Node)
    a = e.operand(a_node, len(shape(a_node)), grouped=False)
    weights = e.batched(b_node, 0 if len(shape(b_node)) == 2 else len(shape(node)) - 2) if shape(a_node)[-1] else a
    sizes, out = e.block_shape(node), e.result(node)
    start = out.logical.offset % shape(node)[-1] if e.cut.groups > 1 else 0
    for (low, high), acc in _products(e, node, a, b_node, weights, transposed, sizes, start):
        e.word("vop", node, acc.shape, {"d": out.columns(low, high)}, {"a": acc}, {"f": VOP.index("mov")})
    e.finish(node)


@emits("dequantize")
def dequantize(e: Emitter, node: fx.Node) -> None:
    """Emit matmul and dequantize; wait for the residual addition if it follows at once."""
    if residual_user(e, node) is not None:
        e.skipped.add(node)
        return
    emit(e, node, node, None)


def residual_user(e: Emitter, node: fx.Node) -> fx.Node | None:
    """The addition that can be fused into this dequantize: its only reader, of two values of one shape and type."""
    users = list(node.users)
    if len(users) != 1 or node in e.storage.layouts or users[0] not in e.kernel.members:
        return None
    user = users[0]
    if (
        op_name(user) != "add"
        or user.kwargs
        or not all(isinstance(a, fx.Node) for a in user.args[:2])
        or user.args[0] is user.args[1]
    ):
        return None
    same = all(shape(a) == shape(user) and dtype(a) == dtype(user) for a in user.args[:2])  # type: ignore[arg-type]
    return user if same and dtype(user).is_float else None


def fused_add(e: Emitter, node: fx.Node) -> bool:
    """Emit `add` as the residual step of a pending dequantize. False if there is none."""
    for index, operand in enumerate(node.args[:2]):
        if isinstance(operand, fx.Node) and operand in e.skipped and op_name(operand) == "dequantize":
            other = node.args[1 - index]
            assert isinstance(other, fx.Node)
            emit(e, operand, node, e.operand(other, len(shape(node))))
            return True
    return False


def emit(e: Emitter, node: fx.Node, target: fx.Node, residual: Layout | None) -> None:
    """Emit the matmul behind dequantize `node` and its epilogue, writing the block of value `target`."""
    product_node, row_node = node.args[0], node.args[1]
    assert isinstance(product_node, fx.Node) and isinstance(row_node, fx.Node)
    if product_node not in e.skipped:
        _from_sums(e, node, target, residual)
        return
    col_node, bias_node = (
        node.args[i] if len(node.args) > i else node.kwargs.get(name) for i, name in ((2, "col"), (3, "bias"))
    )
    rank = len(shape(node))
    a_node, b_node, transposed = product_node.args[0], product_node.args[1], bool(product_node.args[2])
    assert isinstance(a_node, fx.Node) and isinstance(b_node, fx.Node)
    a = e.operand(a_node, len(shape(a_node)), grouped=False)
    batch = 0 if len(shape(b_node)) == 2 else rank - 2
    weights = e.batched(b_node, batch) if shape(a_node)[-1] else a  # of products of nothing, none is read
    row = e.operand(row_node, rank - 1).unsqueeze()
    col = e.operand(col_node, rank) if isinstance(col_node, fx.Node) else None
    bias = e.operand(bias_node, rank) if isinstance(bias_node, fx.Node) else None
    sizes = e.block_shape(node)
    out, n = e.result(target), sizes[-1]
    start = (
        out.logical.offset % shape(node)[-1] if e.cut.groups > 1 else 0
    )  # of this group's columns among those of the weights
    tap = _row_max(e, node, target, sizes) if e.cut.n >= n else None
    for (low, high), acc in _products(e, product_node, a, b_node, weights, transposed, sizes, start):
        ins = {
            "a": acc,
            "rs": row,
            "cs": _part(col, low, high),
            "bi": _part(bias, low, high),
            "res": _part(residual, low, high),
        }
        attrs = {"rnd": _ROUND[dtype(node)]}
        outs: dict[str, Tile | Layout] = {"d": out.columns(low, high)}
        if tap is not None:
            outs["tap"], attrs["red"] = tap.unsqueeze(), TAP.index("max")
        e.word("vaff", target, acc.shape, outs, ins, attrs, row_op=tap is not None)
    e.finish(target)


def _from_sums(e: Emitter, node: fx.Node, target: fx.Node, residual: Layout | None) -> None:
    """Dequantize sums that somebody else has computed."""
    rank, (sums, row_node) = len(shape(node)), node.args[:2]
    assert isinstance(sums, fx.Node) and isinstance(row_node, fx.Node)
    col, bias = (node.args[i] if len(node.args) > i else node.kwargs.get(name) for i, name in ((2, "col"), (3, "bias")))
    ins: dict[str, Layout | None] = {
        "a": e.operand(sums, rank),
        "rs": e.operand(row_node, rank - 1).unsqueeze(),
        "res": residual,
    }
    ins |= {name: e.operand(v, rank) for name, v in (("cs", col), ("bi", bias)) if isinstance(v, fx.Node)}
    e.word("vaff", target, e.block_shape(node), {"d": e.result(target)}, ins, {"rnd": _ROUND[dtype(node)]})
    e.finish(target)


def _row_max(e: Emitter, node: fx.Node, target: fx.Node, sizes: Sequence[int]) -> Layout | None:
    """A buffer for the row maxima, if the softmax that wants them is the only reader."""
    users = list(target.users)
    if (
        len(users) != 1
        or users[0] not in e.kernel.members
        or op_name(users[0]) != "softmax"
        or dtype(node) is not Dtype.F32
    ):
        return None
    if sizes[-1] > limits_of("vaff")[2]:
        return None
    tap = e.temp(sizes[:-1], Dtype.F32, target.name + ".max")
    e.notes[target] = {"max": tap}
    return tap


def _part(layout: Layout | None, low: int, high: int) -> Layout | None:
    return None if layout is None else columns(layout, low, high)


def _products(
    e: Emitter,
    node: fx.Node,
    a: Layout,
    b_node: fx.Node,
    weights: Layout,
    transposed: bool,
    sizes: tuple[int, ...],
    start: int,
) -> Iterator[tuple[Range, Layout]]:
    """Emit the product tile by tile of its columns: each tile of the block, with its accumulator.

    Where the depth is cut, too, a few tiles take turns: a sum that goes on where the last word has just left it would
    wait for that word.
    """
    n = sizes[-1]
    step = min(e.cut.n, n)
    tiles = [(low, min(low + step, n)) for low in range(0, n, step)]
    turns = TURNS if e.cut.k < a.shape[-1] else 1
    for i in range(0, len(tiles), turns):
        together = tiles[i : i + turns]
        shifted = [(start + low, start + high) for low, high in together]
        yield from zip(together, _accumulate(e, node, a, b_node, weights, transposed, sizes[:-1], shifted), strict=True)


def _accumulate(
    e: Emitter,
    node: fx.Node,
    a: Layout,
    b_node: fx.Node,
    weights: Layout,
    transposed: bool,
    rows: tuple[int, ...],
    tiles: Sequence[Range],
) -> list[Layout]:
    """Emit the words of some tiles of the product, each of columns low .. high; returns their accumulators."""
    k = a.shape[-1]
    if k == 0:
        return [e.filled((*rows, high - low), Dtype.I32, 0, node) for low, high in tiles]
    a = e.with_columns(a if a.shape[:-1] == rows else a.broadcast((*rows, k)), node)
    step = min(e.cut.k, k, MM.field("k").largest)
    sums = [e.temp((*rows, high - low), Dtype.I32, node.name + ".acc", Space.ACC) for low, high in tiles]
    for (first, last), (acc, n_range) in product(
        [(f, min(f + step, k)) for f in range(0, k, step)], zip(sums, tiles, strict=True)
    ):
        w_rows, w_cols = (n_range, (first, last)) if transposed else ((first, last), n_range)
        w = e.with_columns(e.stage(b_node, _window(weights, w_rows, w_cols), many=len(weights.shape) == 2), node)
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
            }
            e.raw("mm", node, dict(zip(("c", "a", "w"), refs, strict=True)), attrs)
    return sums


def _window(layout: Layout, rows: tuple[int, int], cols: tuple[int, int]) -> Layout:
    offset = layout.offset + rows[0] * layout.strides[-2] + cols[0] * layout.strides[-1]
    return layout.seen(offset, (*layout.shape[:-2], rows[1] - rows[0], cols[1] - cols[0]), layout.strides)


def _mm_blocks(a: Layout, w: Layout, c: Layout, transposed: bool) -> list[tuple[tuple[Ref, Ref, Ref], tuple[int, int]]]:
    """(c, a, w) views and (planes, rows) of the words that multiply `a` by `w` into `c`."""
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
