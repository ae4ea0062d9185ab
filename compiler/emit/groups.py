"""Grouped products: rows quantized group by group, and products of codes with the scales of groups on the way.

for each tile of n:  ldw codes, scales, …;  mmg acc = a · wᵀ;  vop y = acc
"""

from collections.abc import Iterator
from itertools import product

from compiler.emit.emitter import Emitter, Tile, columns, emits
from compiler.tile.ir import Ref
from compiler.tile.kernel_op import KernelOp
from compiler.tile.layout import Layout, Range, coalesce
from isa.architecture import Dtype, Space
from isa.errors import UnsupportedError
from isa.spec import ISA, NIBBLES, TIES, VOP, VQD_NORM
from isa.timing import ceil_div
from isa.views import PARTS

MMG = ISA["mmg"]
ROWS, COLUMNS, DEPTH = (MMG.field(name).largest for name in ("m", "n", "k"))  # of one instruction


@emits("quantize_groups")
def quantize_groups(e: Emitter, node: KernelOp) -> None:
    """A group is a row of the view."""
    x, group = node.tensor("x"), node.integer("group")
    results = {number: part for number, part in node.parts().items() if not part.is_empty}
    if x.is_empty:
        return
    a = e.with_columns(e.operand(x, len(x.shape)), node)
    lead, count = a.shape[:-1], a.shape[-1] // group
    kind = next((part.dtype for number, part in results.items() if number == 1), Dtype.F32)
    q = e.result(results[0]) if 0 in results else e.temp(a.shape, Dtype.I8, node.name + ".q")
    s = e.result(results[1]) if 1 in results else e.temp((*lead, count), kind, node.name + ".s")
    attrs = {"norm": VQD_NORM.index(node.text("norm")), "ties": TIES.index(node.text("ties"))}
    outs = {"d": _in_groups(q, group), "s": s.unsqueeze()}
    e.emit("vqd", node, (*lead, count, group), outs, {"a": _split(a, group)}, attrs, row_op=True)
    for result in results.values():
        e.finish(result)


def _in_groups(whole: Tile | Layout, group: int) -> Tile | Layout:
    if isinstance(whole, Layout):
        return _split(whole, group)
    return Tile(_split(whole.layout, group), _split(whole.logical, group), whole.node)


def _split(layout: Layout, group: int) -> Layout:
    """The last dimension as two: groups, and elements of a group."""
    step = layout.strides[-1]
    shape = (*layout.shape[:-1], layout.shape[-1] // group, group)
    return layout.seen(layout.offset, shape, (*layout.strides[:-1], group * step, step))


@emits("matmul_groups")
def matmul_groups(e: Emitter, node: KernelOp) -> None:
    """Raises UnsupportedError for sub-scales on rows that one instruction does not hold."""
    left, k = node.tensor("a"), node.tensor("a").shape[-1]
    sizes, out = e.block_shape(node), e.result(node)
    n, first_column = sizes[-1], out.logical.offset % node.shape[-1] if e.tiling.groups > 1 else 0
    width = min(e.tiling.n, n, COLUMNS)
    if k:
        a, sa = (_rows(e, node, node.tensor(name), sizes[:-1]) for name in ("a", "sa"))
    for low in e.some(range(0, n, width)):
        high = min(low + width, n)
        if k:
            acc = e.temp((*sizes[:-1], high - low), Dtype.F32, node.name + ".acc", Space.ACC)
            for first, last in e.some(list(_depths(e, node, left.shape[-1]))):
                _emit(e, node, (a, sa, acc), (first_column + low, first_column + high), (first, last))
        else:
            acc = e.filled((*sizes[:-1], high - low), Dtype.F32, 0, node)
        e.emit("vop", node, acc.shape, {"d": out.columns(low, high)}, {"a": acc}, {"f": VOP.index("mov")})
    e.finish(node)


def _rows(e: Emitter, node: KernelOp, operand: KernelOp, rows: tuple[int, ...]) -> Layout:
    """The left operand, or its scales, for the rows of the block."""
    found = e.operand(operand, len(operand.shape), grouped=False)
    return e.with_columns(found if found.shape[:-1] == rows else found.broadcast((*rows, found.shape[-1])), node)


def _depths(e: Emitter, node: KernelOp, k: int) -> Iterator[Range]:
    """Stretches of k, whole groups, that an instruction takes: lanes of sub-scales only end with the last."""
    group = node.integer("group")
    if node.optional("ss") is not None:
        if k > DEPTH:
            raise UnsupportedError(f"sub-scales on rows of {k}; an instruction holds at most {DEPTH}", node.name)
        step = k
    else:
        step = max(min(e.tiling.k, DEPTH) // group, 1) * group
    for first in range(0, k, step):
        yield first, min(first + step, k)


def _emit(e: Emitter, node: KernelOp, rows: tuple[Layout, Layout, Layout], ns: Range, ks: Range) -> None:
    """One stretch of k of one tile of columns: load what belongs to its weights, multiply."""
    codes, group, sub = node.text("codes"), node.integer("group"), node.integer("sub")
    per = {"w": 1 if codes == "i8" else 2, "sw": group, "zw": group, "ss": sub, "sm": sub}  # elements of k for a column
    parts: dict[str, Ref] = {}
    for name, elements in per.items():
        operand = node.optional(name)
        if operand is not None:
            place = (ns, (ks[0] // elements, ceil_div(ks[1], elements)))
            local = e.with_columns(e.stage(operand, e.storage.resolve(operand).narrow(place), many=True), node)
            parts[name] = _ref(local, local.offset, local.strides[-2])
    if codes != "i8":
        parts["w"] = Ref(parts["w"].buffer, parts["w"].offset, Dtype.I4, rs=2 * parts["w"].rs)
    attrs = {"n": ns[1] - ns[0], "k": ks[1] - ks[0], "glog": _log("g", group), "acc": int(ks[0] > 0)}
    attrs |= {
        "nib": 0 if codes == "i8" else NIBBLES.index(codes),
        "pre": int(node.flag("pre")),
        "half": int(node.flag("half")),
    }
    attrs |= {"slog": _log("j", sub)} if "ss" in parts else {}
    a, sa, acc = rows
    layouts = {"c": acc, "a": columns(a, *ks), "sa": columns(sa, ks[0] // group, ceil_div(ks[1], group))}
    for m, starts, steps in _row_blocks(*layouts.values()):
        views = {
            name: _ref(x, *where)
            for (name, x), where in zip(layouts.items(), zip(starts, steps, strict=True), strict=True)
        }
        e.emit_one("mmg", node, views | parts, {"m": m, **attrs})


def _ref(layout: Layout, start: int, step: int) -> Ref:
    return Ref(layout.buffer, start * layout.dtype.bits // 8, layout.dtype, rs=step)


def _log(part: str, length: int) -> int:
    return (length // PARTS[part][1]).bit_length() - 1


def _row_blocks(*layouts: Layout) -> Iterator[tuple[int, list[int], list[int]]]:
    """Rows that one instruction takes: how many, and for each layout where they start and how far apart they are."""
    first = layouts[0]
    dims = coalesce([(n, *(x.strides[i] for x in layouts)) for i, n in enumerate(first.shape[:-1])])
    rows = dims.pop() if dims else (1, *(0 for _ in layouts))
    for outer in product(*(range(d[0]) for d in dims)):
        for low in range(0, rows[0], ROWS):
            starts = [
                x.offset + sum(i * d[1 + j] for i, d in zip(outer, dims, strict=True)) + low * rows[1 + j]
                for j, x in enumerate(layouts)
            ]
            yield min(ROWS, rows[0] - low), starts, list(rows[1:])
