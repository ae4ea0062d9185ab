"""Emit a kernel: pick its cut, walk its blocks, call one emitter per operation."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import prod

from torch import fx

from compiler.tile import emit_elementwise as elementwise
from compiler.tile import emit_matmul, emit_rows
from compiler.tile.emitter import Cut, Emitter
from compiler.tile.graph import Role, op_name, role, shape
from compiler.tile.ir import Buffer, Op
from compiler.tile.kernels import Kernel
from compiler.tile.layout import Range
from compiler.tile.storage import Storage
from isa.chip import Chip
from isa.errors import CompileError, UnsupportedError
from isa.spec import Space
from isa.timing import ceil_div

Emit = Callable[[Emitter, fx.Node], None]

EMIT: dict[str, Emit] = {
    "matmul_i8": emit_matmul.matmul,
    "dequantize": emit_matmul.dequantize,
    "quantize_rows": emit_rows.quantize_rows,
    "softmax": emit_rows.softmax,
    "layer_norm": emit_rows.layer_norm,
    "reduce": emit_rows.reduce,
    "embedding": emit_rows.embedding,
    "activation": elementwise.activation,
    "clamp": elementwise.clamp,
    "where": elementwise.where,
    "cat": elementwise.cat,
    "clone": elementwise.copy,
    "_to_copy": elementwise.cast,
    "neg": elementwise.negate,
    "abs": elementwise.absolute,
    "reciprocal": elementwise.reciprocal,
    "logical_not": elementwise.logical_not,
    "bitwise_not": elementwise.logical_not,
    **{name: elementwise.binary(name) for name in ("add", "sub", "mul", "div", "eq", "ne", "lt", "le")},
    **{name: elementwise.binary(word, swap=True) for name, word in (("gt", "lt"), ("ge", "le"))},
    **{f"{kind}_{name}": elementwise.binary(name) for kind in ("bitwise", "logical") for name in ("and", "or", "xor")},
}

MIN_ROWS = 32  # rows per block at least, so that words stay long against their fixed costs
MAX_POINTS = 512  # (head, query) pairs per block of attention, whose words are short


def emit_kernel(kernel: Kernel, storage: Storage, cut: Cut, prefix: str, only_first: bool = False) -> Emitter:
    """Emit every block (or the first, to measure it) of a kernel."""
    e = Emitter(kernel, storage, cut, prefix)
    for e.block, (ranges, e.group) in enumerate(product(blocks(kernel.domain, cut.rows), range(cut.groups))):
        e.ranges, e.tiles, e.notes, e.skipped = ranges, {}, {}, set()
        e.marks.append(len(e.ops))
        for node in kernel.nodes:
            name = op_name(node)
            if name not in EMIT:
                raise UnsupportedError(f"no instruction selection for {node.target}", node.name)
            EMIT[name](e, node)
        if only_first:
            break
    return e


def blocks(domain: Sequence[int], rows: int) -> Iterator[tuple[Range, ...]]:
    """Cut a domain into boxes of at most `rows` points: single steps of the outer dimensions, runs of one, all of the inner.

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


def peak_bytes(ops: Sequence[Op], space: Space, kept: set[Buffer], ignore: set[Buffer]) -> int:
    """Most bytes of new buffers alive at once, in this order of ops; `kept` ones stay alive to the end."""
    first: dict[Buffer, int] = {}
    last: dict[Buffer, int] = {}
    for i, op in enumerate(ops):
        for ref in op.views:
            if ref is not None and ref.buffer.space is space and ref.buffer not in ignore:
                first.setdefault(ref.buffer, i)
                last[ref.buffer] = len(ops) if ref.buffer in kept else i
    change = [0] * (len(ops) + 2)
    for buffer, i in first.items():
        size = -(-buffer.bytes // 64) * 64
        change[i] += size
        change[last[buffer] + 1] -= size
    peak = alive = 0
    for step in change:
        alive += step
        peak = max(peak, alive)
    return peak


def block_rows(chip: Chip) -> int:
    """Rows per block: as many as hide the load of the next weights, so that a full array is never slowed down by small blocks."""
    return max(MIN_ROWS, -(-chip.mxu.rows // chip.mxu.weight_rows_per_cycle))


SLICE_BYTES = 1 << 20  # of weights, loaded by one word: small enough to start early and to find room, large enough to keep counts short


def is_column_separable(kernel: Kernel) -> bool:
    """Whether every operation behind the kernel's matmul treats columns one by one, so that the output can be cut both ways."""
    names = [op_name(n) for n in kernel.nodes]
    plain = all(role(n) in (Role.MATMUL, Role.DEQUANTIZE, Role.ELEMENTWISE) for n in kernel.nodes)
    return plain and names[0] == "matmul_i8" and names.count("matmul_i8") == 1 and len({shape(n) for n in kernel.nodes}) == 1


def slice_width(k: int, n: int, chip: Chip) -> int:
    """Columns of weights that one word loads: about SLICE_BYTES, whole columns of the array, slices of nearly equal size."""
    slices = ceil_div(k * n, SLICE_BYTES)
    return ceil_div(ceil_div(n, slices), chip.mxu.cols) * chip.mxu.cols


def head_groups(kernel: Kernel, chip: Chip) -> int:
    """Into how many groups of heads a projection can be cut so that each still fills the columns of the array; 1: not at all.

    For linear → quantize per head: attention of the first heads can start while the others are still being projected.
    """
    depth = len(kernel.domain)
    quantizes = [n for n in kernel.nodes if op_name(n) == "quantize_rows" and len(shape(n.args[0])) == depth + 2]  # type: ignore[arg-type]
    if [op_name(n) for n in kernel.nodes] != ["matmul_i8", "dequantize", "quantize_rows"] or not quantizes:
        return 1
    heads, size = shape(quantizes[0].args[0])[depth:]  # type: ignore[arg-type]
    per_group = next((n for n in range(1, heads + 1) if heads % n == 0 and n * size >= chip.mxu.cols), heads)
    return heads // per_group


def cuts(kernel: Kernel, chip: Chip) -> Iterator[Cut]:
    """Ways to cut a kernel, best first: whole weights and many rows, then narrower, then reloaded, then shallow."""
    total = prod(kernel.domain)
    matmuls = [n for n in kernel.nodes if op_name(n) == "matmul_i8"]
    n = max((shape(m)[-1] for m in matmuls), default=1)
    k = max((shape(m.args[0])[-1] for m in matmuls), default=1)  # type: ignore[arg-type]
    most = MAX_POINTS if any(len(shape(m.args[1])) > 2 for m in matmuls) else block_rows(chip)  # type: ignore[arg-type]
    rows = [r for r in (most >> i for i in range(10)) if 0 < r < 2 * total] or [1]
    widest = min(slice_width(k, n, chip), n)
    widths = [widest, *(w for w in (1024, 256, 64, 16) if w < widest)]
    groups = head_groups(kernel, chip)
    if groups > 1:
        yield Cut(min(MAX_POINTS, total), groups=groups)
    if is_column_separable(kernel) and total > rows[0]:
        for keep in (True, False):
            for r in (1024, 512, 256, 128):
                yield Cut(min(r, total), groups=ceil_div(n, slice_width(k, n, chip)), keep=keep)
    for keep in (True, False) if matmuls else (True,):
        for r in rows:
            for width in widths if matmuls else (1 << 30,):
                yield Cut(min(r, total), width, keep=keep)
    for depth in (1024, 256, 64, 16):
        if depth < k:
            yield Cut(1, 16, depth, keep=False)


def fit(kernel: Kernel, storage: Storage, chip: Chip, resident: int, prefix: str, share: float) -> Cut:
    """The best cut that fits beside `resident` bytes of SRAM: with two blocks in flight if possible, else with one.

    `share` shrinks the budget when the plan failed before. Raises CompileError when nothing fits.
    """
    homes = {layout.buffer for layout in storage.homes.values()}
    free = chip.sram.bytes - resident
    measured: list[tuple[Cut, int, int, int]] = []
    for copies in (2, 1):
        for index, cut in enumerate(cuts(kernel, chip)):
            if index == len(measured):
                e = emit_kernel(kernel, storage, cut, prefix, only_first=True)
                kept = sum(-(-b.bytes // 64) * 64 for b in e.kept) if cut.keep else 0
                peak = peak_bytes(e.ops, Space.SRAM, e.kept if cut.keep else set(), homes)
                measured.append((cut, kept * cut.groups, peak - kept, peak_bytes(e.ops, Space.ACC, set(), homes)))
            cut, kept, moving, acc = measured[index]
            if kept + copies * moving <= free * share and copies * acc <= chip.acc.bytes * share:
                return cut
    raise CompileError(
        f"the smallest tile of {kernel.nodes[-1].name} needs {min(k + m for _, k, m, _ in measured)} bytes of SRAM and "
        f"{min(a for *_, a in measured)} of ACC; chip '{chip.name}' has {free} of {chip.sram.bytes} free and {chip.acc.bytes}",
        f"kernel {prefix.rstrip('.')} {kernel}",
        "use a chip with a larger scratchpad",
    )
