"""Operations on whole rows: quantize, softmax, layer norm, reductions, embedding rows."""

from dataclasses import replace
from operator import getitem
from typing import Any

from torch import fx

from compiler.emit.emitter import Emitter, Tile, columns, emits
from compiler.ops.record import Role
from compiler.tile.layout import Layout, limits_of, pieces
from compiler.tile.nodes import base, computing, dtype, is_empty, op_name, role, shape
from isa.architecture import Dtype, Space
from isa.errors import UnsupportedError
from isa.spec import ACT, TAP, VOP, VRED

ONE = 0x3F800000
LOWEST = 0xFF7FFFFF  # -FLT_MAX
SMALLEST_SCALE = 0x34000000  # 2**-23
OF_NOTHING = {"max": 0xFF800000, "min": 0x7F800000}  # reductions of no element; those that are not here give 0


def bits(value: float) -> int:
    """The float32 bits of a Python number, rounded to nearest even as the framework does."""
    import numpy as np

    return int(np.float32(value).view(np.uint32))


def argument(node: fx.Node, index: int, name: str, default: Any = None) -> Any:
    """A positional or keyword argument of a node."""
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def vector(e: Emitter, op: str, node: fx.Node, d: Layout, a: Layout, imm: int) -> None:
    """Elementwise work on a small row vector."""
    e.word("vop", node, d.shape, {"d": d}, {"a": a}, {"f": VOP.index(op), "imm": imm})


@emits("quantize_rows")
def quantize_rows(e: Emitter, node: fx.Node) -> None:
    x, col = node.args[0], argument(node, 1, "col")
    assert isinstance(x, fx.Node)
    rank = len(shape(x))
    notes = e.notes.get(x, {})
    a = notes["exp"] if "exp" in notes else e.operand(x, rank)
    results = {user.args[1]: user for user in node.users if user.target is getitem and not is_empty(user)}
    sizes = a.shape
    if is_empty(x):  # no element, but a scale for each row
        for result in results.values():
            _fill(e, result, SMALLEST_SCALE)
        return
    q = e.result(results[0]) if 0 in results else e.temp(sizes, Dtype.I8, node.name + ".q")
    s = e.result(results[1]).unsqueeze() if 1 in results else e.temp(sizes[:-1], dtype(x), node.name + ".s").unsqueeze()
    ins = {"a": a, "rs": notes.get("recip"), "cs": e.operand(col, rank) if isinstance(col, fx.Node) else None}
    if "absmax" in notes and ins["cs"] is None:
        ins["am"] = notes["absmax"].unsqueeze()
    e.word("vqd", node, sizes, {"d": q, "s": s}, ins, row_op=True)
    for result in results.values():
        e.finish(result)


@emits("softmax")
def softmax(e: Emitter, node: fx.Node) -> None:
    """max, exp with row sum, reciprocal; the product is left to the quantize that follows, if one does."""
    x, zero_masked = node.args[0], bool(argument(node, 1, "zero_masked_rows", False))
    assert isinstance(x, fx.Node)
    a = e.operand(x, len(shape(x)))
    sizes, lead = a.shape, a.shape[:-1]
    noted = e.notes.get(x, {}).get("max")
    top = noted if noted is not None else e.temp(lead, Dtype.F32, node.name + ".max")
    long = sizes[-1] > limits_of("act")[2]  # for the sum on the way out; a reduction of its own reaches further
    if noted is None:
        e.word("vred", node, sizes, {"d": top.unsqueeze()}, {"a": a}, {"f": VRED.index("max")}, row_op=True)
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
    e.word("act", node, sizes, {"d": exp, **sums}, {"a": a, "bi": top.unsqueeze()}, attrs, row_op=not long)
    if long:
        e.word("vred", node, sizes, {"d": total.unsqueeze()}, {"a": exp}, {"f": VRED.index("sum")}, row_op=True)
    if zero_masked:
        vector(e, "max", node, total, total, ONE)
    recip = e.temp(lead, Dtype.F32, node.name + ".recip")
    e.word("act", node, lead, {"d": recip}, {"a": total}, {"f": ACT.index("recip"), "scale": ONE})
    users = list(node.users)
    if (
        len(users) == 1
        and node not in e.storage.layouts
        and users[0] in e.kernel.members
        and op_name(users[0]) == "quantize_rows"
    ):
        e.notes[node] = {"exp": exp, "recip": recip.unsqueeze()}
        return
    e.word("vop", node, sizes, {"d": e.result(node)}, {"a": exp, "b": recip.unsqueeze()}, {"f": VOP.index("mul")})
    e.finish(node)


@emits("layer_norm")
def layer_norm(e: Emitter, node: fx.Node) -> None:
    x = node.args[0]
    assert isinstance(x, fx.Node)
    gamma, beta, eps = argument(node, 1, "weight"), argument(node, 2, "bias"), argument(node, 3, "eps")
    a = e.operand(x, len(shape(x)))
    sizes, lead, n = a.shape, a.shape[:-1], shape(x)[-1]
    inverse = bits(1.0 / n)
    mean = e.temp(lead, Dtype.F32, node.name + ".mean")
    e.word("vred", node, sizes, {"d": mean.unsqueeze()}, {"a": a}, {"f": VRED.index("sum")}, row_op=True)
    vector(e, "mul", node, mean, mean, inverse)
    scale = e.temp(lead, Dtype.F32, node.name + ".rstd")
    e.word(
        "vred",
        node,
        sizes,
        {"d": scale.unsqueeze()},
        {"a": a, "sub": mean.unsqueeze()},
        {"f": VRED.index("sumsq")},
        row_op=True,
    )
    e.word(
        "act",
        node,
        lead,
        {"d": scale},
        {"a": scale, "bi": e.constant(bits(eps))},
        {"f": ACT.index("rsqrt"), "scale": inverse},
    )
    rank = len(shape(x))
    ins = {"a": a, "sub": mean.unsqueeze(), "rs": scale.unsqueeze()}
    ins |= {name: e.operand(v, rank) for name, v in (("cs", gamma), ("bi", beta)) if isinstance(v, fx.Node)}
    outs: dict[str, Tile | Layout] = {"d": e.result(node)}
    attrs, long = {}, n > limits_of("vaff")[2]
    readers = [u for u in node.users if u in e.kernel.members and op_name(u) == "quantize_rows"]
    if not long and any(argument(u, 1, "col") is None for u in readers):
        absmax = e.temp(lead, Dtype.F32, node.name + ".absmax")
        e.notes[node] = {"absmax": absmax}
        outs["tap"], attrs["red"] = absmax.unsqueeze(), TAP.index("absmax")
    e.word("vaff", node, sizes, outs, ins, attrs, row_op=not long)
    e.finish(node)


@emits("reduce")
def reduce(e: Emitter, node: fx.Node) -> None:
    x, kind, keep = node.args[0], argument(node, 1, "kind"), bool(argument(node, 3, "keepdim", False))
    assert isinstance(x, fx.Node) and isinstance(kind, str)
    if is_empty(x):
        _fill(e, node, OF_NOTHING.get(kind, 0))
        return
    down, out = role(node) is Role.DOWN, e.result(node)
    if not keep:
        axis = len(shape(x)) - (2 if down else 1)
        out = replace(out, layout=_insert(out.layout, axis), logical=_insert(out.logical, axis))
    n, inside = shape(x)[-1], computing(base(x)) in e.kernel.members
    step = n if inside or not down else min(e.cut.n, n)  # a large map is brought on chip some columns at a time
    for low in range(0, n, step):
        high = min(low + step, n)
        whole = inside or step == n
        a = (
            e.operand(x, len(shape(x)))
            if whole
            else e.stage(x, columns(e.storage.resolve(x).narrow(e.block_ranges(shape(x))), low, high))
        )
        d = out if whole else out.columns(low, high)
        e.word(
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


def _fill(e: Emitter, node: fx.Node, value: int) -> None:
    """A result that is the same everywhere."""
    out = e.result(node)
    e.word("vop", node, out.layout.shape, {"d": out}, {"a": e.constant(value)}, {"f": VOP.index("mov")})
    e.finish(node)


def _insert(layout: Layout, axis: int) -> Layout:
    return replace(
        layout,
        shape=(*layout.shape[:axis], 1, *layout.shape[axis:]),
        strides=(*layout.strides[:axis], 0, *layout.strides[axis:]),
    )


@emits("embedding")
def embedding(e: Emitter, node: fx.Node) -> None:
    """Rows of a table in DRAM, by number. Raises UnsupportedError for a table that was computed on chip."""
    table_node, ids_node = node.args[0], node.args[1]
    assert isinstance(table_node, fx.Node) and isinstance(ids_node, fx.Node)
    table = e.storage.resolve(table_node)
    if table.buffer.space is not Space.DRAM:
        raise UnsupportedError(
            "an embedding table that the program itself computes", node.name, "look rows up in a parameter"
        )
    if table.strides[-1] > 1 and table.shape[-1] > 1:
        raise UnsupportedError(
            "an embedding table whose rows do not lie in one piece",
            node.name,
            "give the table as it is looked up, not transposed",
        )
    ids = e.operand(ids_node, len(shape(ids_node)))
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
        e.raw(
            "gather",
            node,
            views,
            {"n": piece.rows, "cols": cols, "limit": shape(table_node)[0]},
            tuple(e.tap("d", node.name, tap) for tap in piece.logical),
        )
    e.move(node, moves)
    e.finish(node)
