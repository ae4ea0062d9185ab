"""Emit a kernel: pick its cut, walk its blocks, call one emitter per operation."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from math import prod

from torch import fx

from compiler.tile import emit_elementwise as elementwise
from compiler.tile import emit_matmul, emit_rows
from compiler.tile.cost import cycles
from compiler.tile.emitter import Cut, Emitter
from compiler.tile.graph import Role, base, op_name, role, shape
from compiler.tile.ir import Buffer, Op
from compiler.tile.kernels import Kernel
from compiler.tile.layout import Range
from compiler.tile.storage import Storage
from isa.chip import Chip
from isa.errors import CompileError, UnsupportedError
from isa.spec import DMA_ENGINES, Space
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

HEAD_ROWS = 512  # rows per block of a projection that is cut by heads
MIN_ROWS = 32  # rows per block at least, so that words stay long against their fixed costs

@dataclass(frozen=True)
class Tuning:
    """What the search over tilings varies.

    `points` (head, query) pairs per block of attention, `rows` per block of other kernels, bytes of weights that one word loads (a
    `slice`: small enough to start early and to find room, large enough to keep counts short), how far the parts of a strip
    overlap in the order of the kernels (`overlap`), the `share` of the memories to plan with, and whether loads get memory in the order
    of the kernels (`in_turn`).
    """

    points: int = 512
    rows: int = MIN_ROWS
    slice: int = 1 << 20
    overlap: float = 0.0
    in_turn: bool = False
    share: float = 1.0



def emit_kernel(kernel: Kernel, storage: Storage, cut: Cut, prefix: str, part: Range | None = None, only: int | None = None) -> Emitter:
    """Emit every block of a kernel, or of a part of its first dimension; of these the `only` first ones, to measure them."""
    e = Emitter(kernel, storage, cut, prefix)
    for ranges in islice(_part_blocks(kernel, cut.rows, part), only):
        for e.group in range(cut.groups):
            e.ranges, e.tiles, e.notes, e.skipped = ranges, {}, {}, set()
            e.marks.append(len(e.ops))
            for node in kernel.nodes:
                name = op_name(node)
                if name not in EMIT:
                    raise UnsupportedError(f"no instruction selection for {node.target}", node.name)
                EMIT[name](e, node)
            e.block += 1
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


def _part_blocks(kernel: Kernel, rows: int, part: Range | None) -> Iterator[tuple[Range, ...]]:
    """The blocks of a kernel within a part of its first dimension.

    Embeddings of one position follow each other, so that what all samples share is loaded once.
    """
    low, high = part or (0, kernel.domain[0] if kernel.domain else 0)
    found = blocks((high - low, *kernel.domain[1:]), rows) if kernel.domain else blocks((), rows)
    shifted = (((a + low, b + low), *rest) for (a, b), *rest in found) if low else found
    if any(role(node) is Role.GATHER for node in kernel.nodes):
        return iter(sorted(shifted, key=lambda ranges: ranges[::-1]))
    return iter(shifted)


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


def is_column_separable(kernel: Kernel) -> bool:
    """Whether every operation behind the kernel's matmul treats columns one by one, so that the output can be cut both ways."""
    names = [op_name(n) for n in kernel.nodes]
    plain = all(role(n) in (Role.MATMUL, Role.DEQUANTIZE, Role.ELEMENTWISE) for n in kernel.nodes)
    return plain and names[0] == "matmul_i8" and names.count("matmul_i8") == 1 and len({shape(n) for n in kernel.nodes}) == 1


def slice_width(k: int, n: int, chip: Chip, size: int) -> int:
    """Columns of weights that one word loads: about `size` bytes, whole columns of the array, slices of nearly equal size."""
    slices = ceil_div(k * n, size)
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


def usual_cuts(kernel: Kernel, chip: Chip, tuning: Tuning, total: int) -> Iterator[list[Cut]]:
    """Ways to cut a kernel in which everything is loaded once, best first, as families of ever narrower tiles of weights."""
    shapes = _Shapes.of(kernel, chip, tuning.slice)
    groups = head_groups(kernel, chip)
    if groups > 1:
        yield [Cut(min(HEAD_ROWS, total), groups=groups)]
    if is_column_separable(kernel) and total > block_rows(chip):
        groups = ceil_div(shapes.n, slice_width(shapes.k, shapes.n, chip, tuning.slice))
        yield from ([Cut(min(r, total), groups=groups, keep=keep)] for keep in (True, False) for r in (1024, 512, 256, 128))
    yield shapes.family(min(tuning.points if shapes.batched else tuning.rows, total), True)


def other_cuts(kernel: Kernel, chip: Chip, tuning: Tuning, total: int) -> Iterator[list[Cut]]:
    """Ways to cut a kernel that does not fit so: few rows at a time, or many with weights loaded again for each block."""
    shapes = _Shapes.of(kernel, chip, tuning.slice)
    most = tuning.points if shapes.batched else tuning.rows
    yield from (shapes.family(most >> i, True) for i in range(10) if 0 < most >> i < 2 * total)
    if shapes.k:
        yield from (shapes.family(min(r, total), False) for r in (1 << i for i in range(10)) if r < 2 * total)
        yield [Cut(1, 16, depth, keep=False) for depth in (1024, 256, 64, 16) if depth < shapes.k]


@dataclass(frozen=True)
class _Shapes:
    """The widest and deepest matmul of a kernel, 0 if it has none, and the widths that tiles of its weights may have."""

    n: int
    k: int
    batched: bool
    widths: tuple[int, ...]

    @staticmethod
    def of(kernel: Kernel, chip: Chip, size: int) -> "_Shapes":
        matmuls = [n for n in kernel.nodes if op_name(n) == "matmul_i8"]
        if not matmuls:
            return _Shapes(0, 0, False, (1 << 30,))
        n, k = max(shape(m)[-1] for m in matmuls), max(shape(m.args[0])[-1] for m in matmuls)  # type: ignore[arg-type]
        widest = min(slice_width(k, n, chip, size), n)
        batched = any(len(shape(m.args[1])) > 2 for m in matmuls)  # type: ignore[arg-type]
        return _Shapes(n, k, batched, (widest, *(w for w in (1024, 256, 64, 16) if w < widest)))

    def family(self, rows: int, keep: bool) -> list[Cut]:
        return [Cut(rows, width, keep=keep) for width in self.widths]


@dataclass(frozen=True)
class Need:
    """Bytes that a cut needs: weights that stay, what a block takes beside them, accumulators."""

    kept: int
    moving: int
    acc: int

    def fits(self, copies: int, free: float, acc: float) -> bool:
        """With so many blocks in flight."""
        return self.kept + copies * self.moving <= free and copies * self.acc <= acc


class Fitter:
    """Finds the cuts of kernels, and remembers what it has measured."""

    def __init__(self, chip: Chip) -> None:
        self.chip = chip
        self.needs: dict[object, Need] = {}
        self.costs: dict[object, int] = {}

    def fit(self, kernel: Kernel, storage: Storage, resident: int, prefix: str, tuning: Tuning, part: Range | None) -> Cut:
        """The first usual cut that fits beside `resident` bytes of SRAM, or else of the others that with which the busiest engine has least to do.

        With two blocks in flight if possible, else with one. Raises CompileError when nothing fits.
        """
        chip = self.chip
        free, acc = (chip.sram.bytes - resident) * tuning.share, chip.acc.bytes * tuning.share
        total = prod(kernel.domain) if part is None else prod(kernel.domain[1:]) * (part[1] - part[0])
        usual, others = list(usual_cuts(kernel, chip, tuning, total)), list(other_cuts(kernel, chip, tuning, total))
        key = (prefix, part, tuple(storage.homes[n].buffer.space for n in _outside(kernel) if n in storage.homes))
        for copies in (2, 1):
            for families in (usual, others):
                found = []
                for family in families:
                    fitting = (cut for cut in family if self._need(key, kernel, storage, cut, prefix, part).fits(copies, free, acc))
                    found += list(islice(fitting, 1))
                    if found and families is usual:
                        return found[0]
                if found:
                    return min(found, key=lambda cut: self._cost(key, kernel, storage, cut, prefix, part))
        needs = [self._need(key, kernel, storage, cut, prefix, part) for family in (*usual, *others) for cut in family]
        raise CompileError(
            f"the smallest tile of {kernel.nodes[-1].name} needs {min(n.kept + n.moving for n in needs)} bytes of SRAM and "
            f"{min(n.acc for n in needs)} of ACC; chip '{chip.name}' has {chip.sram.bytes - resident} of {chip.sram.bytes} free and {chip.acc.bytes}",
            f"kernel {prefix.rstrip('.')} {kernel}",
            "use a chip with a larger scratchpad",
        )

    def _need(self, key: object, kernel: Kernel, storage: Storage, cut: Cut, prefix: str, part: Range | None) -> Need:
        """Memory, measured on the first block."""
        if (key, cut) not in self.needs:
            homes = {layout.buffer for layout in storage.homes.values()}
            e = emit_kernel(kernel, storage, cut, prefix, part, only=1)
            ops = e.ops[: e.marks[1]] if len(e.marks) > 1 else e.ops
            touched = {ref.buffer for op in ops for ref in op.views if ref is not None}
            kept = e.kept & touched if cut.keep else set()
            held = sum(-(-b.bytes // 64) * 64 for b in kept)
            peak = peak_bytes(ops, Space.SRAM, kept, homes)
            self.needs[key, cut] = Need(held * cut.groups, peak - held, peak_bytes(ops, Space.ACC, set(), homes))
        return self.needs[key, cut]

    def _cost(self, key: object, kernel: Kernel, storage: Storage, cut: Cut, prefix: str, part: Range | None) -> int:
        """Cycles of the busiest engine, from the first two blocks: the others are like the second."""
        if (key, cut) not in self.costs:
            e = emit_kernel(kernel, storage, cut, prefix, part, only=2)
            border = e.marks[cut.groups] if len(e.marks) > cut.groups else len(e.ops)
            once, again = _busy(e.ops[:border], self.chip), _busy(e.ops[border:], self.chip)
            count = sum(1 for _ in _part_blocks(kernel, cut.rows, part))
            self.costs[key, cut] = max(once[engine] + (count - 1) * again[engine] for engine in once)
        return self.costs[key, cut]


def _outside(kernel: Kernel) -> list[fx.Node]:
    """Values that a kernel reads or makes."""
    return list(dict.fromkeys([*kernel.nodes, *(base(operand) for node in kernel.nodes for operand in node.all_input_nodes)]))


def _busy(ops: Sequence[Op], chip: Chip) -> dict[str, int]:
    """Cycles of each engine; the DMA queues share one bus."""
    busy = dict.fromkeys(("bus", "mxu", "vec", "act"), 0)
    for op in ops:
        busy["bus" if op.row.engine in DMA_ENGINES else op.row.engine.value] += cycles(op, chip)
    return busy
