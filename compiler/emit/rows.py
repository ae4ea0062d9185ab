"""Operations on whole rows: quantize, softmax, layer norm, reductions, embedding rows."""

from dataclasses import replace

from compiler.emit.emitter import Emitter, Tile, columns, emits
from compiler.ops.record import Role
from compiler.tile.ir import Probe
from compiler.tile.kernel_op import KernelOp
from compiler.tile.kernels import EXP, MAGNITUDE, MAXIMUM, RECIP
from compiler.tile.layout import Layout, fits_row, pieces
from isa.architecture import Dtype, Space
from isa.spec import ACT, TAP, VOP, VRED

ONE = 0x3F800000
LOWEST = 0xFF7FFFFF  # -FLT_MAX
SMALLEST_SCALE = 0x34000000  # 2**-23
OF_NOTHING = {"max": 0xFF800000, "min": 0x7F800000}  # reductions of no element; those that are not here give 0


def bits(value: float) -> int:
    """The float32 bits of a Python number, rounded to nearest even as the framework does."""
    import numpy as np

    return int(np.float32(value).view(np.uint32))


def vector(e: Emitter, op: str, node: KernelOp, d: Layout, a: Layout, imm: int) -> None:
    """Elementwise work on a small row vector."""
    e.emit("vop", node, d.shape, {"d": d}, {"a": a}, {"f": VOP.index(op), "imm": imm})


@emits("quantize_rows")
def quantize_rows(e: Emitter, node: KernelOp) -> None:
    x, col, absmax = node.tensor("x"), node.optional("col"), node.optional("absmax")
    rank, exp = len(x.shape), e.handed.get((x, EXP))
    a = e.operand(x, rank) if exp is None else exp
    results = {number: part for number, part in node.parts().items() if not part.is_empty}
    sizes = a.shape
    if x.is_empty:  # no element, but a scale for each row
        for result in results.values():
            _fill(e, result, SMALLEST_SCALE)
        return
    q = e.result(results[0]) if 0 in results else e.temp(sizes, Dtype.I8, node.name + ".q")
    s = e.result(results[1]).unsqueeze() if 1 in results else e.temp(sizes[:-1], x.dtype, node.name + ".s").unsqueeze()
    ins = {"a": a, "rs": e.handed.get((x, RECIP)), "cs": None if col is None else e.operand(col, rank)}
    if absmax is not None:
        ins["am"] = e.operand(absmax, rank - 1).unsqueeze()
    elif col is None and (x, MAGNITUDE) in e.handed:
        ins["am"] = e.handed[x, MAGNITUDE].unsqueeze()
    e.emit("vqd", node, sizes, {"d": q, "s": s}, ins, row_op=True)
    for result in results.values():
        e.finish(result)


@emits("softmax")
def softmax(e: Emitter, node: KernelOp) -> None:
    """max, exp with row sum, reciprocal; the product is left to the quantize that follows, if one does."""
    x, zero_masked = node.tensor("x"), node.flag("zero_masked_rows")
    a = e.operand(x, len(x.shape))
    sizes, lead = a.shape, a.shape[:-1]
    handed = e.handed.get((x, MAXIMUM))
    top = handed if handed is not None else e.temp(lead, Dtype.F32, node.name + ".max")
    long = not fits_row("act", sizes[-1])  # for the sum on the way out; a reduction of its own reaches further
    if handed is None:
        e.emit("vred", node, sizes, {"d": top.unsqueeze()}, {"a": a}, {"f": VRED.index("max")}, row_op=True)
    if zero_masked:  # a row of -Inf only becomes exp(-Inf) = 0 with a sum of 1
        vector(e, "max", node, top, top, LOWEST)
    alone = (
        len(x.users) == 1
        and x in e.tiles
        and x not in e.storage.layouts
        and a is e.tiles[x].layout
        and a.dtype is Dtype.F32
    )
    exp = a if alone else e.temp(sizes, Dtype.F32, node.name + ".exp")
    total = e.temp(lead, Dtype.F32, node.name + ".sum")
    attrs = {"f": ACT.index("exp"), "neg": 1, "scale": ONE}
    sums = {} if long else {"sum": total.unsqueeze()}
    e.emit("act", node, sizes, {"d": exp, **sums}, {"a": a, "bi": top.unsqueeze()}, attrs, row_op=not long)
    if long:
        e.emit("vred", node, sizes, {"d": total.unsqueeze()}, {"a": exp}, {"f": VRED.index("sum")}, row_op=True)
    if zero_masked:
        vector(e, "max", node, total, total, ONE)
    recip = e.temp(lead, Dtype.F32, node.name + ".recip")
    e.emit("act", node, lead, {"d": recip}, {"a": total}, {"f": ACT.index("recip"), "scale": ONE})
    if e.hands(EXP):
        e.handed |= {(node, EXP): exp, (node, RECIP): recip.unsqueeze()}
        return
    e.emit("vop", node, sizes, {"d": e.result(node)}, {"a": exp, "b": recip.unsqueeze()}, {"f": VOP.index("mul")})
    e.finish(node)


@emits("layer_norm")
def layer_norm(e: Emitter, node: KernelOp) -> None:
    x, gamma, beta, eps = node.tensor("x"), node.optional("weight"), node.optional("bias"), node.number("eps")
    a = e.operand(x, len(x.shape))
    sizes, lead, n = a.shape, a.shape[:-1], x.shape[-1]
    inverse = bits(1.0 / n)
    mean = None
    if node.flag("center"):
        sums = e.temp(lead, Dtype.F32, node.name + ".mean")
        mean = sums.unsqueeze()
        e.emit("vred", node, sizes, {"d": mean}, {"a": a}, {"f": VRED.index("sum")}, row_op=True)
        vector(e, "mul", node, sums, sums, inverse)
    scale = e.temp(lead, Dtype.F32, node.name + ".rstd")
    e.emit(
        "vred",
        node,
        sizes,
        {"d": scale.unsqueeze()},
        {"a": a, "sub": mean},
        {"f": VRED.index("sumsq")},
        row_op=True,
    )
    e.emit(
        "act",
        node,
        lead,
        {"d": scale},
        {"a": scale, "bi": e.constant(bits(eps))},
        {"f": ACT.index("rsqrt"), "scale": inverse},
    )
    rank = len(x.shape)
    ins: dict[str, Layout | None] = {"a": a, "sub": mean, "rs": scale.unsqueeze()}
    ins |= {name: e.operand(v, rank) for name, v in (("cs", gamma), ("bi", beta)) if v is not None}
    outs: dict[str, Tile | Layout] = {"d": e.result(node)}
    attrs, long = {}, not fits_row("vaff", n)
    if e.hands(MAGNITUDE):
        absmax = e.handed[node, MAGNITUDE] = e.temp(lead, Dtype.F32, node.name + ".absmax")
        outs["tap"], attrs["red"] = absmax.unsqueeze(), TAP.index("absmax")
    e.emit("vaff", node, sizes, outs, ins, attrs, row_op=not long)
    e.finish(node)


@emits("reduce")
def reduce(e: Emitter, node: KernelOp) -> None:
    x, kind, keep = node.tensor("x"), node.text("kind"), node.flag("keepdim")
    if x.is_empty:
        _fill(e, node, OF_NOTHING.get(kind, 0))
        return
    down, out = node.role is Role.DOWN, e.result(node)
    if not keep:
        axis = len(x.shape) - (2 if down else 1)
        out = replace(out, layout=_insert(out.layout, axis), logical=_insert(out.logical, axis))
    n, inside = x.shape[-1], x.maker in e.kernel.members
    step = n if inside or not down else min(e.tiling.n, n)  # a large map is brought on chip some columns at a time
    for low in range(0, n, step):
        high = min(low + step, n)
        whole = inside or step == n
        a = (
            e.operand(x, len(x.shape))
            if whole
            else e.stage(x, columns(e.storage.resolve(x).narrow(e.block_ranges(x.shape)), low, high))
        )
        d = out if whole else out.columns(low, high)
        e.emit(
            "vred",
            node,
            a.shape,
            {"d": d},
            {"a": a},
            {"f": VRED.index(kind), "down": int(down)},
            row_op=not down,
            down=down,
        )
    e.finish(node)


@emits("argmax")
def argmax(e: Emitter, node: KernelOp) -> None:
    """Of the last dimension, which goes."""
    x = node.tensor("self")
    a, outs = e.operand(x, len(x.shape)), {"d": e.result(node).unsqueeze()}
    e.emit("vred", node, a.shape, outs, {"a": a}, {"f": VRED.index("argmax")}, row_op=True)
    e.finish(node)


def _fill(e: Emitter, node: KernelOp, value: int) -> None:
    """A result that is the same everywhere."""
    out = e.result(node)
    e.emit("vop", node, out.layout.shape, {"d": out}, {"a": e.constant(value)}, {"f": VOP.index("mov")})
    e.finish(node)


def _insert(layout: Layout, axis: int) -> Layout:
    return replace(
        layout,
        shape=(*layout.shape[:axis], 1, *layout.shape[axis:]),
        strides=(*layout.strides[:axis], 0, *layout.strides[axis:]),
    )


@emits("embedding")
def embedding(e: Emitter, node: KernelOp) -> None:
    """Rows of a table in DRAM, by number."""
    table_node, ids_node = node.tensor("weight"), node.tensor("indices")
    table = e.storage.resolve(table_node)
    assert table.buffer.space is Space.DRAM, f"{table_node.name}, a table, is on chip"
    ids = e.operand(ids_node, len(ids_node.shape))
    outs, moves = e.results_with_columns(node, {"d": e.result(node)})
    out = outs["d"]
    cols = table.shape[-1]
    sizes = (*ids.shape, cols)
    source = replace(table, shape=(1, cols), strides=(0, table.strides[-1]))
    layout, logical = (out.layout, [(out.logical.offset, out.logical.strides)]) if isinstance(out, Tile) else (out, [])
    for piece in pieces(sizes, (layout, ids.unsqueeze().broadcast(sizes)), logical, row_op=True, planes=False):
        d, idx = piece.refs
        a = next(pieces((1, cols), (source,), row_op=True, planes=False)).refs[0]
        assert d is not None and idx is not None and a is not None
        a = replace(a, rs=table.strides[0])
        views = {"d": d, "a": a, "idx": replace(idx, cs=1)}
        e.emit_one(
            "gather",
            node,
            views,
            {"n": piece.rows, "cols": cols, "limit": table_node.shape[0]},
            tuple(Probe("d", node.name, *where) for where in piece.logical),
        )
    e.move(node, moves)
    e.finish(node)
